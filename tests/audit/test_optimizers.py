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
from mue_check.mutants.routing.experts import SwiGLU
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


@pytest.mark.parametrize("eps", [0.0, 1e-15, 1e-8, 1e-3, 0.1])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 5.0])
def test_eps_and_decay_of_any_size(eps: float, weight_decay: float) -> None:
    p = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW([p], lr=1e-2, weight_decay=weight_decay, eps=eps, betas=(0.8, 0.99))
    found = measure_updates(SetUp.of(nn.ParameterList([p]), optimizer))[id(p)]
    assert found.why == ""
    assert found.lr == pytest.approx(1e-2, rel=1e-6)
    assert found.weight_decay == pytest.approx(weight_decay, rel=1e-6, abs=1e-6)
    assert found.eps == pytest.approx(eps, rel=1e-4, abs=1e-17)
    assert (found.beta1, found.beta2) == (0.8, 0.99)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("writes", [True, False])
def test_an_optimizer_that_steps_copies(writes: bool, dtype: torch.dtype) -> None:
    model, groups = made(lambda: GPT().to(dtype))
    before = copy.deepcopy(model.state_dict())
    report = set_ups.audited(model, Masters(groups, writes=writes))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if writes:
        assert report.verdict == "PASS", str(report)
        groups[1]["lr"] *= 2
        report = set_ups.audited(model, Masters(groups))
        assert {o.check for o in report.offences} == {"lr"}
    else:
        assert {o.check for o in report.offences} == {"group"}
        assert str(report).splitlines()[-1] == "FAIL: 16 of 16 parameters are not as prescribed: group"


def test_updates_lost_to_rounding() -> None:
    model, groups = made(lambda: GPT().bfloat16())
    report = set_ups.audited(model, torch.optim.AdamW(groups))
    # an update of 2e-4 vanishes next to a gain of 1, and not next to weights of 0.02
    assert {(o.check, o.role) for o in report.offences} == {("rounding", "norm_gain")}
    assert "the spacing of bfloat16 is more than twice a typical update of 0.0002" in str(report)


class Clipping(torch.optim.AdamW):
    """Clips the gradients of each group, of all, or of each parameter."""

    by = "group"

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        groups = [group["params"] for group in self.param_groups]
        every = [p for group in groups for p in group]
        for part in {"group": groups, "all": [every], "parameter": [[p] for p in every]}[self.by]:
            torch.nn.utils.clip_grad_norm_(part, 0.5)
        super().step(closure)


@pytest.mark.parametrize(("by", "verdict"), [("group", "FAIL"), ("all", "PASS"), ("parameter", "INCONCLUSIVE")])
def test_gradients_clipped_in_the_step(by: str, verdict: str) -> None:
    model, groups = made(GPT)
    optimizer = Clipping(groups)
    optimizer.by = by
    report = set_ups.audited(model, optimizer)
    assert report.verdict == verdict, str(report)
    assert {o.check for o in report.offences} == ({"clipping"} if by == "group" else set())


class Late(torch.optim.AdamW):
    """Its step does something else from the tenth on: rewrites its groups, or uses what no group states."""

    writes, count = True, 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.count += 1
        stated = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups if self.count >= 10 else ():
            group["weight_decay"] = 0.1
        super().step(closure)
        for group, value in zip(self.param_groups, stated, strict=True):
            group["weight_decay"] = group["weight_decay"] if self.writes else value


@pytest.mark.parametrize("writes", [True, False])
def test_a_step_that_changes_later(writes: bool) -> None:
    model, groups = made(GPT)
    optimizer = Late(groups)
    optimizer.writes = writes
    report = set_ups.audited(model, optimizer)
    assert {o.check for o in report.offences} == {"scheduler" if writes else "weight_decay"}
    assert ("the optimizer's step writes another weight_decay" in str(report)) == writes


@pytest.mark.parametrize("adjust", [None, "match_rms_adamw"])
@pytest.mark.parametrize("twice", [False, True])
def test_muon_beside_adamw(adjust: str | None, twice: bool) -> None:
    model, groups = made(Llama1, "d=64,L=1,H=64")
    matrices = [p for n, p in model.named_parameters() if "attn." in n]
    rest = [{**g, "params": [p for p in g["params"] if all(p is not m for m in matrices)]} for g in groups]
    lr = BASE.lr / 2 if twice else 0.02
    muon = torch.optim.Muon(matrices, lr=lr, weight_decay=0.1, adjust_lr_fn=adjust)
    adamw = torch.optim.AdamW([g for g in rest if g["params"]])
    for given in ([muon, adamw], Several(muon, adamw)):
        report = set_ups.audited(model, given, target="d=64,L=1,H=64")
        if twice:
            wanted = BASE.lr / (2**0.5 if adjust else 1)
            assert {o.check for o in report.offences} == {"lr"}
            assert [o.prescribed for o in report.offences] == [pytest.approx(wanted)] * len(matrices)
            assert any("this is AdamW's LR" in o.says for o in report.offences)
        else:
            assert report.verdict == "PASS", str(report)
            base = 0.02 * (2**0.5 if adjust else 1)
            assert f"correct if the reference's Muon had LR {base:.4g}" in str(report)
    # what AdamW steps is still judged
    adamw.param_groups[0]["lr"] *= 2
    assert "lr" in {o.check for o in set_ups.audited(model, [muon, adamw], target="d=64,L=1,H=64").offences}


def Llama1() -> nn.Module:
    return Llama(lambda: SwiGLU(64, 64), layers=1)


def test_muon_with_what_it_is_not_made_for() -> None:
    model, groups = made(GPT)
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.ndim == 2]
    rest = [{**g, "params": [p for p in g["params"] if all(p is not m for m in matrices)]} for g in groups]
    pair = torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW([g for g in rest if g["params"]])
    # two blocks: the rule folds 1/m_L into some of the matrices, and Muon's LR is one for all
    report = set_ups.audited(model, list(pair))
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "LR of 8 matrices that Muon steps" in report.unjudged[0]
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


def test_a_loss_that_trains_nothing_fails_and_one_that_raises_is_not_judged() -> None:
    model, optimizer, scheduler, _ = right()
    for loss, says, verdict in (
        (lambda: torch.tensor(math.nan, requires_grad=True), "the loss is nan", "FAIL"),
        (lambda: torch.tensor(1.0), "carries no gradient", "FAIL"),
        (lambda: (torch.tensor(1.0), 2), "the loss is a tuple", "FAIL"),
        (lambda: model(torch.tensor([[10**6]])).sum(), "a training step raised IndexError", "INCONCLUSIVE"),
    ):
        report = audit_model(model, optimizer, scheduler, reference=REFERENCE, target=TARGET, base=BASE, loss=loss)
        assert report.verdict == verdict
        assert says in str([*report.offences, *report.unjudged][0])


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
