"""Fit for Complete-muE: what the transfer rule assumes of a routing, and the factor that would make it so."""

from mue_check.conformance.case import Case
from mue_check.conformance.registry import Finding, check, failed, passed, unknown

_EXPERTS = (8, 32, 128)
_ACTIVATED = (1, 2, 4, 8)
_TOLERANCE = 5e-3
_TOKENS = 64


@check(
    "fit-scale",
    law="the sum of active weights is one constant c for every token, E and a, and declared: then R = a / c",
    source="arXiv 2605.23893 (r_a = a on a normalized sum)",
    question="fit",
    once=True,
)
def fit_scale(case: Case) -> Finding:
    """Sums at a growing number of experts, and of activated experts."""
    sums: dict[tuple[int, int], tuple[float, float]] = {}
    for experts, activated in [(e, 4) for e in _EXPERTS] + [(32, a) for a in _ACTIVATED]:
        at = case.at(experts=experts, activated=activated)
        routing = at.build().acting(at.tokens(4, count=_TOKENS))
        kept = routing.sums.detach()
        sums[at.shape.experts, at.shape.activated] = float(kept.min()), float(kept.max())
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
                f"the sum of active weights is no constant: {several[0][0]:.4g} but for a = 1, where they are not "
                f"normalized ({table}); R = a carries over between a > 1, and neither to a = 1 nor from there"
            )
        return failed(
            f"the sum of active weights is no constant ({table}), so no factor R carries over: normalize the weights "
            "over the active experts, then R = a"
        )
    constant, expected = (low + high) / 2, case.claim.expected_sum()
    scale = constant * case.claim.route_scale
    factor = "a" if abs(scale - 1) <= _TOLERANCE else f"a / {scale:.4g}"
    if expected is None or abs(constant - expected) > _TOLERANCE * expected:
        return failed(
            f"the sum is {constant:.4g} everywhere, not declared: claim weight_sum = {constant:.4g}, then R = {factor}"
        )
    return passed(f"the sum is {constant:.4g} for every E and a: fits with R = {factor}")


@check(
    "fit-choice",
    law="each token takes a experts of its own, and none is dropped",
    source="arXiv 2605.23893 (Bridge II: an expert sees a/N of the tokens)",
    question="fit",
    once=True,
)
def fit_choice(case: Case) -> Finding:
    """Places per token."""
    taken = case.build().route(case.tokens()).times.sum(-1)
    low, high = int(taken.min()), int(taken.max())
    if case.claim.kind != "token_choice" or low != high:
        return failed(
            f"tokens take {low} to {high} experts ({case.claim.kind}): the branch's scale differs from token to token"
        )
    return passed(f"every token takes {low}")


@check(
    "fit-gate",
    law="the gate is a sigmoid",
    source="arXiv 2605.23893; the published drift was measured with it",
    question="fit",
    severity="should",
    once=True,
)
def fit_gate(case: Case) -> Finding:
    """What the claim says, or what the weights agree with."""
    from mue_check.conformance.infer import infer_gate

    kind = case.claim.gate if case.claim.gate != "any" else infer_gate(case)
    if kind is None:
        return unknown("the gate could not be told from the weights")
    if kind != "sigmoid":
        return failed(f"a {kind} gate: the transfer was published for a sigmoid; run the suites with --router")
    return passed("a sigmoid gate")


@check(
    "fit-output",
    law="weights multiply the experts' output",
    source="arXiv 2605.23893",
    question="fit",
    candidates=frozenset({"block"}),
    once=True,
)
def fit_output(case: Case) -> Finding:
    """By the claim, which recomposition verifies."""
    if case.claim.apply_on == "input":
        return failed("weights multiply the experts' input: a nonlinear expert does not pass the scale on")
    return passed("by the claim, and recomposition holds it to that")
