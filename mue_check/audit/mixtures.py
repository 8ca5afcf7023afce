"""A mixture with all its experts alike is one feed-forward: what multiplies it in all is then plain to see.

Experts come as lists of modules, in stacks or in flat matrices, and what a mixture does with their outputs is
its own affair. Made alike for one forward pass, they give R A f(y) for every token, whoever is chosen, as long as a
token's weights have a constant sum. f is asked of the first expert's module, or tried out from its matrices.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor, nn

from mue_check.audit.assign import Assignment
from mue_check.conformance.expert_function import ACTIVATIONS, ExpertFunction, ExpertMatrix, Half
from mue_check.conformance.expert_weights import ExpertTensor
from mue_check.rules import Role
from mue_check.rules.roles import DOWN

_MATRICES = frozenset({Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN})
_HALVES: tuple[tuple[Half, Half], ...] = (("first", "second"), ("second", "first"), ("even", "odd"), ("odd", "even"))
_CLAMP = (1.702, 7.0)
"""gpt-oss's."""
_COARSE = 1e-4
"""Beside a residual stream of such a type a branch of small weights is lost in rounding: it is drawn larger."""
_WORK = 2**30
"""Multiplications that one form may cost: with large matrices it is tried on fewer tokens."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """The experts of one layer at ``path``, ``total`` of them: modules of their own (``listed``), or few tensors."""

    path: str
    total: int
    listed: tuple[str, ...] = ()
    tensors: tuple[Assignment, ...] = ()

    @property
    def watched(self) -> tuple[str, ...]:
        """Modules of which at least one is called when the layer is."""
        return (*(self.listed or (self.path,)), self.path.rpartition(".")[0])


@dataclass(frozen=True)
class Form:
    """Which matrix is gate and which up, in which half of one or in which order of two, and what bends them.

    ``across``: square matrices lie the other way.
    """

    activation: str
    gate: Half
    up: Half
    swapped: bool
    across: bool
    clamped: bool


@dataclass(kw_only=True)
class Forms:
    """The forms that gave a layer's output: other layers will have the same."""

    known: list[Form] = field(default_factory=list)

    def knows(self, form: Form | None) -> bool:
        """Whether it gave a layer's output before."""
        return form in self.known

    def learn(self, form: Form | None) -> None:
        """It gave a layer's output; an expert that is called has none."""
        if form is not None and form not in self.known:
            self.known.append(form)


def find_mixtures(model: nn.Module, assignments: Mapping[str, Assignment], total: int | None) -> list[Mixture]:
    """The layers of experts; ``total`` is N, without which flat matrices cannot be divided."""
    downs = [a for a in assignments.values() if a.role is Role.EXPERT_DOWN]
    lists = {path for a in downs for path in [_before_number(a.name)] if path is not None}
    for a in assignments.values():
        if not _of_experts(a, assignments):
            # a list of layers holds norms and attention too
            lists -= {a.name[:at] for at, sign in enumerate(a.name) if sign == "."}
    lists = {path for path in lists if isinstance(model.get_submodule(path), nn.ModuleList | nn.ModuleDict)}
    out: dict[str, Mixture] = {}
    for a in downs:
        path = _before_number(a.name)
        if path in lists:
            assert path is not None
            names = tuple(f"{path}.{name}" for name, _ in model.get_submodule(path).named_children())
            out[path] = Mixture(path=path, total=len(names), listed=names)
        elif a.experts or total:
            path = a.name.removesuffix(".weight").rpartition(".")[0]
            own = [b for b in assignments.values() if b.name.startswith(f"{path}.") and _of_experts(b, assignments)]
            out[path] = Mixture(path=path, total=a.experts or total or 1, tensors=tuple(own))
    return list(out.values())


@contextmanager
def posed(model: nn.Module, assignments: Mapping[str, Assignment], mixtures: Sequence[Mixture]) -> Iterator[None]:
    """All experts of a layer are alike for a while, and no branch is hidden by a zero or by a coarse type."""
    saved: list[tuple[nn.Parameter, Tensor]] = []
    generator = torch.Generator().manual_seed(0)

    def put(parameter: nn.Parameter, value: Tensor) -> None:
        saved.append((parameter, parameter.data))
        parameter.data = value

    try:
        for a in assignments.values():
            beside = assignments[a.beside].role if a.beside else None
            shown = a.role in DOWN or a.role in (Role.ATTENTION_OUT, Role.UNEMBEDDING) or beside is Role.UNEMBEDDING
            parameter = model.get_parameter(a.name)
            coarse = parameter.is_floating_point() and torch.finfo(parameter.dtype).eps > _COARSE
            if shown and (coarse or not bool(parameter.any())):
                drawn = torch.randn(a.shape, generator=generator) * (a.fan_in or 1) ** -0.5
                put(parameter, drawn.to(parameter))
        for mixture in mixtures:
            if mixture.listed:
                first, *others = (model.get_submodule(name) for name in mixture.listed)
                alike = dict(first.named_parameters())
                for name, parameter in (pair for other in others for pair in other.named_parameters()):
                    if name in alike and alike[name].shape == parameter.shape:
                        put(parameter, alike[name].data)
            for a in mixture.tensors:
                parameter = model.get_parameter(a.name)
                one = parameter.data[: a.shape[0] // mixture.total]
                put(parameter, one.repeat(mixture.total, *[1] * (one.dim() - 1)))
        yield
    finally:
        for parameter, value in reversed(saved):
            parameter.data = value


def expert_outputs(
    model: nn.Module, mixture: Mixture, y_TD: Tensor, forms: Forms
) -> Iterator[tuple[Form | None, Tensor]]:
    """f(y) [T, D] in every form that it may have, on fewer tokens where the matrices are large."""
    if mixture.listed:
        made = model.get_submodule(mixture.listed[0])(y_TD)
        if isinstance(made, Tensor) and made.shape == y_TD.shape:
            yield None, made
        return
    by_role = {a.role: a for a in mixture.tensors if a.role in _MATRICES}
    down = by_role.get(Role.EXPERT_DOWN)
    inner = [by_role[r] for r in (Role.EXPERT_GATE, Role.EXPERT_UP) if r in by_role]
    if down is None or not inner or any(a.axes == "none" for a in (down, *inner)):
        return
    values = {
        a.name: model.get_parameter(a.name).detach()[: a.shape[0] // mixture.total].squeeze(0).double()
        for a in mixture.tensors
    }
    hidden = (down.fan_in or 0) // (1 if down.experts else mixture.total)
    wide = [(a.fan_out or 0) // (1 if a.experts else mixture.total) for a in inner]
    y_TD = y_TD[: max(8, _WORK // (y_TD.shape[1] * max(1, hidden)))].double()
    square = any(_is_square(model, a) for a in (down, *inner))
    for form in [*forms.known, *_forms(wide, hidden, square)]:
        gate, up = (inner[-1], inner[0]) if form.swapped else (inner[0], inner[-1])

        def part(a: Assignment, half: Half, across: bool = form.across) -> ExpertMatrix:
            biases = [b.name for b in mixture.tensors if b.beside == a.name]
            return ExpertMatrix(
                tensor=ExpertTensor(name=a.name, dim=0),
                transposed=(a.axes == "in_out") != (across and _is_square(model, a)),
                half=half,
                bias=ExpertTensor(name=biases[0], dim=0) if biases else None,
            )

        function = ExpertFunction(
            gate=part(gate, form.gate) if len(inner) == 2 or form.gate != "all" else None,
            up=part(up, form.up),
            down=part(down, "all"),
            activation=form.activation,
            clamp=_CLAMP if form.clamped else None,
        )
        yield form, function.outputs(model, values, y_TD, 1)[0]


def _forms(wide: Sequence[int], hidden: int, square: bool) -> Iterator[Form]:
    halves: tuple[tuple[Half, Half], ...] = _HALVES if wide == [2 * hidden] else (("all", "all"),)
    orders = (False, True) if len(wide) == 2 else (False,)
    ways = (False, True) if square else (False,)
    for activation, (gate, up), swapped, across in product(ACTIVATIONS, halves, orders, ways):
        yield Form(activation, gate, up, swapped, across, clamped=False)
    if wide != [hidden]:
        for (gate, up), swapped, across in product(halves, orders, ways):
            yield Form("sigmoid", gate, up, swapped, across, clamped=True)


def _is_square(model: nn.Module, a: Assignment) -> bool:
    """Whether either axis could be the one that it reads, and no module says which."""
    path, _, leaf = a.name.rpartition(".")
    said = getattr(model.get_submodule(path), "is_transposed", None) is not None or leaf == "weight"
    return a.fan_in == a.fan_out and not said


def _of_experts(a: Assignment, assignments: Mapping[str, Assignment]) -> bool:
    return a.role in _MATRICES or (a.beside is not None and assignments[a.beside].role in _MATRICES)


def _before_number(name: str) -> str | None:
    """What stands before the last number in a name: the list that it may be a part of."""
    parts = name.split(".")
    last = next((i for i in reversed(range(1, len(parts))) if parts[i].isdigit()), None)
    return None if last is None else ".".join(parts[:last])
