"""Find the experts' weights in someone else's block: what grows with E, verified by changing the other experts.

Shapes alone cannot tell a router's [E, d] from one bias per expert, nor how a flat [E*f, d] is divided. So a parameter
belongs to the experts if overwriting the other experts' parts of it leaves one expert's contribution unchanged.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from mue_check.conformance.case import BuiltCandidate, ConformanceCase
from mue_check.conformance.expert_weights import ExpertTensor, Values, expand, keep_experts, random_values
from mue_check.conformance.router_probe import layout_of, router_name, router_routing
from mue_check.errors import ClaimError, UnreadableError
from mue_check.user_code import describe_error

DECLARE = (
    "declare them: RoutingSpec(experts=ExpertLayout(up='experts.up', gate=..., down=..., axes=..., activation=...))"
)
_LOUD = 30.0  # enough to change a router's choice


def shared_parameter(case: ConformanceCase) -> str:
    """The name of a parameter that several experts share as one object; "" if each has its own."""
    values = case.build().parameters()
    for tensor in _growing(case, values):
        names = tensor.names(case.shape.experts)
        if tensor.dim is None and len({id(values[n]) for n in names}) < case.shape.experts:
            return tensor.name
    return ""


@torch.no_grad()
def find_experts(
    case: ConformanceCase, built: BuiltCandidate, x: Tensor
) -> tuple[tuple[ExpertTensor, ...], tuple[ExpertTensor, ...]]:
    """(the experts' tensors, the other tensors that grow with E: the router's).

    UnreadableError where that is unclear, ClaimError where an expert uses another one's part of a tensor.
    """
    values, experts, router = built.parameters(), case.shape.experts, router_name(case)
    routing: list[ExpertTensor] = []
    matrices: list[ExpertTensor] = []
    vectors: list[ExpertTensor] = []
    for tensor in _growing(case, values):
        slices = tensor.stack(values, experts)
        if slices[0].numel() == 1 or (router and tensor.name.startswith(router + ".")):
            routing.append(tensor)
        else:
            (matrices if slices.dim() > 2 else vectors).append(tensor)
    while matrices:
        # any part of the hidden units is independent of the rest; the true experts are those that fewest tokens meet
        splits = product(*(_splits(tensor, values, experts) for tensor in matrices))
        split, (dependent, _) = min(
            ((split, _dependent(built, x, split, vectors)) for split in splits),
            key=lambda pair: (len(pair[1][0]), pair[1][1]),
        )
        mixed = [t for t in split if t in dependent]
        _require_separate(case, built, x, dependent)
        if not mixed:
            own = (*split, *(t for t in vectors if t not in dependent))
            return own, (*routing, *(t for t in vectors if t in dependent))
        # a router of several layers has matrices that grow with E too
        routing += mixed
        matrices = [t for t in split if t not in dependent]
    declared = case.claim.experts
    names = () if declared is None else (declared.up, declared.down, declared.gate)
    others = [*routing, *vectors]
    named = [t for t in others if t.name in names]
    if len(named) >= 2:
        # they do not behave like experts; the checks say what they do instead
        return tuple(named), tuple(t for t in others if t not in named)
    raise UnreadableError(f"found no experts' weights among the block's parameters: {DECLARE}")


def _growing(case: ConformanceCase, values: Values) -> list[ExpertTensor]:
    """What grows with E: an axis of a parameter, or the number of parameters with similar names."""
    experts, more = case.shape.experts, case.at(experts=2 * case.shape.experts)
    try:
        larger = {n: p.shape for n, p in more.build().parameters().items()}
    except Exception as error:
        raise UnreadableError(f"no block at {more.shape}: {describe_error(error)}") from None
    found = []
    for name in dict.fromkeys(template for n in values for template in _templates(n)):
        count = [sum(name.replace("{}", str(e)) in of for e in range(more.shape.experts)) for of in (values, larger)]
        if count == [experts, more.shape.experts]:
            found.append(ExpertTensor(name=name))
    listed = {n for t in found for n in t.names(experts)}
    for name, old in values.items():
        new = larger.get(name)
        if name in listed or new is None or len(new) != old.dim():
            continue
        grown = [d for d in range(old.dim()) if new[d] != old.shape[d]]
        if len(grown) != 1:
            continue
        size, larger_size = old.shape[grown[0]], new[grown[0]]
        one_each = larger_size - size == more.shape.experts - experts and size > experts
        divided = size % experts == 0 and not (case.claim.kind == "variable" and old.dim() > 2 and size > experts)
        if larger_size * experts == size * more.shape.experts:
            found.append(ExpertTensor(name=name, dim=grown[0], nulls=not divided))
        elif one_each:
            found.append(ExpertTensor(name=name, dim=grown[0], nulls=True))
    return found


def _templates(name: str) -> Iterator[str]:
    """The name with one of its numbers replaced by {}: an entry of a list, or part of a word (expert_3)."""
    for number in re.finditer(r"\d+", name):
        yield f"{name[: number.start()]}{{}}{name[number.end() :]}"


def _splits(tensor: ExpertTensor, values: Values, experts: int) -> list[ExpertTensor]:
    """Both ways to divide a flat axis."""
    if tensor.dim is None or tensor.nulls or values[tensor.name].shape[tensor.dim] == experts:
        return [tensor]
    return [tensor, ExpertTensor(name=tensor.name, dim=tensor.dim, minor=True)]


def _dependent(
    built: BuiltCandidate, x: Tensor, matrices: Sequence[ExpertTensor], vectors: Sequence[ExpertTensor]
) -> tuple[list[ExpertTensor], int]:
    """(tensors whose other slices affect one expert's contribution, how often a token meets an expert).

    The former are divided in another way, or do not belong to the experts.
    """
    experts = built.case.shape.experts
    values = random_values([*matrices, *vectors], built.parameters(), experts, 0)
    each = torch.eye(experts, dtype=torch.bool, device=x.device)

    def contribution(expert: int, values: Values) -> Tensor:
        """What the output loses without one expert's matrices."""
        without = keep_experts(matrices, values, ~each[expert])
        return built.output_with(values, x) - built.output_with({**values, **without}, x)

    contributions = [contribution(expert, values) for expert in range(min(experts, 4))]  # some may see no token
    if not any(bool(one.any()) for one in contributions):
        contributions += [contribution(expert, values) for expert in range(4, experts)]
    expert = max(range(len(contributions)), key=lambda e: float(contributions[e].norm()))
    base, size = contributions[expert], float(contributions[expert].norm())
    if not size > 0:
        raise UnreadableError(f"removing experts does not change the block's output: {DECLARE}")
    generator, dependent = torch.Generator().manual_seed(65537), []
    for tensor in [*matrices, *vectors]:
        stacked = tensor.stack(values, experts)
        noise = torch.randn(stacked.shape, generator=generator, dtype=torch.float64).to(stacked)
        noise *= stacked.std() if tensor in matrices else _LOUD
        changed = tensor.unstack(values, torch.where(expand(each[expert], stacked), stacked, noise))
        if not float((contribution(expert, {**values, **changed}) - base).norm()) <= tolerance(built.dtype) * size:
            dependent.append(tensor)
    tokens = torch.stack(contributions).norm(dim=-1)
    return dependent, int((tokens > tolerance(built.dtype) * tokens.max()).sum())


def _require_separate(case: ConformanceCase, built: BuiltCandidate, x: Tensor, tensors: Sequence[ExpertTensor]) -> None:
    """ClaimError for one of these tensors that changes the block's output and not its routing: it is no router's."""
    if layout_of(case) is None:
        return
    routing, output = router_routing(built, x).combine, built.output(x)
    for tensor in tensors:
        other = case.build(dtype=built.dtype)
        values = random_values([tensor], other.parameters(), case.shape.experts, 1)
        for name, value in values.items():
            other.parameters()[name].copy_(value)
        if torch.equal(router_routing(other, x).combine, routing) and not torch.equal(
            built.output_with(values, x), output
        ):
            raise ClaimError(
                f"what an expert adds depends on other experts' part of {tensor.name}: is that indexed by the expert, "
                "and are the experts' outputs only added up?"
            )


def tolerance(dtype: torch.dtype) -> float:
    """Relative error that rounding explains in a difference of outputs."""
    return 1e-6 if dtype == torch.float64 else 1e-3
