"""Any optimizer: the values that it applies to each parameter are measured, or reported as not judged."""

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mue_check.audit import AuditError, AuditReport, audit_model
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import measure_updates
from mue_check.mutants.setups.broken import right
from mue_check.mutants.setups.workbench import BASE, REFERENCE, TARGET, Workbench
from tests.audit import set_ups
from tests.audit.set_ups import GPT, Listed, Llama, Masters, Several, made


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
def test_every_adamw_passes(options: dict[str, bool], tensor: bool) -> None:
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


@pytest.mark.parametrize("writes", [True, False])
def test_an_optimizer_that_steps_copies(writes: bool) -> None:
    model, groups = made(GPT)
    before = copy.deepcopy(model.state_dict())
    report = set_ups.audited(model, Masters(groups, writes=writes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if writes:
        assert report.verdict == "INCONCLUSIVE", str(report)
        assert "the optimizer steps copies of them and writes these back" in report.unjudged[0]
    else:
        assert {o.check for o in report.offences} == {"group"}
        assert str(report).splitlines()[-1] == "FAIL: 16 of 16 parameters are not as prescribed: group"


def test_several_optimizers() -> None:
    model, groups = made(GPT)
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    rest = [{**g, "params": [p for p in g["params"] if all(p is not m for m in matrices)]} for g in groups]
    pair = torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW([g for g in rest if g["params"]])
    for given in (list(pair), Several(*pair)):
        report = set_ups.audited(model, given)
        assert report.verdict == "INCONCLUSIVE", str(report)
        assert "of 8 parameters" in report.unjudged[0]
        assert "not AdamW's" in report.unjudged[0]
    with pytest.raises(AuditError, match="pass the optimizers inside it as a list"):
        set_ups.audited(model, SimpleNamespace(optimizers=pair, step=pair[0].step))


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


def test_frozen_parameters_are_a_note() -> None:
    bench = Workbench.right()
    bench.model.embed_tokens.weight.requires_grad_(False)
    del bench.values["embed_tokens.weight"]
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "PASS", str(report)
    assert any("1 frozen parameter" in note for note in report.notes)


@pytest.mark.parametrize(
    ("role", "note"), [("norm_gain", "5 norm gains and biases"), ("token_embedding", "1 embeddings")]
)
def test_gains_and_embeddings_without_decay_are_a_note(role: str, note: str) -> None:
    bench = Workbench.right()
    bench.set([r for r in bench.roles.values() if r == role], weight_decay=0.0)
    report = audited(bench, torch.optim.AdamW(groups(bench)))
    assert report.verdict == "PASS", str(report)
    assert f"{note} have no weight decay: correct if the reference's had none" in report.notes


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


class Detached(Listed):
    """Experts whose output carries no gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach()


@pytest.mark.parametrize("kind", [Listed, Detached])
def test_an_expert_without_a_token_is_dead_only_if_all_are(kind: type[Listed]) -> None:
    target = "d=64,L=1,8e2a,h=24"
    model, values = made(lambda: Llama(lambda: kind(64, 24, 8, 2), layers=1), target)
    loss = lambda: model(torch.arange(2)[None]).logsumexp(-1).sum()  # noqa: E731
    loss().backward()
    missed = sum(p.grad is None for name, p in model.named_parameters() if "experts" in name)
    optimizer = torch.optim.AdamW(values)
    report = set_ups.audited(model, optimizer, target=target, loss=loss)
    if kind is Detached:
        assert {o.check for o in report.offences} == {"dead"}
        assert {o.role for o in report.offences} >= {"expert_gate", "expert_up", "expert_down"}
    else:
        assert report.verdict == "PASS", str(report)
        assert missed >= 12
        assert any(f"no token reached {missed} experts' matrices" in note for note in report.notes)
