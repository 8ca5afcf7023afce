"""Any torch optimizer and scheduler: what acts on a parameter is measured, or said not to be judged."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as schedulers

from mue_check.audit import AuditReport, audit_model
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import measure_updates
from mue_check.mutants.setups.broken import right
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET, Workbench


def audited(bench: Workbench, optimizer: object, scheduler: object = None) -> AuditReport:
    return audit_model(
        bench.model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=bench.loss
    )


def groups(bench: Workbench) -> list[dict[str, Any]]:
    return list(bench.values.values())


@pytest.mark.parametrize(
    ("options", "tensor"),
    [
        ({"foreach": True}, False),
        ({"foreach": False}, False),
        ({"foreach": False}, True),
        ({"fused": True}, False),
        ({"fused": True}, True),
    ],
)
def test_every_adamw_is_read_alike(options: dict[str, bool], tensor: bool) -> None:
    bench = Workbench.right()
    if tensor:
        for group in groups(bench):
            group["lr"] = torch.tensor(group["lr"])
    report = audited(bench, torch.optim.AdamW(groups(bench), **options))
    assert report.verdict == "PASS", str(report)


def test_one_measured_update_is_the_groups() -> None:
    p = nn.Parameter(torch.ones(5, 3))
    optimizer = torch.optim.AdamW([p], lr=3e-4, weight_decay=1e-3, eps=1e-7, betas=(0.8, 0.99))
    found = measure_updates(SetUp.of(nn.ParameterList([p]), optimizer))[id(p)]
    assert found.why == ""
    assert (found.lr, found.weight_decay, found.eps) == pytest.approx((3e-4, 1e-3, 1e-7), rel=1e-5)
    assert (found.beta1, found.beta2) == (0.8, 0.99)


@pytest.mark.parametrize("eps", [0.0, 1e-15, 1e-8, 1e-3, 0.1])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 5.0])
def test_eps_and_decay_of_any_size(eps: float, weight_decay: float) -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([p], lr=1e-2, weight_decay=weight_decay, eps=eps)
    found = measure_updates(SetUp.of(nn.ParameterList([p]), optimizer))[id(p)]
    assert found.why == ""
    assert found.lr == pytest.approx(1e-2, rel=1e-6)
    assert found.weight_decay == pytest.approx(weight_decay, rel=1e-6, abs=1e-6)
    assert found.eps == pytest.approx(eps, rel=1e-4, abs=1e-17)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9),
        lambda p: torch.optim.RMSprop(p, lr=1e-2),
        lambda p: torch.optim.NAdam(p, lr=1e-2),
        lambda p: torch.optim.Adamax(p, lr=1e-2),
        lambda p: torch.optim.Adagrad(p, lr=1e-2),
        lambda p: torch.optim.LBFGS(p, lr=1e-2),
    ],
)
def test_other_optimizers_are_not_judged(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    bench = Workbench.right()
    report = audited(bench, make([p for g in groups(bench) for p in g["params"]]))
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "27 parameters" in report.unjudged[0]
    # what can be judged is
    bench.redraw(next(r for r in bench.roles.values() if r == "router"), 3.0)
    report = audited(bench, make([p for g in groups(bench) for p in g["params"]]))
    assert report.verdict == "FAIL"
    assert {(o.check, o.role) for o in report.offences} == {("init_std", "router")}


def test_muon_beside_adamw() -> None:
    bench = Workbench.right()
    names = [n for n, p in bench.model.named_parameters() if p.ndim == 2 and "proj" in n]
    muon = torch.optim.Muon([bench.model.get_parameter(n) for n in names], lr=1e-2)
    adamw = torch.optim.AdamW([g for n, g in bench.values.items() if n not in names])
    report = audited(bench, [muon, adamw])
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert f"of {len(names)} parameters" in report.unjudged[0]
    assert "not AdamW's" in report.unjudged[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda o: schedulers.LambdaLR(o, lambda t: min(1.0, t / 10)), "x 0.1 after 1 scheduler step"),
        (lambda o: schedulers.CosineAnnealingLR(o, T_max=20), "over 2000 steps"),
        (
            lambda o: schedulers.OneCycleLR(
                o, max_lr=[g["lr"] for g in o.param_groups], total_steps=30, cycle_momentum=False
            ),
            "over 30 steps",
        ),
        (lambda o: schedulers.ReduceLROnPlateau(o), "over 2000 steps"),
        (
            lambda o: schedulers.SequentialLR(
                o, [schedulers.LinearLR(o, 0.01, total_iters=5), schedulers.CosineAnnealingLR(o, 50)], milestones=[5]
            ),
            "over 2000 steps",
        ),
        (lambda o: [schedulers.LinearLR(o, 0.1), schedulers.ExponentialLR(o, 0.99)], "over 2000 steps"),
    ],
)
def test_schedulers_that_move_all_alike(make: Callable[[torch.optim.Optimizer], object], says: str) -> None:
    bench = Workbench.right()
    optimizer = torch.optim.AdamW(groups(bench))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own schedulers warn of each other's ways
        scheduler = make(optimizer)
    report = audited(bench, optimizer, scheduler)
    assert report.verdict == "PASS", str(report)
    assert any(says in note for note in report.notes), report.notes


def test_a_scheduler_that_moves_one_group_later() -> None:
    bench = Workbench.right()
    optimizer = torch.optim.AdamW(groups(bench))
    factors = [lambda t: 1.0] * (len(bench.values) - 1) + [lambda t: 1.0 if t < 40 else 0.5]
    report = audited(bench, optimizer, schedulers.LambdaLR(optimizer, factors))
    assert [o.check for o in report.offences] == ["scheduler"]
    assert "after 40 scheduler steps" in report.offences[0].says


@pytest.mark.parametrize("factor", [0.1, 0.0])
def test_a_scheduler_that_was_not_given_is_noticed(factor: float) -> None:
    bench = Workbench.right()
    optimizer = torch.optim.AdamW(groups(bench))
    schedulers.LambdaLR(optimizer, lambda t: factor)
    report = audited(bench, optimizer)
    if factor:
        assert report.verdict == "PASS", str(report)
        assert any("a scheduler that was not given" in note for note in report.notes)
    else:
        assert any("every learning rate at 0" in line for line in report.unjudged)


def test_a_schedule_that_stays_at_zero_is_not_judged() -> None:
    bench = Workbench.right()
    optimizer = torch.optim.AdamW(groups(bench))
    report = audited(bench, optimizer, schedulers.LambdaLR(optimizer, lambda t: 0.0))
    assert any("keeps every learning rate at 0" in line for line in report.unjudged)


def test_a_learning_rate_of_zero_is_one() -> None:
    bench = Workbench.right()
    for group in groups(bench):
        group["lr"] = 0.0
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "FAIL"
    wrong = [o for o in report.offences if o.check == "lr"]
    assert len(wrong) == 27
    assert all(o.measured == 0 for o in wrong)


def test_a_step_that_moves_nothing_is_not_judged() -> None:
    class Idle(torch.optim.AdamW):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            return None

    bench = Workbench.right()
    report = audited(bench, Idle(groups(bench)))
    assert "does not move it" in report.unjudged[0]
    # and training shows it
    assert {o.check for o in report.offences} == {"dead"}


def test_frozen_parameters_are_told_and_no_offence() -> None:
    bench = Workbench.right()
    bench.model.embed_tokens.weight.requires_grad_(False)
    del bench.values["embed_tokens.weight"]
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "PASS", str(report)
    assert any("1 frozen parameter" in note for note in report.notes)


def test_gains_without_decay_are_told_and_no_offence() -> None:
    bench = Workbench.right()
    bench.set([r for r in bench.roles.values() if r == "norm_gain"], weight_decay=0.0)
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "PASS", str(report)
    assert any("not decayed" in note for note in report.notes)


def test_experts_that_no_token_reached_are_a_note() -> None:
    bench = Workbench.right()
    bench.tokens = bench.tokens[:1, :2]
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "PASS", str(report)
    assert any("no token reached" in note for note in report.notes)


def test_a_loss_that_fails_or_is_not_finite_is_not_judged() -> None:
    model, optimizer, scheduler, _ = right()
    for loss, says in (
        (lambda: torch.tensor(math.nan, requires_grad=True), "the loss is nan"),
        (lambda: model(torch.tensor([[10**6]])).sum(), "a training step raised IndexError"),
    ):
        report = audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
        assert report.verdict == "INCONCLUSIVE"
        assert says in report.unjudged[0]
