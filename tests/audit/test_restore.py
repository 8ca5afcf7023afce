"""The audit leaves everything as it was: every bit, every object."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch

from mue_check.audit import audit_model
from mue_check.audit.restore import preserved
from mue_check.audit.setup import SetUp
from mue_check.mutants.setups.broken import MUTANTS, right
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or callable(a)


@pytest.mark.parametrize("name", ["right", "in_two_groups", "experts_missed"])
def test_everything_is_restored(name: str) -> None:
    make = right if name == "right" else next(m for m in MUTANTS if m.name == name)
    model, optimizer, scheduler, loss = make()
    assert isinstance(optimizer, torch.optim.AdamW)
    model.register_buffer("count", torch.zeros(2))
    model.layers[0].eval()
    for _ in range(2):
        loss().backward()
        optimizer.step()
        scheduler.step()  # type: ignore[attr-defined]
    model.embed_tokens.weight.grad = None

    def state() -> dict[str, Any]:
        return {
            "model": model.state_dict(),
            "grads": [None if p.grad is None else (id(p.grad), p.grad) for p in model.parameters()],
            "where": [(id(p), p.data_ptr()) for p in model.parameters()],
            "modes": [m.training for m in model.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
            "optimizer": optimizer.state_dict(),
            "moments": [(id(p), id(s["exp_avg"])) for p, s in optimizer.state.items()],
            "groups": [(id(g), [id(p) for p in g["params"]]) for g in optimizer.param_groups],
            "scheduler": scheduler.state_dict(),  # type: ignore[attr-defined]
            "attributes": sorted(vars(optimizer)),
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
            "python": random.getstate(),
        }

    before = copy.deepcopy(state())
    audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
    after = state()
    for key in before:
        assert equal(before[key], after[key]), key


def test_a_tensor_learning_rate_stays_the_same_object() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    rate = torch.tensor(0.5)
    optimizer = torch.optim.AdamW([p], lr=rate)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with preserved(SetUp.of(torch.nn.ParameterList([p]), optimizer, scheduler)):
        p.grad = torch.ones(3)
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 0.5
    assert torch.equal(p, torch.ones(3))
    assert p.grad is None
    assert scheduler.last_epoch == 0


def test_everything_is_restored_after_an_error() -> None:
    model, optimizer, scheduler, _ = right()
    before = copy.deepcopy(model.state_dict())

    def loss() -> torch.Tensor:
        with torch.no_grad():
            model.embed_tokens.weight.zero_()
        raise ValueError("no data")

    report = audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
    (why,) = report.unjudged
    assert why.startswith("dead parameters: a training step raised ValueError: no data (test_restore.py:")
    assert equal(before, model.state_dict())
