"""Read a candidate's routing, logits and results: from its router, or from the block's output."""

from dataclasses import replace

from torch import Tensor

from mue_check.conformance.block_probe import probe_built
from mue_check.conformance.case import BuiltCandidate
from mue_check.conformance.learned import RouterReading
from mue_check.conformance.logits import gate_logits, linear_logits, logit_source
from mue_check.conformance.router_probe import find_router, router_routing
from mue_check.errors import ClaimError
from mue_check.routing.canonical import Routing


def route(built: BuiltCandidate, x: Tensor) -> Routing:
    """The routing of tokens [T, D]; ClaimError where it cannot be read."""
    found = find_router(built.case)
    if isinstance(found, RouterReading):
        return router_routing(built, x)
    if not built.case.is_router:
        return route_from_output(built, x)
    built.call(x)  # an error in the call itself comes first
    raise found


def route_from_output(built: BuiltCandidate, x: Tensor) -> Routing:
    """The routing that a block's output shows, with its gradient; for a block without a router that can be read."""
    return probe_built(built).routing_from_output(x)


def effective_routing(built: BuiltCandidate, x: Tensor) -> Routing:
    """The weights that act on the experts; a block may scale or normalize what its router returns."""
    if built.case.is_router:
        return route(built, x)
    try:
        shown = route_from_output(built, x)
    except ClaimError:  # experts that cannot be told apart show no weights
        return route(built, x)
    if not isinstance(find_router(built.case), RouterReading):
        return shown
    returned = route(built, x)  # null experts do not show in the output
    return replace(shown, null_combine=returned.null_combine, null_times=returned.null_times)


def read_logits(built: BuiltCandidate, x: Tensor) -> Tensor | None:
    """[T, E]: the logits that the claim declares, the gate receives, or the router returns, or x W^T; else None."""
    routing = route(built, x)
    received = None if "logits" in built.case.claim.returns else gate_logits(built, x)
    if received is not None:
        return received
    if routing.logits is not None:
        return routing.logits
    return linear_logits(built, x) if logit_source(built.case).linear else None


def result_of(built: BuiltCandidate, x: Tensor) -> Tensor:
    """[T, ...]: a router's weights of each token for each expert, or a block's output."""
    return route(built, x).combine if built.case.is_router else built.output(x)
