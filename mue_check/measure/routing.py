"""How a trained model routes: the load of each expert, and how unequal a token's active weights are."""

from collections import defaultdict

import torch

from mue_check.data import Corpus
from mue_check.measure.stacking import stack_of
from mue_check.records import Cell, Columns


def measure_routing(cell: Cell, corpus: Corpus) -> Columns:
    """Columns seed, value, layer, expert, load, weight_sum, variance_factor, on the held-out part after training.

    ``load`` is the share of all assignments; ``weight_sum`` and ``variance_factor`` are means over tokens, the
    same for every expert of a layer.
    """
    stack, values, seeds = stack_of(cell, corpus)
    stack.advance(cell.train.steps)
    tokens = torch.from_numpy(corpus.heldout_windows(cell.train.context)[:, :-1]).to(stack.device)
    out: defaultdict[str, list[float | int | str]] = defaultdict(list)
    for layer, statistics in enumerate(stack.routing(tokens)):
        load_RE = statistics.load_RE.tolist()
        sums, factors = statistics.weight_sum_R.tolist(), statistics.variance_factor_R.tolist()
        for run, (seed, value) in enumerate(zip(seeds, values, strict=True)):
            for expert, load in enumerate(load_RE[run]):
                row: dict[str, float | int | str] = {"seed": seed, "value": value, "layer": layer, "expert": expert}
                row |= {"load": load, "weight_sum": sums[run], "variance_factor": factors[run]}
                for name, item in row.items():
                    out[name].append(item)
    return out
