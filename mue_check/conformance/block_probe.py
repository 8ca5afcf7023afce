"""Probe a block: find its experts and what they compute, once, at a shape where nothing is ambiguous.

The experts' weights are replaced by random ones. The laws hold for any weights, and zeros or uninitialized memory
could hide a bug. The routing does not depend on them. A gate that starts at zero, as in a published diffusion
transformer, becomes 1: behind it the experts show nothing, and get no gradient, until the gate has moved.
"""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from mue_check.conformance.block import ProbedBlock, views_of
from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.expert_function import ExpertFunction, direction_error, possible_functions
from mue_check.conformance.expert_weights import random_values
from mue_check.conformance.find_experts import find_experts, shared_parameter, tolerance
from mue_check.conformance.learned import ExpertForm
from mue_check.conformance.router_probe import find_router, router_input
from mue_check.errors import ClaimError
from mue_check.routing.claim import ExpertLayout

_TOKENS = 96
_VIEWS = 4
"""How many candidates for the experts' input are tried: the block's, the router's, and those after a norm or two."""


def probe_block(
    case: ConformanceCase, *, randomize: bool = True, train: bool = False, dtype: torch.dtype | None = None
) -> ProbedBlock:
    """The block of a case, with random weights in its experts or, without ``randomize``, those at init."""
    form = form_of(case)
    return probe_built(case.build(dtype=dtype or form.dtype, train=train), randomize=randomize)


def probe_built(built: BuiltCandidate, *, randomize: bool = True) -> ProbedBlock:
    """The same for a module that is already built; of its own parameters, gates that start at zero become 1."""
    form = form_of(built.case)
    if form.gates:
        open_gates(built)
    values = built.parameters()
    if randomize:
        values = values | random_values(form.tensors, values, built.case.shape.experts, built.case.seed)
        values |= {n: torch.zeros_like(values[n]) for t in form.adapters for n in t.names(built.case.shape.experts)}
    return ProbedBlock(built=built, form=form, values=values)


def form_of(case: ConformanceCase) -> ExpertForm:
    """The form of the block's experts, learned once. UnreadableError: they were not found; ClaimError: a fault."""
    learned = case.learned
    if learned.experts is None:
        try:
            learned.experts = _learn(case.first)
        except ClaimError as error:
            learned.experts = error
    if isinstance(learned.experts, ClaimError):
        raise type(learned.experts)(str(learned.experts))
    return learned.experts


@torch.no_grad()
def _learn(case: ConformanceCase) -> ExpertForm:
    find_router(case)
    name = shared_parameter(case)
    if name:
        raise ClaimError(f"all experts share one parameter and will stay equal: {name}")
    x = case.tokens(901, count=_TOKENS)
    built = _build_precise(case, x)
    gates = open_gates(built)
    tensors, routing = find_experts(case, built, x)
    own = built.parameters()
    block = ProbedBlock(
        built=built,
        form=ExpertForm(tensors=tensors, router_tensors=routing, function=None, dtype=built.dtype),
        values=own | random_values(tensors, own, case.shape.experts, case.seed),
    )
    frozen = any(not own[n].requires_grad for t in tensors for n in t.names(case.shape.experts))
    return replace((_with_adapters(block, x) if frozen else None) or _with_function(block, x), gates=gates)


def _with_adapters(block: ProbedBlock, x: Tensor) -> ExpertForm | None:
    """The form in which the largest matrices are f_e and the others are adapters; None if there is none."""
    stacks = {t: t.stack(block.values, block.experts) for t in block.form.tensors}
    matrices = sorted((t for t in stacks if stacks[t].dim() > 2), key=lambda t: -stacks[t].numel())
    for count in (3, 2):
        adapters = tuple(matrices[count:])
        if not adapters:
            continue
        base = tuple(t for t in block.form.tensors if t not in adapters)
        zero = {n: torch.zeros_like(block.values[n]) for t in adapters for n in t.names(block.experts)}
        form = replace(block.form, tensors=base)
        found = _with_function(replace(block, form=form, values={**block.values, **zero}), x)
        if found.function is not None and found.function.parts:
            return replace(found, tensors=block.form.tensors, adapters=adapters)
    return None


def _build_precise(case: ConformanceCase, x: Tensor) -> BuiltCandidate:
    """Built in float64 if the block runs in it, else in float32."""
    try:
        built = case.build(dtype=torch.float64)
        if bool(built.output(x).isfinite().all()):
            return built
    except ClaimError:
        raise
    except Exception:  # noqa: S110  (a dtype is hard-coded; any other error shows in float32 too)
        pass
    return case.build()


def _with_function(block: ProbedBlock, x: Tensor) -> ExpertForm:
    """The form with the f_e that explains what each expert adds; else with the declared f_e, or None."""
    case, module, experts = block.built.case, block.built.module, block.experts
    shared = block.shared(x)
    each = torch.eye(experts, dtype=torch.bool, device=x.device)
    observed = torch.stack([block.output(x, keep) - shared for keep in each])
    inputs = _expert_inputs(block, x)

    def best_fit(functions: list[ExpertFunction]) -> ExpertForm | None:
        best, form = 10 * tolerance(block.built.dtype), None
        for tokens, view in inputs:
            for function in functions:
                error = direction_error(observed, function.outputs(module, block.values, tokens, experts))
                if error < best:
                    best, form = error, replace(block.form, function=function, view=view)
            if form is not None:
                break
        return form

    def functions(declared: ExpertLayout | None) -> list[ExpertFunction]:
        return list(possible_functions(module, block.values, block.form.tensors, experts, case.shape.d, declared))

    declared = functions(case.claim.experts) if case.claim.experts else []
    fit = best_fit(declared)
    if fit is not None:
        return fit
    fit = best_fit(functions(None)) or best_fit(_own_modules(block, x))
    if not declared:
        return fit or block.form
    return replace(block.form, function=declared[0]) if fit is None else replace(fit, against_claim=str(fit.function))


def _expert_inputs(block: ProbedBlock, x: Tensor) -> Iterable[tuple[Tensor, str | None]]:
    """What the experts may receive, the claimed kind first: tokens or weighted tokens, and the view they come from."""
    views: list[tuple[Tensor, str | None]] = [(x.to(block.built.dtype), None)]
    others: list[tuple[str, Tensor]] = [("", router_input(block.built, x))] if block.reads_router else []
    for name, other in [*others, *views_of(block.built, x)]:
        new = other.shape == x.shape and not any(torch.equal(other, known) for known, _ in views)
        if new and len(views) < _VIEWS:
            views.append((other, name))
    if not block.reads_router:
        return views
    weights = block.routing(x).combine.T.unsqueeze(-1).to(block.built.dtype)
    weighted = [(weights * tokens, view) for tokens, view in views]
    return [*weighted, *views] if block.built.case.claim.apply_on == "input" else [*views, *weighted]


def _own_modules(block: ProbedBlock, x: Tensor) -> list[ExpertFunction]:
    """The experts' own modules, where they are a list of modules that take tokens [T, D]."""
    names = {t.name.partition("{}")[0] + "{}" for t in block.form.tensors if t.dim is None}
    if len(names) != 1:
        return []
    function = ExpertFunction(called=names.pop())
    try:
        function.outputs(block.built.module, block.values, x.to(block.built.dtype), 1)
    except Exception:  # they take other arguments
        return []
    return [function]


@torch.enable_grad()
def open_gates(built: BuiltCandidate) -> tuple[str, ...]:
    """Set to 1 each entry of a zero vector that multiplies the block's branch; the names of the vectors changed.

    Behind a closed gate no other parameter has a gradient. The gradient of the vector shows which of its entries are
    gates: those of a shift or a scale have none. A vector of which a 1 lets no gradient through is no gate and stays 0.
    """
    trained = {name: p for name, p in built.module.named_parameters() if p.requires_grad}
    vectors = {name: p for name, p in trained.items() if p.dim() <= 1 and not p.any()}
    if not vectors:
        return ()
    before = _gradients(built, trained)
    if before is None or any(before[name] is not None and trained[name].any() for name in trained):
        return ()
    masks = {name: mask for name in vectors if (mask := before[name]) is not None}
    _fill(trained, masks, 1.0)
    after = _gradients(built, trained)
    if after is not None and any(after[name] is not None and trained[name].any() for name in trained.keys() - masks):
        return tuple(masks)
    _fill(trained, masks, 0.0)
    return ()


@torch.no_grad()
def _fill(trained: dict[str, nn.Parameter], masks: dict[str, Tensor], value: float) -> None:
    for name, mask in masks.items():
        trained[name][mask] = value


def _gradients(built: BuiltCandidate, trained: dict[str, nn.Parameter]) -> dict[str, Tensor | None] | None:
    """By name, which entries have a gradient of a random loss, or None if none has; None if the output has no graph."""
    y = built.output(built.case.tokens())
    if not y.requires_grad:
        return None
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(23)).to(y)
    found = torch.autograd.grad(y, list(trained.values()), loss, allow_unused=True)
    return {name: None if g is None or not bool(g.any()) else g != 0 for name, g in zip(trained, found, strict=True)}
