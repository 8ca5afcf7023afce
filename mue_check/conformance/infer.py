"""What can be told of a router without a claim, for people to read and to declare."""

from itertools import product
from typing import Literal

from mue_check.conformance.case import Case
from mue_check.conformance.checks.selection import selection_bias
from mue_check.conformance.checks.weights import gated
from mue_check.errors import ClaimError
from mue_check.routing.adapter import Layout
from mue_check.routing.claim import Gate, RoutingSpec

_TOLERANCE = 1e-3
_GATES: tuple[Gate, ...] = ("sigmoid", "softmax")
_SUMS: tuple[Literal["one", "free"], ...] = ("one", "free")


def infer_gate(case: Case) -> Gate | None:
    """The gate that the weights agree with, up to a constant factor; None where neither does."""
    built, x = case.build(), case.tokens()
    routing, logits = built.route(x), built.logits(x)
    if logits is None:
        return None
    found = routing.combine.detach().double()
    claims = (RoutingSpec(gate=gate, weight_sum=total) for gate, total in product(_GATES, _SUMS))
    for claim in claims:
        guess = gated(logits.detach().double(), routing, claim)
        guess = guess * (found.sum() / guess.sum())
        if float((guess - found).abs().max()) <= _TOLERANCE * float(found.max()):
            return claim.gate
    return None


def describe(case: Case) -> list[str]:
    """Lines about what was found: where the router is, what it returns, gate, sum and selection bias."""
    case.learn()
    layout = case.found.layout
    if layout is None and case.candidate.kind == "router":
        return [f"routing: not readable: {case.found.trouble}"]
    lines = [f"returns: {layout}{_by_expert(layout)}" if layout else "router:  none by itself; read from the output"]
    if case.found.router:
        lines.insert(0, f"router:  {case.found.router}")
    try:
        built, x = case.build(), case.tokens()
        sums = built.route(x).sums.detach()
        low, high = float(sums.min()), float(sums.max())
        said = f"{low:.4g}" if high - low <= _TOLERANCE * abs(high) else f"{low:.3g} to {high:.3g}"
        lines.append(f"gate:    {infer_gate(case) or 'neither sigmoid nor softmax of known logits'}")
        lines.append(f"sum:     {said} at {case.shape}")
        bias = selection_bias(built)
        if bias is not None:
            name = next(n for n, t in [*built.module.named_buffers(), *built.module.named_parameters()] if t is bias)
            lines.append(f"bias:    {name}, for the choice alone")
    except (ClaimError, LookupError, RuntimeError) as error:
        lines.append(f"more could not be told: {error}")
    return lines


def _by_expert(layout: Layout) -> str:
    return ", by expert" if layout.by_expert else ""
