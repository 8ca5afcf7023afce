"""Opening a block: its experts are found and what they compute is learned, once, at a shape where nothing is ambiguous.

The experts' weights are random ones of a size at which something is to be seen, in place of those at init: the laws
hold for all of them, and zeros or memory that was never written then hide nothing. The routing does not depend on them.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mue_check.conformance.block import Block, Form, router_input, views_of
from mue_check.conformance.case import Built, Case
from mue_check.conformance.expert_function import Function, direction_error, forms
from mue_check.conformance.experts import find_weights, parameters, stirred, tied, tolerance
from mue_check.errors import ClaimError, UnreadableError
from mue_check.routing.canonical import Routing

_TOKENS = 96
_VIEWS = 4
"""Of the tokens that the experts may see: the block's, the router's, and what a norm or two make of them."""


def open_block(case: Case, *, stir: bool = True, train: bool = False, dtype: torch.dtype | None = None) -> Block:
    """The block of a case, its experts' weights random ones or, without ``stir``, those at init."""
    form = form_of(case)
    return opened(case.build(dtype=dtype or form.dtype, train=train), stir=stir)


def opened(built: Built, *, stir: bool = True) -> Block:
    """The same for a module that was built already, which stays as it is."""
    form, values = form_of(built.case), parameters(built)
    if stir:
        values = values | stirred(form.weights, values, built.case.shape.experts, built.case.seed)
    return Block(built=built, form=form, values=values)


def read_routing(built: Built, x: Tensor) -> Routing:
    """The routing as a block's output shows it, with its gradient, for blocks without a router that could be asked."""
    return opened(built).read(x)


def form_of(case: Case) -> Form:
    """What is known of the experts of a case's block, learned once; ClaimError where they were not found."""
    found = case.found
    if found.experts is None and not found.no_experts:
        try:
            found.experts = _learn(case.first)
        except ClaimError as error:
            found.no_experts = str(error)
    if found.experts is None:
        raise UnreadableError(found.no_experts)
    return found.experts


@torch.no_grad()
def _learn(case: Case) -> Form:
    case.learn()
    name = tied(case)
    if name:
        raise ClaimError(f"{name} is one parameter that all experts share")
    x = case.tokens(901, count=_TOKENS)
    built = _precise(case, x)
    weights, routing = find_weights(case, built, x)
    block = Block(
        built=built,
        form=Form(weights=weights, routing=routing, function=None, dtype=built.dtype),
        values=parameters(built) | stirred(weights, parameters(built), case.shape.experts, case.seed),
    )
    return _with_function(block, x)


def _precise(case: Case, x: Tensor) -> Built:
    """In float64, where the block runs in it."""
    try:
        built = case.build(dtype=torch.float64)
        if bool(built.output(x).isfinite().all()):
            return built
    except ClaimError:
        raise
    except Exception:  # a type that is written into the code; what is wrong in float32 too is seen there
        pass
    return case.build()


def _with_function(block: Block, x: Tensor) -> Form:
    """The form with f_e by what each expert adds to the output; the declared f_e, or None, where nothing fits."""
    case, module, experts = block.built.case, block.built.module, block.experts
    shared = block.shared(x)
    each = torch.eye(experts, dtype=torch.bool, device=x.device)
    seen = torch.stack([block.output(x, keep) - shared for keep in each])
    inputs = _inputs(block, x)

    def fitting(candidates: list[Function]) -> Form | None:
        best, found = 10 * tolerance(block.built.dtype), None
        for tokens, view in inputs:
            for function in candidates:
                error = direction_error(seen, function.outputs(module, block.values, tokens, experts))
                if error < best:
                    best, found = error, replace(block.form, function=function, view=view)
            if found is not None:
                break
        return found

    size = (module, block.values, block.form.weights, experts, case.shape.d)
    declared = list(forms(*size, case.claim.experts)) if case.claim.experts else []
    told = fitting(declared)
    if told is not None:
        return told
    seen_form = fitting(list(forms(*size, None))) or fitting(_callable(block, x))
    if not declared:
        return seen_form or block.form
    if seen_form is None:
        return replace(block.form, function=declared[0])
    return replace(seen_form, against_claim=str(seen_form.function))


def _inputs(block: Block, x: Tensor) -> list[tuple[Tensor, str | None]]:
    """What the experts may see, the claimed first: tokens or weighted tokens, and which view of them that is."""
    views: list[tuple[Tensor, str | None]] = [(x.to(block.built.dtype), None)]
    others: list[tuple[str, Tensor]] = [("", router_input(block.built, x))] if block.reads_router else []
    for name, other in [*others, *views_of(block.built, x)]:
        new = other.shape == x.shape and not any(torch.equal(other, known) for known, _ in views)
        if new and len(views) < _VIEWS:
            views.append((other, name))
    if not block.reads_router:
        return views
    weights = block.built.route(x).combine.T.unsqueeze(-1).to(block.built.dtype)
    weighted = [(weights * tokens, view) for tokens, view in views]
    return [*weighted, *views] if block.built.case.claim.apply_on == "input" else [*views, *weighted]


def _callable(block: Block, x: Tensor) -> list[Function]:
    """The experts' own modules, where they are a list of modules that take tokens [T, D]."""
    names = {w.name.partition("{}")[0] + "{}" for w in block.form.weights if w.dim is None}
    if len(names) != 1:
        return []
    function = Function(called=names.pop())
    try:
        function.outputs(block.built.module, block.values, x.to(block.built.dtype), 1)
    except Exception:  # they are called with something else
        return []
    return [function]
