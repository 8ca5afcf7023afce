"""Where the experts' weights lie in somebody else's block: what grows with their number, verified by changing others.

Shapes alone cannot tell a router's [E, d] from a bias per expert, nor how a flat [E*f, d] is divided. So: a parameter
is the experts' own if writing anything into the other experts' parts of it leaves alone what one expert adds.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.func import functional_call

from mue_check.conformance.case import Built, Case, block_output
from mue_check.conformance.torch_calls import exactly
from mue_check.errors import ClaimError, first_line

Values = Mapping[str, Tensor]
"""Tensors by dotted name, used in place of the module's own parameters."""
DECLARE = (
    "declare them: RoutingSpec(experts=ExpertLayout(up='experts.up', gate=..., down=..., axes=..., activation=...))"
)
_LOUD = 30.0  # enough to move a router's choice


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One tensor of every expert. ``name`` is the parameter's, with {} for the expert where each has its own.

    ``dim`` is the axis of one parameter that holds all experts; None where each has its own. On a flat axis an expert
    has neighbouring rows, or every E-th with ``minor``.
    """

    name: str
    dim: int | None = None
    minor: bool = False

    def names(self, experts: int) -> list[str]:
        """The parameters that hold it."""
        return [self.name] if self.dim is not None else [self.name.replace("{}", str(e)) for e in range(experts)]

    def stack(self, values: Values, experts: int) -> Tensor:
        """[E, ...]: each expert's tensor, without axes of size 1."""
        if self.dim is None:
            whole = torch.stack([values[name] for name in self.names(experts)])
        else:
            whole = self._apart(values[self.name], experts)
        return whole.reshape(experts, *(n for n in whole.shape[1:] if n > 1))

    def put(self, values: Values, stacked: Tensor) -> dict[str, Tensor]:
        """The parameters, of their own shape, that hold a stack."""
        experts = len(stacked)
        if self.dim is None:
            return {n: stacked[e].reshape(values[n].shape) for e, n in enumerate(self.names(experts))}
        old = values[self.name]
        apart = stacked.reshape(self._apart(old, experts).shape)
        return {self.name: apart.movedim(0, self.dim + self.minor).reshape(old.shape)}

    def _apart(self, whole: Tensor, experts: int) -> Tensor:
        assert self.dim is not None
        rest = whole.shape[self.dim] // experts
        sizes = (rest, experts) if self.minor else (experts, rest)
        shape = (*whole.shape[: self.dim], *sizes, *whole.shape[self.dim + 1 :])
        return whole.reshape(shape).movedim(self.dim + self.minor, 0)


def output_with(built: Built, values: Values, x: Tensor) -> Tensor:
    """[T, D]: the block's output for tokens [T, D] with other values for some parameters."""
    x = x.to(built.dtype)
    with exactly(built.dtype):
        returned = functional_call(built.module, dict(values), (x.unsqueeze(0),))
    return block_output(returned, (1, *x.shape)).squeeze(0)


def parameters(built: Built) -> dict[str, Tensor]:
    """A module's parameters by every name they have."""
    return dict(built.module.named_parameters(remove_duplicate=False))


def only(weights: Sequence[Weights], values: Values, keep: Tensor) -> dict[str, Tensor]:
    """The values with those experts that ``keep`` [E] does not name set to 0."""
    out: dict[str, Tensor] = {}
    for w in weights:
        stacked = w.stack(values, len(keep))
        # where, not a product: memory that was never written may hold nan
        kept = torch.where(_column(keep, stacked), stacked, torch.zeros_like(stacked))
        out |= w.put(values, kept)
    return out


def stirred(weights: Sequence[Weights], values: Values, experts: int, seed: int) -> dict[str, Tensor]:
    """Random values of a size at which every activation bends, so that a zero at init hides nothing."""
    generator = torch.Generator().manual_seed(104729 + seed)
    out: dict[str, Tensor] = {}
    for w in weights:
        old = w.stack(values, experts)
        # 1.5 / sqrt of the mean of both fans: hidden values of about 1.5 from tokens of size 1
        scale = 0.5 if old.dim() < 3 else 1.5 * old[0].numel() ** -0.25
        new = scale * torch.randn(old.shape, generator=generator, dtype=torch.float64)
        out |= w.put(values, new.to(old))
    return out


def tied(case: Case) -> str:
    """Name of a parameter that several experts share as one object; "" where each has its own."""
    built = case.build()
    values = parameters(built)
    for w in _candidates(case, values):
        if w.dim is None and len({id(values[n]) for n in w.names(case.shape.experts)}) < case.shape.experts:
            return w.name
    return ""


@torch.no_grad()
def find_weights(case: Case, built: Built, x: Tensor) -> tuple[tuple[Weights, ...], tuple[Weights, ...]]:
    """(the experts' tensors, what else grows with their number: the router's); ClaimError where they cannot be told."""
    values, experts, name = parameters(built), case.shape.experts, case.found.router
    routing: list[Weights] = []
    matrices: list[Weights] = []
    vectors: list[Weights] = []
    for w in _candidates(case, values):
        slices = w.stack(values, experts)
        if slices[0].numel() == 1 or (name and w.name.startswith(name + ".")):
            routing.append(w)
        else:
            (matrices if slices.dim() > 2 else vectors).append(w)
    while matrices:
        ways = product(*(_layouts(w, values, experts) for w in matrices))
        # units of a hidden layer add up, so that any part of them is on its own: an expert is what fewest tokens meet
        way, (bad, _) = min(
            ((way, _dependent(built, x, way, vectors)) for way in ways), key=lambda pair: (len(pair[1][0]), pair[1][1])
        )
        mixed = [w for w in way if w in bad]
        if not mixed:
            return (*way, *(w for w in vectors if w not in bad)), (*routing, *(w for w in vectors if w in bad))
        # a router of several layers has matrices that grow with E too
        routing += mixed
        matrices = [w for w in way if w not in bad]
    declared = case.claim.experts
    named = () if declared is None else (declared.up, declared.down, declared.gate)
    found = [w for w in [*routing, *vectors] if w.name in named]
    if len(found) >= 2:
        # they are no experts by what they do; what they do instead is for the checks to say
        return tuple(found), tuple(w for w in [*routing, *vectors] if w not in found)
    raise ClaimError(f"found no weights of experts among the block's parameters: {DECLARE}")


def _candidates(case: Case, values: Values) -> list[Weights]:
    """What grows with the number of experts: an axis, or how many parameters there are of a name."""
    experts, more = case.shape.experts, case.at(experts=2 * case.shape.experts)
    try:
        larger = {n: p.shape for n, p in parameters(more.build()).items()}
    except Exception as error:
        raise ClaimError(f"no block at {more.shape}: {type(error).__name__}: {first_line(error)}") from None
    found = []
    for name in dict.fromkeys(template for n in values for template in _templates(n)):
        count = [sum(name.replace("{}", str(e)) in of for e in range(more.shape.experts)) for of in (values, larger)]
        if count == [experts, more.shape.experts]:
            found.append(Weights(name=name))
    listed = {n for w in found for n in w.names(experts)}
    for name, old in values.items():
        new = larger.get(name)
        if name in listed or new is None or len(new) != old.dim():
            continue
        grown = [d for d in range(old.dim()) if new[d] != old.shape[d]]
        if len(grown) == 1 and new[grown[0]] * experts == old.shape[grown[0]] * more.shape.experts:
            found.append(Weights(name=name, dim=grown[0]))
    return found


def _templates(name: str) -> Iterator[str]:
    """The name with each of its numbers left open: of a list's entry, or within a word (expert_3)."""
    for number in re.finditer(r"\d+", name):
        yield f"{name[: number.start()]}{{}}{name[number.end() :]}"


def _layouts(w: Weights, values: Values, experts: int) -> list[Weights]:
    """Both ways in which a flat axis can be divided."""
    if w.dim is None or values[w.name].shape[w.dim] == experts:
        return [w]
    return [w, Weights(name=w.name, dim=w.dim, minor=True)]


def _dependent(
    built: Built, x: Tensor, matrices: Sequence[Weights], vectors: Sequence[Weights]
) -> tuple[list[Weights], int]:
    """(those whose other experts' parts reach one expert's share of the output, how often a token meets an expert).

    The first are not divided so, or are no expert's.
    """
    experts, own = built.case.shape.experts, parameters(built)
    values = stirred([*matrices, *vectors], own, experts, 0)
    each = torch.eye(experts, dtype=torch.bool, device=x.device)

    def share(expert: int, values: Values) -> Tensor:
        """What the output loses with one expert's matrices."""
        without = only(matrices, values, ~each[expert])
        return output_with(built, values, x) - output_with(built, {**values, **without}, x)

    shares = [share(expert, values) for expert in range(min(experts, 4))]  # some may see no token
    expert = max(range(len(shares)), key=lambda e: float(shares[e].norm()))
    base, size = shares[expert], float(shares[expert].norm())
    if not size > 0:
        raise ClaimError(f"taking experts away changes nothing in the block's output: {DECLARE}")
    generator, found = torch.Generator().manual_seed(65537), []
    for w in [*matrices, *vectors]:
        stacked = w.stack(values, experts)
        noise = torch.randn(stacked.shape, generator=generator, dtype=torch.float64).to(stacked)
        noise *= stacked.std() if w in matrices else _LOUD
        written = w.put(values, torch.where(_column(each[expert], stacked), stacked, noise))
        if not float((share(expert, {**values, **written}) - base).norm()) <= tolerance(built.dtype) * size:
            found.append(w)
    tokens = torch.stack(shares).norm(dim=-1)
    return found, int((tokens > tolerance(built.dtype) * tokens.max()).sum())


def tolerance(dtype: torch.dtype) -> float:
    """Relative error of a difference of outputs that rounding explains."""
    return 1e-6 if dtype == torch.float64 else 1e-3


def _column(keep: Tensor, stacked: Tensor) -> Tensor:
    return keep.view(-1, *[1] * (stacked.dim() - 1))
