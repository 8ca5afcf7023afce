"""Schedulers: torch's and a user's own. One factor on all groups is right; its course does not matter."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from tests.audit.set_ups import GPT, Plain, audited, made


def peaks(o: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in o.param_groups]


def one_cycle(o: torch.optim.Optimizer, steps: int, momentum: bool) -> object:
    return schedulers.OneCycleLR(o, peaks(o), total_steps=steps, cycle_momentum=momentum)


SCHEDULES: dict[str, tuple[Callable[[torch.optim.Optimizer], object], str, str]] = {
    "warm-up": (lambda o: schedulers.LambdaLR(o, lambda t: min(1.0, t / 10)), "PASS", "x 0.1 after 1 scheduler step"),
    "cosine": (lambda o: schedulers.CosineAnnealingLR(o, T_max=20), "PASS", "over 1000 steps"),
    "to nothing": (lambda o: schedulers.CosineAnnealingLR(o, 100), "PASS", "over 1000 steps"),
    "one cycle": (lambda o: one_cycle(o, 30, False), "PASS", "over 30 steps"),
    "one cycle with betas": (
        lambda o: one_cycle(o, 40, True),
        "INCONCLUSIVE",
        "beta1: the scheduler moves it from 0.85",
    ),
    "plateau": (lambda o: schedulers.ReduceLROnPlateau(o), "PASS", "over 1000 steps"),
    "sequential": (
        lambda o: schedulers.SequentialLR(
            o, [schedulers.LinearLR(o, 0.01, total_iters=5), schedulers.CosineAnnealingLR(o, 50)], milestones=[5]
        ),
        "PASS",
        "over 1000 steps",
    ),
    "two": (lambda o: [schedulers.LinearLR(o, 0.1), schedulers.ExponentialLR(o, 0.99)], "PASS", "over 1000 steps"),
    "cyclic": (
        lambda o: schedulers.CyclicLR(o, [lr / 9 for lr in peaks(o)], peaks(o), 20, cycle_momentum=False),
        "PASS",
        "at most x 1",
    ),
    "own warm-up": (Plain, "PASS", "x 0.1 after 1 scheduler step, at most x 1"),
    "timm's factors": (lambda o: Scaled(o), "PASS", "x 0.2 after 1 scheduler step, at most x 1"),
    "own, long": (lambda o: Plain(o, warmup=10**5), "FAIL", "the learning rates rise from x 0.501 after 501 scheduler"),
    "own, one rate": (lambda o: Plain(o, rate=1e-3), "FAIL", "lr"),
    "least rate": (
        lambda o: schedulers.CosineAnnealingLR(o, 50, eta_min=1e-4),
        "FAIL",
        "the factors of the groups diverge",
    ),
    "one group later": (
        lambda o: schedulers.LambdaLR(
            o, [lambda t: 1.0] * (len(o.param_groups) - 1) + [lambda t: 1.0 if t < 40 else 0.5]
        ),
        "FAIL",
        "diverge after 40 scheduler steps",
    ),
    "at zero": (lambda o: schedulers.LambdaLR(o, lambda t: 0.0), "INCONCLUSIVE", "keeps every learning rate at 0"),
    "backwards": (lambda o: schedulers.LambdaLR(o, lambda t: 1.0 if t < 600 else (t - 600) / 400), "FAIL", "backwards"),
    "half a cosine too many": (lambda o: schedulers.CosineAnnealingLR(o, T_max=500), "FAIL", "backwards"),
    "decay rewritten": (lambda o: Writer(o, 10, weight_decay=0.1), "FAIL", "writes another weight_decay after 10"),
    "decay lost": (lambda o: Writer(o, 300, weight_decay=0.0), "FAIL", "writes another weight_decay after 300"),
    "eps rewritten at the end": (lambda o: Writer(o, 1000, eps=1e-8), "FAIL", "writes another eps after 1000"),
    "beta2 rewritten": (
        lambda o: Writer(o, 10, betas=(0.9, 0.999)),
        "FAIL",
        "beta2 after 10 scheduler steps: from 0.95",
    ),
    "decay falls": (lambda o: Falling(o), "PASS", "scales it equally in all groups, from 0"),
    "by epoch": (lambda o: SimpleNamespace(step=lambda epoch: None), "INCONCLUSIVE", "cannot be stepped: TypeError"),
}


class Writer:
    """Writes the same values into every group, from one step on."""

    def __init__(self, optimizer: torch.optim.Optimizer, first: int, **values: object) -> None:
        self.groups, self.first, self.values, self.count = optimizer.param_groups, first, values, 0

    def step(self) -> None:
        self.count += 1
        for group in self.groups if self.count >= self.first else ():
            group.update(self.values)


class Scaled:
    """timm's: ``initial_lr`` is one rate for all groups, and each has a factor of its own."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.groups, self.count = optimizer.param_groups, 0
        for group in self.groups:
            group["initial_lr"], group["lr_scale"] = 1e-3, group["lr"] / 1e-3
        self.write()

    def write(self) -> None:
        for group in self.groups:
            group["lr"] = group["initial_lr"] * group["lr_scale"] * min(1.0, (self.count + 1) / 10)

    def step(self) -> None:
        self.count += 1
        self.write()


class Falling:
    """A weight decay that falls to 0 over the run, as nanochat has it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.groups, self.count = optimizer.param_groups, 0
        self.start = [group["weight_decay"] for group in self.groups]

    def step(self) -> None:
        self.count += 1
        for group, start in zip(self.groups, self.start, strict=True):
            group["weight_decay"] = start * (1 - self.count / 1000)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str) -> None:
    make, verdict, says = SCHEDULES[name]
    model, groups = made(GPT)
    optimizer = torch.optim.AdamW(groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own schedulers warn about each other
        scheduler = make(optimizer)
    before = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    report = audited(model, optimizer, scheduler)
    assert report.verdict == verdict, str(report)
    assert says in str(report)
    if verdict == "FAIL" and says != "lr":
        assert {o.check for o in report.offences} == {"scheduler"}
    assert [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups] == before


def test_without_the_length_of_the_run_a_long_rise_is_a_note() -> None:
    model, groups = made(GPT)
    optimizer = torch.optim.AdamW(groups)
    scheduler = schedulers.LambdaLR(optimizer, lambda t: min(1.0, t / 500))
    report = audited(model, optimizer, scheduler, reference="d=32,L=1,H=32,dh=16,B=128")
    assert any("they rise for 499 steps and never fall: state T" in note for note in report.notes), report.notes


@pytest.mark.parametrize("factor", [0.1, 0.0])
def test_a_scheduler_that_was_not_passed_is_noticed(factor: float) -> None:
    model, groups = made(GPT)
    optimizer = torch.optim.AdamW(groups)
    schedulers.LambdaLR(optimizer, lambda t: factor)
    report = audited(model, optimizer)
    if factor:
        assert report.verdict == "PASS", str(report)
        assert any("a scheduler that was not passed" in note for note in report.notes)
    else:
        assert any("every learning rate at 0" in line for line in report.unjudged)
