"""Every correct candidate passes, and every known bug is caught by the check that its row names."""

import pytest
import torch
from torch import Tensor, nn

from mue_check.conformance.api import check_block, check_router
from mue_check.conformance.registry import CHECKS
from mue_check.conformance.result import verdict_of
from mue_check.conformance.runner import Options
from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import Mutant
from mue_check.mutants.routing import MUTANTS
from mue_check.mutants.routing.examine import RIGHT, candidate, results_of
from mue_check.mutants.routing.gates import CompleteMueRouter
from mue_check.routing.factory import Candidate

WARNINGS = {"router-gradient-top1", "gate-bf16", "capture", "fit-gate"}
"""Warnings that correct candidates get: they do not train at a = 1, select in the model's dtype, or sync the device."""
FIT = {
    "complete_mue": (Verdict.PASS, "R = a"),
    "mixtral": (Verdict.PASS, "R = a"),
    "deepseek_v3": (Verdict.PASS, "R = a / 2.5"),
    "olmoe": (Verdict.FAIL, "no constant"),
    "pangu": (Verdict.FAIL, "no constant"),
    "llama4": (Verdict.FAIL, "no constant"),
    "switch": (Verdict.FAIL, "no constant"),
    "expert_choice": (Verdict.FAIL, "no constant"),
    "deepspeed": (Verdict.FAIL, "no constant"),
}


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_right_candidates_match_their_claim_and_fitness_is_a_separate_verdict(right: Candidate) -> None:
    results = results_of(right, Options(seeds=2))
    wrong = [r for r in results if r.question == "claim" and (r.broken or r.outcome == "unknown")]
    assert {r.check for r in wrong} <= WARNINGS, "\n".join(r.explain() for r in wrong)
    assert verdict_of(results, "claim") == Verdict.PASS
    assert sum(r.outcome == "passed" for r in results) >= 15, "most checks must apply"
    if right.name in FIT:
        fit, factor = FIT[right.name]
        assert verdict_of(results, "fit") == fit
        assert factor in next(r.measured for r in results if r.check == "fit-scale")


@pytest.mark.parametrize("bug", MUTANTS, ids=lambda bug: f"{bug.row}-{bug.name}")
def test_each_mistake_is_caught_by_the_check_that_its_row_names(bug: Mutant) -> None:
    results = {r.check: r for r in results_of(candidate(bug), Options(seeds=1))}
    caught = results[bug.caught_by]
    assert caught.outcome == "failed", caught.explain()
    assert any(f"row {bug.row})" in cause for cause in caught.cause), caught.explain()
    assert verdict_of(results.values(), "claim") == Verdict.FAIL


def test_rows_are_complete() -> None:
    in_the_optimizer = {23, 24}
    assert {bug.row for bug in MUTANTS} == set(range(1, 36)) - in_the_optimizer


def test_an_undeclared_scale_is_reported_and_declaring_it_makes_the_router_fit() -> None:
    class Scaled(CompleteMueRouter):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            weights, indices = super().forward(x)
            return 3 * weights, indices

    plain = check_router(Scaled)
    assert verdict_of(plain, "claim") == verdict_of(plain, "fit") == Verdict.FAIL
    assert "a constant 3, claimed 1" in next(r.measured for r in plain if r.check == "weight-sum")
    assert "claim weight_sum = 3, then R = a / 3" in next(r.measured for r in plain if r.check == "fit-scale")
    declared = check_router(Scaled, claim={"weight_sum": 3.0, "gate": "sigmoid"})
    assert verdict_of(declared, "claim") == verdict_of(declared, "fit") == Verdict.PASS


def test_a_router_that_applies_complete_mues_scale_itself_fits_with_a_factor_of_one() -> None:
    class Scaled(CompleteMueRouter):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            weights, indices = super().forward(x)
            return self.top_k * weights, indices

    plain = check_router(Scaled, only=["fit-scale"], seeds=1)
    assert 'the sum is a everywhere, not declared: claim activated_scale = "router", then R = 1' in plain[0].measured
    claim = {"activated_scale": "router", "gate": "sigmoid"}
    declared = check_router(Scaled, claim=claim, seeds=1)
    assert verdict_of(declared, "claim") == verdict_of(declared, "fit") == Verdict.PASS
    assert "fits with R = 1" in next(r.measured for r in declared if r.check == "fit-scale")
    unscaled = check_router(CompleteMueRouter, claim=claim, seeds=1)
    assert verdict_of(unscaled, "claim") == verdict_of(unscaled, "fit") == Verdict.FAIL


class WorstExperts(nn.Module):
    """Takes the lowest logits."""

    def __init__(self, d_model: int, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.gate = nn.Linear(d_model, n_experts, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, indices = self.gate(x).sigmoid().topk(self.top_k, dim=-1, largest=False)
        return scores / scores.sum(-1, keepdim=True), indices


class Stale(WorstExperts):
    """Keeps the first batch's choice."""

    seen: Tensor | None = None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        if self.seen is None or len(self.seen) != len(x):
            self.seen = logits.topk(self.top_k, dim=-1).indices
        return logits.gather(-1, self.seen).softmax(-1), self.seen


class BatchNormed(WorstExperts):
    """Normalizes its logits over the batch."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        scores, indices = (logits - logits.mean(0)).sigmoid().topk(self.top_k, dim=-1)
        return scores / scores.sum(-1, keepdim=True), indices


class Repeats(WorstExperts):
    """Gives a token its best expert a times."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        indices = logits.argmax(-1, keepdim=True).expand(-1, self.top_k)
        return logits.gather(-1, indices).softmax(-1), indices


class Noisy(WorstExperts):
    """Adds noise in evaluation too."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x)
        values, indices = (logits + 0.1 * torch.randn_like(logits)).topk(self.top_k, dim=-1)
        return values.softmax(-1), indices


class FavoursByName(WorstExperts):
    """Adds a constant that depends on the expert's number."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.gate(x) + 0.2 * torch.arange(self.gate.out_features)
        values, indices = logits.topk(self.top_k, dim=-1)
        return values.softmax(-1), indices


class OverflowsExp(WorstExperts):
    """A softmax by hand."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = self.gate(x).topk(self.top_k, dim=-1)
        exponentials = (10 * values).exp()
        return exponentials / exponentials.sum(-1, keepdim=True), indices


class HalvesTheGradient(WorstExperts):
    """Right in value."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = self.gate(x).topk(self.top_k, dim=-1)
        weights = values.softmax(-1)
        return 0.5 * weights + 0.5 * weights.detach(), indices


@pytest.mark.parametrize(
    ("factory", "check"),
    [
        (WorstExperts, "selection"),
        (Stale, "token-permutation"),
        (BatchNormed, "token-independence"),
        (BatchNormed, "causality"),
        (BatchNormed, "padding"),
        (Repeats, "load"),
        (Noisy, "deterministic"),
        (FavoursByName, "expert-permutation"),
        (OverflowsExp, "extreme-logits"),
        (HalvesTheGradient, "router-gradient-exact"),
    ],
)
def test_other_bugs(factory: type[nn.Module], check: str) -> None:
    (result,) = check_router(factory, only=[check])
    assert result.outcome == "failed", result.explain()


def test_every_check_has_an_id_a_law_and_a_source() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert check.law
        assert check.source
        assert check.since
        assert check.candidates


def test_blocks_are_checked_as_a_whole_and_through_their_router() -> None:
    right = next(r for r in RIGHT if r.name == "mixtral_block")
    results = {r.check: r for r in check_block(right.factory, claim=right.claim, only=["runs", "weight-sum"])}
    assert "routed by gate" in results["runs"].measured
    assert results["weight-sum"].outcome == "passed"
