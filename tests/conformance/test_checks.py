"""Every correct candidate passes, and every known bug is caught by the check that its row names."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from mue_check.conformance.api import check_block, check_router
from mue_check.conformance.registry import CHECKS, checks_for
from mue_check.conformance.result import CheckResult, verdict_of
from mue_check.conformance.runner import Options, run_checks
from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import Mutant
from mue_check.mutants.routing import MUTANTS
from mue_check.mutants.routing.examine import RIGHT, candidate, results_of
from mue_check.mutants.routing.gates import CompleteMueRouter
from mue_check.routing.factory import Candidate
from tests.conformance import held_out as routers
from tests.specimens import Gated, variant

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
    results = results_of(right, Options(seeds=1))
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
    made = candidate(bug)
    (caught,) = run_checks(made, checks_for(made.kind, [bug.caught_by]), Options(seeds=1))
    assert caught.outcome == "failed", caught.explain()
    assert any(f"row {bug.row})" in cause for cause in caught.cause), caught.explain()
    assert verdict_of([caught], "claim") == Verdict.FAIL


def scaled(name: str, factor: Callable[[CompleteMueRouter], float]) -> type[nn.Module]:
    def forward(m: CompleteMueRouter, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, indices = CompleteMueRouter.forward(m, x)
        return factor(m) * weights, indices

    return variant(CompleteMueRouter, name, forward=forward)


@pytest.mark.parametrize(
    ("router", "claim", "measured", "advice", "fits"),
    [
        (
            scaled("Times3", lambda m: 3),
            {"weight_sum": 3.0},
            "a constant 3, claimed 1",
            "claim weight_sum = 3, then R = a / 3",
            "fits with R = a / 3",
        ),
        (
            scaled("TimesA", lambda m: m.top_k),
            {"activated_scale": "router"},
            "claimed 1",
            'the sum is a everywhere, not declared: claim activated_scale = "router", then R = 1',
            "fits with R = 1",
        ),
    ],
)
def test_an_undeclared_scale_is_reported_and_declaring_it_makes_the_router_fit(
    router: type[nn.Module], claim: dict[str, object], measured: str, advice: str, fits: str
) -> None:
    few = ["runs", "weight-sum", "gate", "fit-scale", "fit-choice"]

    def results(claim: dict[str, object] | None, router: type[nn.Module] = router) -> dict[str, CheckResult]:
        return {r.check: r for r in check_router(router, claim=claim, only=few, seeds=1)}

    plain = results(None)
    assert verdict_of(plain.values(), "claim") == verdict_of(plain.values(), "fit") == Verdict.FAIL
    assert measured in plain["weight-sum"].measured
    assert advice in plain["fit-scale"].measured
    declared = results({**claim, "gate": "sigmoid"})
    assert verdict_of(declared.values(), "claim") == verdict_of(declared.values(), "fit") == Verdict.PASS
    assert fits in declared["fit-scale"].measured
    wrongly = results({**claim, "gate": "sigmoid"}, CompleteMueRouter)
    assert verdict_of(wrongly.values(), "claim") == verdict_of(wrongly.values(), "fit") == Verdict.FAIL


@pytest.mark.parametrize("router", routers.RIGHT, ids=lambda r: r.__name__)
def test_a_right_router_passes(router: type[nn.Module]) -> None:
    results = check_router(router, claim=routers.RIGHT[router], seeds=1)
    against = [r.explain() for r in results if r.question == "claim" and r.against]
    assert verdict_of(results, "claim") == "PASS", against


@pytest.mark.parametrize("router", routers.BROKEN, ids=lambda r: r.__name__)
def test_a_broken_router_fails_where_it_is_broken(router: type[nn.Module]) -> None:
    claim, checks = routers.BROKEN[router]
    results = check_router(router, claim=claim, only=checks.split(), seeds=1)
    assert {r.outcome for r in results} == {"failed"}, [r.explain() for r in results]


def test_groups_that_are_not_claimed_are_named() -> None:
    def of_half_the_experts(m: nn.Module, x: Tensor) -> Tensor:
        halves = Gated.scores(m, x).unflatten(-1, (2, -1))
        better = halves.sum(-1, keepdim=True) == halves.sum(-1, keepdim=True).amax(-2, keepdim=True)
        return (halves * better).flatten(-2)

    grouped = variant(Gated, "Grouped", scores=of_half_the_experts)
    (result,) = check_router(grouped, only=["selection"], seeds=1)
    assert result.outcome == "unknown"
    assert "claim groups = 2, group_limit = 1" in result.explain()


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
