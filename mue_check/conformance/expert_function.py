"""What one expert computes: every form that its weights allow, such as SwiGLU with gate and up in one tensor.

A form is compared with what each expert was observed to add to the output, in direction only; checks judge the scale.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations, product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mue_check.conformance.expert_weights import ExpertTensor, Values
from mue_check.errors import ClaimError
from mue_check.plain import plain
from mue_check.routing.claim import ExpertLayout

Half = Literal["all", "first", "second", "even", "odd"]
Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: dict[str, Activation] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "tanh": torch.tanh,
    "identity": lambda x: x,
}
HALVES: tuple[tuple[Half, Half], ...] = (("first", "second"), ("second", "first"), ("even", "odd"), ("odd", "even"))
"""Which rows of a fused tensor are gate and which are up."""


@dataclass(frozen=True, kw_only=True)
class ExpertMatrix:
    """One matrix of every expert: some output rows of a tensor, ``transposed`` if that is stored as [in, out]."""

    tensor: ExpertTensor
    transposed: bool = False
    half: Half = "all"
    bias: ExpertTensor | None = None

    def matrix(self, values: Values, experts: int) -> Tensor:
        """[E, out, in]."""
        whole = self.tensor.stack(values, experts)
        return self._rows(whole.transpose(1, 2) if self.transposed else whole)

    def __call__(self, values: Values, x: Tensor, experts: int) -> Tensor:
        """[E, T, out] for x [T, in] or [E, T, in]."""
        y = x @ self.matrix(values, experts).transpose(1, 2)
        return y if self.bias is None else y + self._rows(self.bias.stack(values, experts)).unsqueeze(1)

    def _rows(self, whole: Tensor) -> Tensor:
        middle = whole.shape[1] // 2
        rows = {
            "first": slice(0, middle),
            "second": slice(middle, None),
            "even": slice(0, None, 2),
            "odd": slice(1, None, 2),
        }
        return whole[:, rows[self.half]] if self.half in rows else whole

    def __str__(self) -> str:
        return self.tensor.name + ("" if self.half == "all" else f" ({self.half} half)")


@dataclass(frozen=True, kw_only=True)
class ExpertFunction:
    """down(activation(gate x) * up x), or down(activation(up x)) without a gate.

    ``clamp`` is gpt-oss's (alpha, limit): gate * sigmoid(alpha * gate) * (up + 1) on values clamped at the limit.
    Without ``parts`` the experts' own modules are called: ``called`` is their name, with {} for the expert.
    """

    up: ExpertMatrix | None = None
    gate: ExpertMatrix | None = None
    down: ExpertMatrix | None = None
    activation: str = "silu"
    clamp: tuple[float, float] | None = None
    called: str = ""

    @property
    def parts(self) -> dict[str, ExpertMatrix]:
        """The matrices by role; empty where only the modules can be called."""
        named = {"gate": self.gate, "up": self.up, "down": self.down}
        return {name: part for name, part in named.items() if part is not None}

    def outputs(self, module: nn.Module, values: Values, x: Tensor, experts: int) -> Tensor:
        """[E, T, D]: f_e(x) for x [T, D], or for each expert's own x [E, T, D]."""
        if self.up is None or self.down is None:
            return torch.stack([self._call(module, values, x[e] if x.dim() == 3 else x, e) for e in range(experts)])
        up = self.up(values, x, experts)
        if self.gate is None:
            hidden = self._activate(up)
        elif self.clamp is None:
            hidden = self._activate(self.gate(values, x, experts)) * up
        else:
            alpha, limit = self.clamp
            gate = self.gate(values, x, experts).clamp(max=limit)
            hidden = gate * torch.sigmoid(alpha * gate) * (up.clamp(-limit, limit) + 1)
        return self.down(values, hidden, experts)

    def _activate(self, x: Tensor) -> Tensor:
        known = ACTIVATIONS.get(self.activation)
        return (getattr(F, self.activation) if known is None else known)(x)

    def _call(self, module: nn.Module, values: Values, x: Tensor, expert: int) -> Tensor:
        name = self.called.replace("{}", str(expert))
        own = {n.removeprefix(name + "."): v for n, v in values.items() if n.startswith(name + ".")}
        y = functional_call(module.get_submodule(name), own, (x,))
        if not isinstance(y, Tensor) or y.shape != x.shape:
            raise ClaimError(f"{name} does not map tokens [T, D] to [T, D]")
        return plain(y)

    def __str__(self) -> str:
        if not self.parts:
            return f"the modules {self.called}"
        activation = "clamped swiglu" if self.clamp else self.activation
        return f"{activation}, {', '.join(f'{name} in {part}' for name, part in self.parts.items())}"


_Roles = tuple[ExpertMatrix | None, ExpertMatrix, ExpertMatrix]
"""Gate, up and down."""


def direction_error(observed: Tensor, computed: Tensor) -> float:
    """Largest relative part of an expert's observed output [E, T, D] that is not parallel to the computed one."""
    size = observed.norm(dim=-1)
    met = size > 1e-4 * size.max()
    observed, computed, size = observed[met], computed[met], size[met]
    scale = (observed * computed).sum(-1) / (computed * computed).sum(-1).clamp_min(1e-30)
    rest = ((observed - scale.unsqueeze(-1) * computed).norm(dim=-1) / size).nan_to_num(nan=1.0)
    return float(rest.max()) if len(rest) else 1.0


def possible_functions(
    module: nn.Module,
    values: Values,
    tensors: Sequence[ExpertTensor],
    experts: int,
    width: int,
    declared: ExpertLayout | None,
) -> Iterator[ExpertFunction]:
    """Every function that the shapes of the experts' tensors allow, or that a declaration leaves open."""
    stacks = {t: t.stack(values, experts) for t in tensors}
    vectors = [t for t, stack in stacks.items() if stack.dim() == 2]
    matrices = {t: stack for t, stack in stacks.items() if stack.dim() == 3}
    for gate, up, down in _declared_roles(tensors, declared) if declared else _possible_roles(matrices, width):
        inner = [up] if gate is None or gate.tensor == up.tensor else [gate, up]
        for *inner_biases, down_bias in product([None, *vectors], repeat=len(inner) + 1):
            used = [b for b in (*inner_biases, down_bias) if b is not None]
            if len(used) != len(vectors) or set(used) != set(vectors):
                continue  # every bias is used exactly once
            pairs = zip((*inner, down), (*inner_biases, down_bias), strict=True)
            if any(b is not None and stacks[b].shape[1] != _sizes(matrix, stacks)[0] for matrix, b in pairs):
                continue
            up_b, down_b = replace(up, bias=inner_biases[-1]), replace(down, bias=down_bias)
            gate_b = None if gate is None else replace(gate, bias=inner_biases[0])
            for name in [declared.activation] if declared else ACTIVATIONS:
                yield ExpertFunction(up=up_b, gate=gate_b, down=down_b, activation=name)
            if gate is not None and not declared:
                yield ExpertFunction(up=up_b, gate=gate_b, down=down_b, clamp=_clamp_constants(module))


def _possible_roles(matrices: Mapping[ExpertTensor, Tensor], width: int) -> Iterator[_Roles]:
    """(gate, up, down) in every order and orientation in which the sizes match."""
    if len(matrices) not in (2, 3):
        return
    for order in permutations(matrices):
        for orientations in product((False, True), repeat=len(order)):
            *inner, down = (
                ExpertMatrix(tensor=t, transposed=transposed) for t, transposed in zip(order, orientations, strict=True)
            )
            out, hidden = _sizes(down, matrices)
            if out != width or any(_sizes(matrix, matrices)[1] != width for matrix in inner):
                continue
            outs = [_sizes(matrix, matrices)[0] for matrix in inner]
            if outs == [hidden, hidden]:
                yield inner[0], inner[1], down
            elif outs == [hidden]:
                yield None, inner[0], down
            elif outs == [2 * hidden]:
                for gate, up in HALVES:
                    yield replace(inner[0], half=gate), replace(inner[0], half=up), down


def _declared_roles(tensors: Sequence[ExpertTensor], experts: ExpertLayout) -> Iterator[_Roles]:
    by_name = {t.name: t for t in tensors}
    for name in (experts.up, experts.down, experts.gate):
        if name is not None and name not in by_name:
            raise ClaimError(f"the claim names {name!r} as experts' weights; found were {', '.join(by_name)}")
    if experts.activation not in ACTIVATIONS and not hasattr(F, experts.activation):
        raise ClaimError(f"torch.nn.functional has no {experts.activation!r}, which the claim names as activation")

    def matrix(name: str) -> ExpertMatrix:
        return ExpertMatrix(tensor=by_name[name], transposed=experts.axes == "in_out")

    up, down = matrix(experts.up), matrix(experts.down)
    if experts.fused == "none":
        yield None if experts.gate is None else matrix(experts.gate), up, down
    else:
        gate_half, up_half = HALVES[0 if experts.fused == "concatenated" else 2]
        yield replace(up, half=gate_half), replace(up, half=up_half), down


def _sizes(matrix: ExpertMatrix, stacks: Mapping[ExpertTensor, Tensor]) -> tuple[int, int]:
    """(out, in) of the whole tensor that holds a matrix."""
    _, first, second = stacks[matrix.tensor].shape
    return (second, first) if matrix.transposed else (first, second)


def _clamp_constants(module: nn.Module) -> tuple[float, float]:
    """gpt-oss's alpha and limit: those that some part of the block has as attributes, or the published ones."""

    def constant(name: str, published: float) -> float:
        own = (getattr(m, key, None) for m in module.modules() for key in (name, f"swiglu_{name}"))
        return next((float(value) for value in own if isinstance(value, int | float)), published)

    return constant("alpha", 1.702), constant("limit", 7.0)
