"""Layers of experts, made identical for one forward pass: the layer then shows one multiplier.

Experts can be a list of modules, stacks, or flat matrices, and the mixture may combine their outputs in any way. If
all experts are the same function f, the layer returns R A f(y) for every token, whichever experts are active, as long
as a token's weights have a constant sum. f(y) comes from the first expert's module, or is computed from its matrices
in every form that they allow.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from mue_check.audit.roles import Assignment
from mue_check.conformance.expert_function import ACTIVATIONS, HALVES, ExpertFunction, ExpertMatrix, Half
from mue_check.conformance.expert_weights import ExpertTensor
from mue_check.rules import Role
from mue_check.rules.roles import DOWN

_MATRICES = frozenset({Role.EXPERT_GATE, Role.EXPERT_UP, Role.EXPERT_DOWN})
_CLAMP = (1.702, 7.0)
"""gpt-oss's alpha and limit."""
_COARSE = 1e-4
"""In a dtype with a larger epsilon, rounding hides a branch of small weights: larger weights are drawn for it."""
_WORK = 2**30
"""Multiplications allowed per form: large matrices are tried on fewer tokens."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """One layer of ``total`` experts at ``path``: a list of modules (``listed``), or a few tensors."""

    path: str
    total: int
    listed: tuple[str, ...] = ()
    tensors: tuple[Assignment, ...] = ()

    @property
    def modules(self) -> tuple[str, ...]:
        """Modules of which at least one is called when the layer runs."""
        return (*(self.listed or (self.path,)), self.path.rpartition(".")[0])


@dataclass(frozen=True)
class ExpertForm:
    """How the matrices make an expert: which is gate and which up (or which halves of one), and the activation.

    ``swapped``: the second of two matrices is the gate. ``flipped``: square matrices are stored the other way.
    """

    activation: str
    gate: Half
    up: Half
    swapped: bool
    flipped: bool
    clamped: bool


def find_mixtures(model: nn.Module, assignments: Mapping[str, Assignment], total: int | None) -> list[Mixture]:
    """The layers of experts. ``total`` is N, without which flat matrices cannot be divided."""
    downs = [a for a in assignments.values() if a.role is Role.EXPERT_DOWN]
    lists = {path for a in downs for path in [_list_path(a.name)] if path is not None}
    for a in assignments.values():
        if not _of_experts(a, assignments):
            # a list of layers holds norms and attention too
            lists -= {a.name[:at] for at, sign in enumerate(a.name) if sign == "."}
    lists = {path for path in lists if isinstance(model.get_submodule(path), nn.ModuleList | nn.ModuleDict)}
    out: dict[str, Mixture] = {}
    for a in downs:
        path = _list_path(a.name)
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
def identical_experts(
    model: nn.Module, assignments: Mapping[str, Assignment], mixtures: Sequence[Mixture]
) -> Iterator[None]:
    """Make all experts of a layer equal for a while, and redraw weights that are 0 or too coarse to be seen."""
    saved: list[tuple[nn.Parameter, Tensor]] = []
    generator = torch.Generator().manual_seed(0)

    def put(parameter: nn.Parameter, value: Tensor) -> None:
        saved.append((parameter, parameter.data))
        parameter.data = value

    try:
        for a in assignments.values():
            of_readout = a.bias_of is not None and assignments[a.bias_of].role is Role.UNEMBEDDING
            parameter = model.get_parameter(a.name)
            coarse = parameter.is_floating_point() and torch.finfo(parameter.dtype).eps > _COARSE
            measured = a.role in DOWN | {Role.ATTENTION_OUT, Role.UNEMBEDDING} or of_readout
            if measured and (coarse or not bool(parameter.any())):
                drawn = torch.randn(a.shape, generator=generator, device="cpu") * (a.fan_in or 1) ** -0.5
                put(parameter, drawn.to(parameter))
        for mixture in mixtures:
            if mixture.listed:
                first, *others = (model.get_submodule(name) for name in mixture.listed)
                source = dict(first.named_parameters())
                for name, parameter in (pair for other in others for pair in other.named_parameters()):
                    if name in source and source[name].shape == parameter.shape:
                        put(parameter, source[name].data)
            for a in mixture.tensors:
                parameter = model.get_parameter(a.name)
                one = parameter.data[: a.shape[0] // mixture.total]
                put(parameter, one.repeat(mixture.total, *[1] * (one.dim() - 1)))
        yield
    finally:
        for parameter, value in reversed(saved):
            parameter.data = value


def expert_outputs(
    model: nn.Module, mixture: Mixture, y_TD: Tensor, known: Sequence[ExpertForm]
) -> Iterator[tuple[ExpertForm | None, Tensor]]:
    """f(y) [T, D] in every possible form, ``known`` forms first; fewer tokens if the matrices are large."""
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
    biases = {b.bias_of: ExpertTensor(name=b.name, dim=0) for b in reversed(mixture.tensors)}
    hidden = (down.fan_in or 0) // (1 if down.experts else mixture.total)
    widths = [(a.fan_out or 0) // (1 if a.experts else mixture.total) for a in inner]
    y_TD = y_TD[: max(8, _WORK // (y_TD.shape[1] * max(1, hidden)))].double()
    square = {a.name for a in (down, *inner) if _is_square(model, a)}

    def matrix(a: Assignment, half: Half, form: ExpertForm) -> ExpertMatrix:
        transposed = (a.axes == "in_out") != (form.flipped and a.name in square)
        tensor = ExpertTensor(name=a.name, dim=0)
        return ExpertMatrix(tensor=tensor, transposed=transposed, half=half, bias=biases.get(a.name))

    for form in [*known, *_possible_forms(widths, hidden, bool(square))]:
        gate, up = (inner[-1], inner[0]) if form.swapped else (inner[0], inner[-1])
        function = ExpertFunction(
            gate=matrix(gate, form.gate, form) if len(inner) == 2 or form.gate != "all" else None,
            up=matrix(up, form.up, form),
            down=matrix(down, "all", form),
            activation=form.activation,
            clamp=_CLAMP if form.clamped else None,
        )
        yield form, function.outputs(model, values, y_TD, 1)[0]


def _possible_forms(widths: Sequence[int], hidden: int, square: bool) -> Iterator[ExpertForm]:
    halves: tuple[tuple[Half, Half], ...] = HALVES if widths == [2 * hidden] else (("all", "all"),)
    swapped = (False, True) if len(widths) == 2 else (False,)
    flipped = (False, True) if square else (False,)
    for activation, (gate, up), swap, flip in product(ACTIVATIONS, halves, swapped, flipped):
        yield ExpertForm(activation, gate, up, swap, flip, clamped=False)
    if widths != [hidden]:
        for (gate, up), swap, flip in product(halves, swapped, flipped):
            yield ExpertForm("sigmoid", gate, up, swap, flip, clamped=True)


def _is_square(model: nn.Module, a: Assignment) -> bool:
    """Whether either axis could be the input, and the module does not say which."""
    stated = getattr(model.get_submodule(a.module), "is_transposed", None) is not None or a.name.endswith(".weight")
    return a.fan_in == a.fan_out and not stated


def _of_experts(a: Assignment, assignments: Mapping[str, Assignment]) -> bool:
    return a.role in _MATRICES or (a.bias_of is not None and assignments[a.bias_of].role in _MATRICES)


def _list_path(name: str) -> str | None:
    """The part before the last number in a name: the path of the list that it may belong to."""
    parts = name.split(".")
    last = next((i for i in reversed(range(1, len(parts))) if parts[i].isdigit()), None)
    return None if last is None else ".".join(parts[:last])
