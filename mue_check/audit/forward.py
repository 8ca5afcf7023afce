"""One forward pass, and a loss, for a language model whose owner gave neither: random tokens."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.assign import Assignment
from mue_check.audit.probe import logits_of
from mue_check.audit.wrapped import inner
from mue_check.rules import Role

_SEQUENCES, _TOKENS = 4, 16


def random_tokens(model: nn.Module, assignments: Mapping[str, Assignment]) -> Tensor | None:
    """[4, 16] token ids, or fewer where there are fewer positions; None without a token embedding."""
    table = next((a for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)
    if table is None or len(table.shape) != 2:
        return None
    places = [a.shape[0] for a in assignments.values() if a.role is Role.POSITION_EMBEDDING]
    device = model.get_parameter(table.name).device
    generator = torch.Generator().manual_seed(0)
    length = min([_TOKENS, *places])
    return torch.randint(table.shape[0], (_SEQUENCES, length), generator=generator).to(device)


def default_forward(model: nn.Module, assignments: Mapping[str, Assignment]) -> Callable[[], object] | None:
    """``model(tokens)`` on random tokens; None where there is no vocabulary to draw them from."""
    tokens, itself = random_tokens(model, assignments), inner(model)
    return None if tokens is None else lambda: itself(tokens)


def default_loss(model: nn.Module, assignments: Mapping[str, Assignment]) -> Callable[[], Tensor] | None:
    """Cross-entropy of the logits of random tokens against random tokens."""
    tokens, itself = random_tokens(model, assignments), inner(model)
    if tokens is None:
        return None

    def loss() -> Tensor:
        logits = logits_of(itself(tokens))
        if logits is None:
            raise TypeError("the model returned no logits")
        rows = logits.flatten(0, -2)
        # a loss of its own for every position, whatever number of positions comes back
        goals = tokens.flatten().roll(1)[: len(rows)] % rows.shape[1]
        return F.cross_entropy(rows.float(), goals)

    return loss
