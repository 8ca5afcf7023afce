"""Describe what was found in a candidate without its claim, for people to read and declare."""

from mue_check.conformance.case import ConformanceCase
from mue_check.conformance.expected_routing import TOLERANCE, infer_gate
from mue_check.conformance.learned import RouterReading
from mue_check.conformance.reading import route
from mue_check.conformance.router_probe import find_router, selection_bias
from mue_check.errors import ClaimError


def describe(case: ConformanceCase) -> list[str]:
    """One line each: the router, what it returns, its gate, the sum of its weights, and its selection bias."""
    found = find_router(case)
    if isinstance(found, RouterReading):
        lines = [f"router:  {found.name}"] if found.name else []
        lines.append(f"returns: {found.layout}{', by expert' if found.layout.by_expert else ''}")
    elif case.is_router:
        return [f"routing: not readable: {found}"]
    else:
        lines = ["router:  none found; the routing is read from the output"]
    try:
        built, x = case.build(), case.tokens()
        sums = route(built, x).sums.detach()
        low, high = float(sums.min()), float(sums.max())
        total = f"{low:.4g}" if high - low <= TOLERANCE * abs(high) else f"{low:.3g} to {high:.3g}"
        lines.append(f"gate:    {infer_gate(case) or 'unknown (neither sigmoid nor softmax of the logits)'}")
        lines.append(f"sum:     {total} at {case.shape}")
        bias = selection_bias(built)
        if bias is not None:
            lines.append(f"bias:    {bias[0]}, taken for a selection bias")
    except (ClaimError, RuntimeError) as error:
        lines.append(f"could not be read further: {error}")
    return lines
