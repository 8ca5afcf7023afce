"""What people call: check_router, check_block, and the decorator for their own tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mue_check.conformance.expected import with_expected
from mue_check.conformance.registry import Check, checks_for
from mue_check.conformance.result import Result
from mue_check.conformance.runner import AFTER_A_HANG, TIME_LIMIT, Options, run_checks
from mue_check.errors import ClaimError
from mue_check.routing.claim import RoutingSpec, claim_of
from mue_check.routing.factory import Candidate, CandidateKind, Factory, Shape, candidate_of, load_candidate

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet


def check_router(factory: Factory | str, **how: Any) -> list[Result]:
    """Every check of a router: ``factory(d_model, n_experts, top_k) -> nn.Module``, called with x [tokens, d_model].

    ``factory`` may be "module:factory". Keywords: ``claim`` (RoutingSpec or a mapping of its fields; else the one that
    the factory carries, else Complete-muE's own), ``only`` (check ids), ``expected`` (check id -> reason of an
    expected failure), ``shapes``, ``seeds``, ``device``, ``time_limit`` (seconds per check). ClaimError for a claim
    or an id that is none.
    """
    return check_candidate("router", factory, **how)


def check_block(factory: Factory | str, **how: Any) -> list[Result]:
    """The same of a block: ``factory(d_model, d_expert, n_experts, top_k)``, y = block(x), x [batch, time, d_model]."""
    return check_candidate("block", factory, **how)


def check_candidate(
    kind: CandidateKind,
    factory: Factory | str,
    *,
    claim: RoutingSpec | Mapping[str, Any] | None = None,
    only: Sequence[str] = (),
    expected: Mapping[str, str] | None = None,
    shapes: Sequence[Shape] = (),
    seeds: int = 2,
    device: str = "cpu",
    time_limit: float = TIME_LIMIT,
) -> list[Result]:
    """Every check of a candidate of that kind."""
    candidate = _candidate(kind, factory, claim)
    options = Options(seeds=seeds, device=device, time_limit=time_limit)
    if shapes:
        options = replace(options, shapes=tuple(shapes))
    wanted = dict(expected or {})
    checks_for(kind, wanted)  # an id that is none is an error
    results = list(run_checks(candidate, checks_for(kind, tuple(only)), options))
    results, unmatched = with_expected(results, wanted)
    if unmatched:
        raise ClaimError(f"expected failures that match no check that ran: {', '.join(unmatched)}")
    return results


def parametrize_with_checks(
    factories: Sequence[Factory | str],
    *,
    kind: CandidateKind = "router",
    claim: RoutingSpec | Mapping[str, Any] | None = None,
    expected: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    seeds: int = 2,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator: the test gets each check as ``check``, and calls it: ``def test_mine(check): check()``.

    An expected failure (check id -> reason) is a strict xfail.
    """
    import pytest

    cases = [
        case
        for factory in factories
        for case in bound_checks(_candidate(kind, factory, claim), expected=expected or {}, only=only, seeds=seeds)
    ]
    return pytest.mark.parametrize("check", cases)


def bound_checks(
    candidate: Candidate, *, expected: Mapping[str, str], only: Sequence[str] = (), seeds: int = 2
) -> "list[ParameterSet]":
    """One parameter per check of a candidate; ClaimError for an expected failure of no check."""
    import pytest

    checks_for(candidate.kind, expected)  # an id that is none is an error
    cases, patience = [], Patience()
    for check in checks_for(candidate.kind, only):
        marks = [pytest.mark.xfail(reason=expected[check.id], strict=True)] if check.id in expected else []
        ask = BoundCheck(candidate=candidate, check=check, options=Options(seeds=seeds), patience=patience)
        cases.append(pytest.param(ask, id=f"{candidate.name}-{check.id}", marks=marks))
    return cases


@dataclass
class Patience:
    """Seconds that the next check of a candidate is given; little once one has hung."""

    seconds: float = TIME_LIMIT


class BoundCheck:
    """One check of one candidate, to be called in a test: fails or skips it with the whole story."""

    def __init__(self, *, candidate: Candidate, check: Check, options: Options, patience: Patience) -> None:
        self.candidate, self.check, self.options, self.patience = candidate, check, options, patience

    def __call__(self) -> Result:
        """Run it; a failing ``should`` is a warning in the result and no failure of the test."""
        import pytest

        (result,) = run_checks(self.candidate, [self.check], replace(self.options, time_limit=self.patience.seconds))
        if result.hung:
            self.patience.seconds = AFTER_A_HANG
        if result.broken and result.severity == "must":
            pytest.fail(result.explain(), pytrace=False)
        if result.outcome == "unknown" and result.severity == "must":
            pytest.fail(f"INCONCLUSIVE\n{result.explain()}", pytrace=False)
        if result.outcome == "skipped":
            pytest.skip(result.measured)
        return result

    def __repr__(self) -> str:
        return f"{self.candidate.name}-{self.check.id}"


def _candidate(kind: CandidateKind, factory: Factory | str, claim: RoutingSpec | Mapping[str, Any] | None) -> Candidate:
    said = None if claim is None else claim_of(claim, "claim")
    if isinstance(factory, str):
        return load_candidate(kind, factory, said)
    return candidate_of(kind, factory, claim=said)
