"""Find the router of a candidate and what it returns, once, and read its routing."""

from typing import Any

import torch
from torch import Tensor, nn

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.learned import RouterReading
from mue_check.conformance.torch_calls import intercept_calls, record_calls
from mue_check.errors import ClaimError, UnreadableError
from mue_check.plain import plain
from mue_check.routing.adapter import Layout, Size, learn_layout
from mue_check.routing.canonical import Routing


def find_router(case: ConformanceCase) -> RouterReading | ClaimError:
    """Which module routes and how its return is read, or why that is unknown."""
    if case.learned.router is None:
        try:
            case.learned.router = _search(case.first)
        except ClaimError as error:
            case.learned.router = error
    return case.learned.router


def layout_of(case: ConformanceCase) -> Layout | None:
    """The layout of the router's return; None where it cannot be read."""
    found = find_router(case)
    return found.layout if isinstance(found, RouterReading) else None


def router_name(case: ConformanceCase) -> str:
    """The dotted name of the router inside a block, "" without one."""
    found = find_router(case)
    return found.name if isinstance(found, RouterReading) else ""


def router_of(built: BuiltCandidate) -> nn.Module | None:
    """The module that routes: the candidate itself, or the block's router; None in a block without one."""
    if built.case.is_router:
        return built.module
    found = find_router(built.case)
    return built.module.get_submodule(found.name) if isinstance(found, RouterReading) and found.name else None


def router_output(built: BuiltCandidate, x: Tensor) -> tuple[Any, Size]:
    """What the router itself returns for tokens [T, D]."""
    if built.case.is_router:
        return built.call(x), built.size(x)
    found, router = find_router(built.case), router_of(built)
    if isinstance(found, ClaimError):
        raise found
    if found.call is not None:
        return dict(_results(built, x))[found.call], built.size(x)
    with record_calls(built.module, lambda m: m is router) as calls:
        built.call(x)
    if not calls:
        raise ClaimError(f"the block's {found.name} was not called")
    return calls[0].output, built.size(x)


def router_routing(built: BuiltCandidate, x: Tensor) -> Routing:
    """The routing that the router returns for tokens [T, D]; ClaimError where it cannot be read."""
    found = find_router(built.case)
    if isinstance(found, ClaimError):
        raise found
    return found.layout.read(*router_output(built, x))


def router_input(built: BuiltCandidate, x: Tensor) -> Tensor:
    """[T, D]: what the router receives."""
    router = router_of(built)
    with record_calls(built.module, lambda m: m is router) as calls:
        built.call(x)
    given = [plain(t) for t in calls[0].inputs if isinstance(t, Tensor) and t.is_floating_point()] if calls else []
    return given[0].reshape(-1, given[0].shape[-1]) if given else x.to(built.dtype)


def selection_bias(built: BuiltCandidate) -> tuple[str, Tensor] | None:
    """Name and values [E] of the bias that the claim names, or of the one buffer with "bias" in its name.

    Writing into the values changes the candidate.
    """
    name, size = built.case.claim.selection_bias, built.case.shape.experts
    everything = dict(built.module.named_buffers()) | dict(built.module.named_parameters())
    if name is not None:
        found = [n for n in everything if n == name or n.endswith(f".{name}")]
        if not found:
            raise ClaimError(f"the claim names the selection bias {name!r}; there are {', '.join(everything)}")
    else:
        # a linear layer's bias is trained; a selection bias is not, or has DeepSeek's name
        found = [
            n
            for n, t in everything.items()
            if "bias" in n
            and without_leading_ones(t).shape == (size,)
            and t.is_floating_point()
            and (not t.requires_grad or "correction" in n)
        ]
        if len(found) != 1:
            return None
    return found[0], without_leading_ones(everything[found[0]].detach())


def without_leading_ones(tensor: Tensor) -> Tensor:
    """A view of the tensor without leading axes of size 1: [1, E] is a vector too."""
    while tensor.dim() > 1 and len(tensor) == 1:
        tensor = tensor[0]
    return tensor


def stir_vectors(built: BuiltCandidate) -> list[str]:
    """Move the router's trained vectors whose entries are all equal, such as a scale of ones; return their names.

    They are neutral at init only. The values stay positive where they were.
    """
    router = router_of(built)
    named = [] if router is None else list(router.named_parameters())
    equal = [(n, p) for n, p in named if p.requires_grad and p.numel() and without_leading_ones(p).dim() <= 1]
    neutral = [(n, p) for n, p in equal if bool((p == p.flatten()[0]).all())]
    generator = torch.Generator().manual_seed(built.case.seed)
    with torch.no_grad():
        for _, p in neutral:
            p.add_((0.25 + 0.5 * torch.rand(p.shape, generator=generator)).to(p))
    return [n for n, _ in neutral]


def _search(case: ConformanceCase) -> RouterReading:
    built, x = case.build(), case.tokens()
    size = built.size(x)
    if case.is_router:
        return RouterReading(name="", layout=learn_layout(built.call(x), size, case.claim))
    declared, wanted = case.claim.router, None
    if declared is not None:
        try:
            wanted = built.module.get_submodule(declared)
        except AttributeError:
            raise ClaimError(f"the block has no submodule {declared!r}, which the claim names as its router") from None
    with record_calls(built.module, lambda m: m is not built.module and wanted in (None, m)) as calls:
        built.call(x)
    trouble: ClaimError = UnreadableError("no part of the block returns a routing: name its router in the claim")
    # inner calls end first, so the last readable one is the outermost
    for call in reversed(calls):
        try:
            reading = RouterReading(name=call.name, layout=learn_layout(call.output, size, case.claim))
            if case.claim.kind == "capacity" and not _drops(built, reading):
                raise UnreadableError("the block drops tokens, and its router does not say which")
            return reading
        except ClaimError as error:
            if declared is not None and not isinstance(call.output, Tensor):  # with logits alone the output shows more
                trouble = error
    if case.claim.apply_on == "input":  # then the output does not show the weights
        for number, result in _results(built, x):
            if bool(result.isfinite().all()) and bool(((result != 0).sum(-1) == case.shape.activated).all()):
                return RouterReading(name=declared or "", layout=Layout({"combine": ()}), call=number)
    raise trouble


def _drops(built: BuiltCandidate, reading: RouterReading) -> bool:
    """Whether a router's return says which tokens are dropped, tested on tokens that all choose the same experts."""
    case, router = built.case, built.module.get_submodule(reading.name)
    x = case.tokens()[:1].expand(case.shape.tokens, -1)
    with record_calls(built.module, lambda m: m is router) as calls:
        built.call(x)
    taken = reading.layout.read(calls[0].output, built.size(x)).times
    return int(taken.sum()) < len(x) * case.shape.activated


def _results(built: BuiltCandidate, x: Tensor) -> list[tuple[int, Tensor]]:
    """Each result [T, E] of a torch call in a block, with the number of the call."""
    results: list[tuple[int, Tensor]] = []
    size = (len(x), built.case.shape.experts)

    def on_result(number: int, result: Any) -> Any:
        if isinstance(result, Tensor) and result.is_floating_point() and result.shape == size:
            results.append((number, result))
        return result

    with intercept_calls(built.module, on_result=on_result):
        built.call(x)
    return results
