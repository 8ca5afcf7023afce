"""Fit for Complete-muE: what the transfer rule assumes of a router or block, and the factor R that makes it hold."""

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.check import BLOCKS, Check, CheckOutcome, failed, passed, unknown
from mue_check.conformance.expected_routing import infer_gate
from mue_check.conformance.reading import effective_routing, route
from mue_check.conformance.router_probe import stir_vectors

_SIZES = ((8, 4), (32, 4), (128, 4), (32, 1), (32, 2), (32, 8))
"""(E, a)."""
_TOLERANCE = 5e-3
_TOKENS = 64


def fit_scale(case: ConformanceCase) -> CheckOutcome:
    """The sum of active weights is a declared constant c for every token, E and a; then R = a / c."""
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    moved: list[str] = []
    for experts, activated in _SIZES:
        at = case.at(experts=experts, activated=activated)
        built = at.build()
        moved = stir_vectors(built)  # a scale that is 1 at init only is no constant
        total = effective_routing(built, at.tokens(4, count=_TOKENS)).sums.detach()
        sums[at.shape.experts, at.shape.activated] = float(total.min()), float(total.max())
    table = ", ".join(
        f"E={e} a={a}: {low:.3g}" + (f" to {high:.3g}" if high - low > _TOLERANCE * high else "")
        for (e, a), (low, high) in sums.items()
    )
    low, high = min(v[0] for v in sums.values()), max(v[1] for v in sums.values())
    if not low > 0 or high - low > _TOLERANCE * high:
        several = [pair for (_, a), pair in sums.items() if a > 1]
        several = several if case.claim.kind == "token_choice" else []
        if several and max(v[1] for v in several) <= (1 + _TOLERANCE) * min(v[0] for v in several):
            return failed(
                f"the sum of active weights is no constant: {several[0][0]:.4g} except at a = 1, where weights are not "
                f"normalized ({table}); values transfer with R = a between a > 1, but neither to nor from a = 1"
            )
        once = f" once training moves {', '.join(moved)}" if moved else ""
        return failed(
            f"the sum of active weights is no constant{once} ({table}), so no factor R transfers: normalize the "
            "weights over the active experts, then R = a"
        )
    constant, expected = (low + high) / 2, case.claim.expected_sum()
    scale = constant * case.claim.route_scale
    factor = "a" if abs(scale - 1) <= _TOLERANCE else f"a / {scale:.4g}"
    if expected is None or abs(constant - expected) > _TOLERANCE * expected:
        outcome = failed if case.candidate.claims else unknown
        return outcome(
            f"the sum is {constant:.4g} everywhere, not declared: claim weight_sum = {constant:.4g}, then R = {factor}"
        )
    return passed(f"the sum is {constant:.4g} for every E and a: fits with R = {factor}")


def fit_choice(case: ConformanceCase) -> CheckOutcome:
    """Each token selects a experts, and none is dropped."""
    taken = route(case.build(), case.tokens()).times.sum(-1)
    low, high = int(taken.min()), int(taken.max())
    if case.claim.kind != "token_choice" or low != high:
        return failed(f"tokens take {low} to {high} experts ({case.claim.kind}): the scale differs between tokens")
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
