"""A corpus on a device: sequences of tokens for a stack of language models."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mue_check.data import Corpus
from mue_check.models.batch_order import set_order
from mue_check.spec import TrainSpec


class TokenExamples:
    """Sequences of context + 1 tokens: [R, B, T+1] for losses, [R, B, T] for a forward pass."""

    def __init__(self, train: TrainSpec, corpus: Corpus, runs: int, device: torch.device) -> None:
        corpus.require_context(train.context)
        self.train, self.corpus, self.runs = train, corpus, runs
        self.tokens = torch.from_numpy(corpus.train.astype("int64")).to(device)
        self.heldout_BT = torch.from_numpy(corpus.heldout_windows(train.context)).to(device)
        self.starts = torch.empty(train.steps, runs, train.batch, dtype=torch.int64, device=device)
        self.sequences = self.tokens.unfold(0, train.context + 1, 1)  # a view: one from every token

    def restart(self, seeds: Sequence[int]) -> None:
        """Order the sequences of each run by its seed, in place."""
        set_order(self.starts, len(self.tokens) - self.train.context, self.train, seeds)

    def at(self, step: Tensor) -> Tensor:
        """[R, B, T+1] tokens of a step, looked up by a device counter."""
        return self.sequences[self.starts.index_select(0, step)[0]]

    def drawn(self, runs: int, generator: torch.Generator) -> Tensor:
        """[runs, B, T+1] tokens of random sequences."""
        last = len(self.tokens) - self.train.context
        starts = torch.randint(0, last, (runs, self.train.batch), generator=generator)
        return self.sequences[starts.to(self.tokens.device)]

    def heldout(self) -> Iterator[tuple[Tensor, int]]:
        """The held-out sequences by batches of the training's size."""
        for window_BT in torch.split(self.heldout_BT, self.train.batch):
            yield window_BT.expand(self.runs, -1, -1), len(window_BT)

    def observed(self, count: int | None = None) -> Tensor:
        """[R, B, T] held-out tokens."""
        return self.heldout_BT[:count, :-1].expand(self.runs, -1, -1)
