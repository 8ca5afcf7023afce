"""The same checks on a GPU: right candidates pass there, and each check catches a mistake there too."""

import pytest
import torch

from mue_check.conformance.result import verdict_of
from mue_check.conformance.runner import Options
from mue_check.judge.verdict import Verdict
from mue_check.mutants.mutant import Mutant
from mue_check.mutants.routing import MUTANTS
from mue_check.mutants.routing.examine import RIGHT, candidate, results_of
from mue_check.routing.factory import Candidate

OF_EACH_CHECK = {bug.caught_by: bug for bug in reversed(MUTANTS)}
"""The first mistake that each check catches, to keep the run short: the tests on a CPU have all of them."""

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_right_candidates_pass_on_the_device(right: Candidate) -> None:
    results = results_of(right, Options(seeds=1, device="cuda"))
    wrong = [r.explain() for r in results if r.question == "claim" and r.broken and r.severity == "must"]
    assert verdict_of(results, "claim") == Verdict.PASS, "\n".join(wrong)


@pytest.mark.parametrize("bug", OF_EACH_CHECK.values(), ids=lambda bug: f"{bug.row}-{bug.name}")
def test_each_check_catches_a_mistake_on_the_device(bug: Mutant) -> None:
    results = {r.check: r for r in results_of(candidate(bug), Options(seeds=1, device="cuda"))}
    assert results[bug.caught_by].outcome == "failed", results[bug.caught_by].explain()
