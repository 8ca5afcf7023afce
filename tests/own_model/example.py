"""The example of a user's own model, for tests: with other functions, and what is suspected in it."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.judge.verdict import Verdict
from mue_check.own_model.report import ModelReport

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "my_model.py"
WIDTHS, EXPERTS, LAYERS = (32, 64, 128), (4, 8, 16), (2, 8)
sys.path.insert(0, str(EXAMPLE.parent))
import my_model  # noqa: E402


def suspects(report: ModelReport) -> list[str]:
    assert report.verdict is Verdict.FAIL
    return [row.name for row in report.first_suspects]


def candidate(**changed: Any) -> SimpleNamespace:
    """The example with other functions."""
    names = ("model", "optimizer", "loss", "batches")
    return SimpleNamespace(**{**{name: getattr(my_model, name) for name in names}, **changed})


def with_groups(rate: Callable[[str, Tensor, float], float]) -> SimpleNamespace:
    """The example with a learning rate for each parameter: rate(name, parameter, width over base)."""

    def optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
        ratio = model.embed_tokens.weight.shape[1] / my_model.BASE_WIDTH
        groups = [{"params": [p], "lr": lr * rate(name, p, ratio)} for name, p in model.named_parameters()]
        return torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.95))

    return candidate(optimizer=optimizer)
