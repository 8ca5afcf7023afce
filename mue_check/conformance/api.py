"""The public functions: check_router, check_block, and a decorator for users' own tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mue_check.conformance.check import Check
from mue_check.conformance.first_look import first_look
from mue_check.conformance.learned import Learned
from mue_check.conformance.registry import checks_for
from mue_check.conformance.result import CheckResult, with_expected
from mue_check.conformance.runner import AFTER_TIMEOUT, TIME_LIMIT, Options, run_checks
from mue_check.errors import ClaimError
from mue_check.routing.claim import RoutingSpec, claim_of
from mue_check.routing.factory import Candidate, CandidateKind, Factory, Shape, candidate_of, load_candidate

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

Claim = RoutingSpec | Mapping[str, Any] | None


def check_router(factory: Factory | str, **options: Any) -> list[CheckResult]:
    """Run every check of a router: ``factory(d_model, n_experts, top_k) -> nn.Module``, called with [tokens, d_model].

    ``factory`` may be "module:factory". Keywords: ``claim`` (RoutingSpec or a mapping of its fields; default: the
    factory's own, else Complete-muE's routing), ``only`` (check ids), ``expected`` (check id -> reason of an expected
    failure), ``shapes``, ``seeds``, ``device``, ``time_limit`` (seconds per check). ClaimError for an invalid claim or
    an unknown id, and for a candidate that cannot be built or called.
    """
    return check_candidate("router", factory, **options)


def check_block(factory: Factory | str, **options: Any) -> list[CheckResult]:
    """Run every check of a block: ``factory(d_model, d_expert, n_experts, top_k)``, y = block(x), x [B, T, d_model]."""
    return check_candidate("block", factory, **options)


def check_candidate(
    kind: CandidateKind,
    factory: Factory | str,
    *,
    claim: Claim = None,
    only: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    shapes: Sequence[Shape] = (),
    seeds: int = 2,
    device: str = "cpu",
    time_limit: float = TIME_LIMIT,
) -> list[CheckResult]:
    """Run every check of a candidate of that kind."""
    expected = expected or {}
    checks_for(kind, expected)  # an unknown id is an error
    options = Options(seeds=seeds, device=device, time_limit=time_limit, shapes=tuple(shapes))
    candidate, checks = _candidate(kind, factory, claim), checks_for(kind, tuple(only))
    learned = Learned()
    first_look(candidate, options, learned)
    results = run_checks(candidate, checks, options, learned)
    marked, unmatched = with_expected(results, expected)
    if unmatched:
        raise ClaimError(f"expected failures that match no check that ran: {', '.join(unmatched)}")
    return marked


def parametrize_with_checks(
    factories: Sequence[Factory | str],
    *,
    kind: CandidateKind = "router",
    claim: Claim = None,
    expected: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    seeds: int = 2,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator that passes each check to a test as ``check``: ``def test_mine(check): check()``.

    An expected failure (check id -> reason) is a strict xfail.
    """
    import pytest

    cases = [
        case
        for factory in factories
        for case in bound_checks(InProcess(_candidate(kind, factory, claim), seeds), kind, expected or {}, only)
    ]
    return pytest.mark.parametrize("check", cases)


class Runner(Protocol):
    """Runs the checks of one candidate, by their ids."""

    name: str

    def check(self, check: str) -> CheckResult:
        """The result of one check."""


class InProcess:
    """Runs the checks of a candidate in this process. Once one has timed out, the others have little time."""

    def __init__(self, candidate: Candidate, seeds: int) -> None:
        self.name, self.candidate, self.options = candidate.name, candidate, Options(seeds=seeds)

    def check(self, check: str) -> CheckResult:
        """The result of one check."""
        (result,) = run_checks(self.candidate, checks_for(self.candidate.kind, [check]), self.options)
        if result.hung:
            self.options = replace(self.options, time_limit=AFTER_TIMEOUT)
        return result


def bound_checks(
    runner: Runner, kind: CandidateKind, expected: Mapping[str, str], only: Sequence[str] = ()
) -> "list[ParameterSet]":
    """One pytest parameter per check of a candidate; ClaimError for an expected failure with an unknown id."""
    import pytest

    checks_for(kind, expected)  # an unknown id is an error
    cases = []
    for check in checks_for(kind, only):
        marks = [pytest.mark.xfail(reason=expected[check.id], strict=True)] if check.id in expected else []
        bound = BoundCheck(runner=runner, check=check)
        cases.append(pytest.param(bound, id=repr(bound), marks=marks))
    return cases


@dataclass(frozen=True, kw_only=True, repr=False)
class BoundCheck:
    """One check of one candidate. Calling it in a test fails or skips that test with the full explanation."""

    runner: Runner
    check: Check

    def __call__(self) -> CheckResult:
        """Run the check; a failing ``should`` is only a warning in the result."""
        import pytest

        try:
            result = self.runner.check(self.check.id)
        except ClaimError as error:  # the first look: no check can run
            pytest.fail(str(error), pytrace=False)
        if result.against:
            heading = "" if result.broken else "INCONCLUSIVE\n"
            pytest.fail(heading + result.explain(), pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.measured)
        return result

    def __repr__(self) -> str:
        return f"{self.runner.name}-{self.check.id}"


def _candidate(kind: CandidateKind, factory: Factory | str, claim: Claim) -> Candidate:
    spec = None if claim is None else claim_of(claim, "claim")
    if isinstance(factory, str):
        return load_candidate(kind, factory, spec)
    return candidate_of(kind, factory, claim=spec)
