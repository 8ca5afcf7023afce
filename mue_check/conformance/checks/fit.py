"""Fit for Complete-muE: what the transfer rule assumes of a router or block, and the factor R that makes it hold."""

from collections.abc import Mapping

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, unknown
from mue_check.conformance.expected_routing import infer_gate
from mue_check.conformance.reading import effective_routing, route
from mue_check.conformance.router_probe import stir_vectors

_SIZES = ((8, 4), (32, 4), (128, 4), (32, 1), (32, 2), (32, 8))
"""(E, a)."""
_TOLERANCE = 5e-3
_TOKENS = 64
_Sums = Mapping[tuple[int, int], tuple[float, float]]
"""(E, a) -> the smallest and the largest sum of a token's weights."""


def fit_scale(case: ConformanceCase) -> CheckOutcome:
    """The sum of active weights is declared: a constant c for every token, E and a, or c a; R = a / c, or 1 / c."""
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    moved: list[str] = []
    for experts, activated in _SIZES:
        at = case.at(experts=experts, activated=activated)
        built = at.build()
        moved = stir_vectors(built)  # a scale that is 1 at init only is no constant
        total = effective_routing(built, at.tokens(4, count=_TOKENS)).sums.detach()
        sums[at.shape.experts, at.shape.activated] = float(total.min()), float(total.max())
    for_each = {(e, a): (low / a, high / a) for (e, a), (low, high) in sums.items()}
    by_router = not _is_constant(sums) and _is_constant(for_each)
    if not by_router and not _is_constant(sums):
        return _no_constant(case, sums, moved)
    low, high = _range(for_each if by_router else sums)
    constant, claim = (low + high) / 2, case.candidate.claim
    factor = _times("1" if by_router or claim.activated_scale == "block" else "a", 1 / (constant * claim.route_scale))
    shown = _times("a", constant) if by_router else f"{constant:.4g}"
    expected = claim.expected_sum()
    declared = expected is not None and abs(constant - expected) <= _TOLERANCE * expected
    missing = [] if declared else [f"weight_sum = {constant:.4g}"]
    if by_router != (claim.activated_scale == "router"):
        missing.append(f'activated_scale = "{"router" if by_router else "none"}"')
    if missing:
        outcome = failed if case.candidate.claims else unknown
        return outcome(f"the sum is {shown} everywhere, not declared: claim {', '.join(missing)}, then R = {factor}")
    return passed(f"the sum is {shown} for every E and a: fits with R = {factor}")


def _range(sums: _Sums) -> tuple[float, float]:
    return min(low for low, _ in sums.values()), max(high for _, high in sums.values())


def _is_constant(sums: _Sums) -> bool:
    low, high = _range(sums)
    return low > 0 and high - low <= _TOLERANCE * high


def _times(what: str, factor: float) -> str:
    """The text of a product: "a", "2.5 a", "a / 2.5"."""
    if abs(factor - 1) <= _TOLERANCE:
        return what
    if factor < 1:
        return f"{what} / {1 / factor:.4g}"
    return f"{factor:.4g}" if what == "1" else f"{factor:.4g} {what}"


def _no_constant(case: ConformanceCase, sums: _Sums, moved: list[str]) -> CheckOutcome:
    table = ", ".join(
        f"E={e} a={a}: {low:.3g}" + (f" to {high:.3g}" if high - low > _TOLERANCE * high else "")
        for (e, a), (low, high) in sums.items()
    )
    several = {size: pair for size, pair in sums.items() if size[1] > 1}
    if case.claim.kind == "token_choice" and several and _is_constant(several):
        return failed(
            f"the sum of active weights is no constant: {_range(several)[0]:.4g} except at a = 1, where weights are "
            f"not normalized ({table}); values transfer with R = a between a > 1, but neither to nor from a = 1"
        )
    once = f" once training moves {', '.join(moved)}" if moved else ""
    return failed(
        f"the sum of active weights is no constant{once} ({table}), so no factor R transfers: normalize the "
        "weights over the active experts, then R = a"
    )


def fit_choice(case: ConformanceCase) -> CheckOutcome:
    """Each token selects a experts, and none is dropped."""
    taken = route(case.build(), case.tokens()).times.sum(-1)
    low, high = int(taken.min()), int(taken.max())
    if low != high:
        return failed(f"tokens take {low} to {high} experts ({case.claim.kind}): the scale differs between tokens")
    if case.claim.kind != "token_choice":
        return failed(f"kind = {case.claim.kind}: the number of experts, and so the scale, may differ between tokens")
    return passed(f"every token takes {low}")


def fit_gate(case: ConformanceCase) -> CheckOutcome:
    """The gate is a sigmoid."""
    kind = case.claim.gate if case.claim.gate != "any" else infer_gate(case)
    if kind is None:
        return unknown("the gate could not be inferred from the weights")
    if kind != "sigmoid":
        return failed(f"a {kind} gate: the transfer was published for a sigmoid; run the suites with --router")
    return passed("a sigmoid gate")


def fit_output(case: ConformanceCase) -> CheckOutcome:
    """Weights multiply the experts' output."""
    if case.claim.apply_on == "input":
        return failed("weights multiply the experts' input: a nonlinear expert does not preserve the scale")
    return passed("by the claim, which recomposition verifies")


CHECKS = (
    Check(run=fit_scale, source="arXiv 2605.23893 (r_a = a on a normalized sum)", question="fit", once=True),
    Check(
        run=fit_choice,
        source="arXiv 2605.23893 (Bridge II: an expert sees a/N of the tokens)",
        question="fit",
        once=True,
    ),
    Check(
        run=fit_gate,
        source="arXiv 2605.23893; the published drift was measured with it",
        question="fit",
        severity="should",
        once=True,
    ),
    Check(run=fit_output, source="arXiv 2605.23893", question="fit", candidates=BLOCKS, once=True),
)
