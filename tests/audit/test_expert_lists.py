"""Experts kept as a list of modules, as older code has them, and a router of plain Linear beside them."""

import pytest
import torch
from torch import Tensor, nn

from mue_check import Prescription, get_rule, parse_scenario
from mue_check.audit import AuditReport, audit_model, init_parameters, param_groups
from mue_check.mutants.routing.experts import SwiGLU
from mue_check.mutants.setups.workbench import BASE, REFERENCE

TARGET = "d=64,L=1,4e1a,h=24"


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 4, bias=False)
        self.experts = nn.ModuleList(SwiGLU(64, 24) for _ in range(4))
        self.dead = False

    def forward(self, x: Tensor) -> Tensor:
        scores = self.gate(x).sigmoid()
        chosen = scores.argmax(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = chosen == i
            if bool(rows.any()):
                made = expert(x[rows]) * scores[rows, i : i + 1]
                out[rows] = made.detach() if self.dead else made
        return out


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(16, 64)
        self.norm, self.block_sparse_moe = nn.RMSNorm(64), Mixture()
        self.final_norm = nn.RMSNorm(64)
        self.lm_head = nn.Linear(64, 16, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens).flatten(0, 1)
        x = x + self.block_sparse_moe(self.norm(x))
        return self.lm_head(self.final_norm(x)).view(*tokens.shape, 16)


def prescription() -> Prescription:
    source = parse_scenario(REFERENCE)
    return get_rule("complete_mue").prescribe(source, parse_scenario(TARGET, default=source))


def audited(model: Model, tokens: Tensor, declared: dict[str, float] | None = None) -> AuditReport:
    torch.manual_seed(0)
    init_parameters(model, prescription(), BASE, multipliers=declared)
    optimizer = torch.optim.AdamW(param_groups(model, prescription(), BASE, multipliers=declared))
    loss = lambda: nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten().roll(1))  # noqa: E731
    return audit_model(model, optimizer, reference=REFERENCE, target=TARGET, base=BASE, loss=loss, multipliers=declared)


def test_what_could_not_be_seen_must_be_declared() -> None:
    # the weights have no constant sum here, so that no one number multiplies the experts
    report = audited(Model(), torch.arange(16).view(2, 8))
    assert report.verdict == "INCONCLUSIVE", str(report)
    assert "could be seen on expert_down, and none is assumed" in report.unjudged[0]
    report = audited(Model(), torch.arange(16).view(2, 8), {"expert_down": 1.0})
    assert report.verdict == "PASS", str(report)
    assert {r.role for r in report.rows if "experts" in r.parameter} == {"expert_gate", "expert_up", "expert_down"}
    assert next(r for r in report.rows if r.parameter.endswith("experts.2.w2.weight")).fan_in == 24


@pytest.mark.parametrize("dead", [False, True])
def test_an_expert_without_a_token_is_not_dead_unless_all_are(dead: bool) -> None:
    model = Model()
    model.block_sparse_moe.dead = dead
    report = audited(model, torch.zeros(1, 2, dtype=torch.long), {"expert_down": 1.0})
    if dead:
        assert {o.check for o in report.offences} == {"dead"}
        assert {o.role for o in report.offences} >= {"expert_gate", "expert_up", "expert_down"}
    else:
        assert report.verdict == "PASS", str(report)
        assert any("no token reached 9 experts' matrices" in note for note in report.notes)
