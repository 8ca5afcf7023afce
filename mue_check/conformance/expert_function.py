"""What one expert computes: the form that gives what each was seen to add, in direction; scale is for checks to judge.

Forms are tried one after the other: which matrix is gate, up and down, how they lie, and which activation bends them.
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

from mue_check.conformance.experts import Values, Weights
from mue_check.errors import ClaimError
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
_HALVES: tuple[tuple[Half, Half], ...] = (("first", "second"), ("second", "first"), ("even", "odd"), ("odd", "even"))
"""Where gate and up lie in one tensor."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One matrix of every expert: ``half`` of the output rows of a tensor, ``transposed`` where it lies [in, out]."""

    weights: Weights
    transposed: bool = False
    half: Half = "all"
    bias: Weights | None = None

    def matrix(self, values: Values, experts: int) -> Tensor:
        """[E, out, in]."""
        whole = self.weights.stack(values, experts)
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
        return self.weights.name + ("" if self.half == "all" else f" ({self.half} half)")


@dataclass(frozen=True, kw_only=True)
class Function:
    """down(activation(gate x) * up x), or down(activation(up x)) without a gate.

    ``clamp`` is gpt-oss's (alpha, limit): gate * sigmoid(alpha * gate) * (up + 1) on values cut at the limit. Without
    ``parts`` the experts' own modules are called, those of the list ``called``.
    """

    up: Part | None = None
    gate: Part | None = None
    down: Part | None = None
    activation: str = "silu"
    clamp: tuple[float, float] | None = None
    called: str = ""

    @property
    def parts(self) -> dict[str, Part]:
        """The matrices by what they do; empty where only the modules can be called."""
        named = {"gate": self.gate, "up": self.up, "down": self.down}
        return {name: part for name, part in named.items() if part is not None}

    def outputs(self, module: nn.Module, values: Values, x: Tensor, experts: int) -> Tensor:
        """[E, T, D]: f_e(x) for x [T, D], or for each expert's own x [E, T, D]."""
        if self.up is None or self.down is None:
            return torch.stack([self._call(module, values, x[e] if x.dim() == 3 else x, e) for e in range(experts)])
        up = self.up(values, x, experts)
        if self.gate is None:
            hidden = self._bend(up)
        elif self.clamp is None:
            hidden = self._bend(self.gate(values, x, experts)) * up
        else:
            alpha, limit = self.clamp
            gate = self.gate(values, x, experts).clamp(max=limit)
            hidden = gate * torch.sigmoid(alpha * gate) * (up.clamp(-limit, limit) + 1)
        return self.down(values, hidden, experts)

    def _bend(self, x: Tensor) -> Tensor:
        known = ACTIVATIONS.get(self.activation)
        return (getattr(F, self.activation) if known is None else known)(x)

    def _call(self, module: nn.Module, values: Values, x: Tensor, expert: int) -> Tensor:
        name = self.called.replace("{}", str(expert))
        own = {n.removeprefix(name + "."): v for n, v in values.items() if n.startswith(name + ".")}
        y = functional_call(module.get_submodule(name), own, (x,))
        if not isinstance(y, Tensor) or y.shape != x.shape:
            raise ClaimError(f"{name} does not take tokens [T, D] to [T, D]")
        return y

    def __str__(self) -> str:
        if not self.parts:
            return f"the modules {self.called}"
        bent = "clamped swiglu" if self.clamp else self.activation
        return f"{bent}, {', '.join(f'{name} in {part}' for name, part in self.parts.items())}"


def direction_error(seen: Tensor, made: Tensor) -> float:
    """Largest part of what an expert was seen to add to a token, [E, T, D], that is no multiple of ``made``."""
    size = seen.norm(dim=-1)
    met = size > 1e-4 * size.max()
    seen, made, size = seen[met], made[met], size[met]
    along = (seen * made).sum(-1) / (made * made).sum(-1).clamp_min(1e-30)
    left = ((seen - along.unsqueeze(-1) * made).norm(dim=-1) / size).nan_to_num(nan=1.0)
    return float(left.max()) if len(left) else 1.0


def forms(
    module: nn.Module,
    values: Values,
    weights: Sequence[Weights],
    experts: int,
    width: int,
    declared: ExpertLayout | None,
) -> Iterator[Function]:
    """Every form that the shapes of the experts' tensors allow; with a declaration, what it leaves open."""
    stacks = {w: w.stack(values, experts) for w in weights}
    vectors = [w for w, stack in stacks.items() if stack.dim() == 2]
    matrices = {w: stack for w, stack in stacks.items() if stack.dim() == 3}
    for gate, up, down in _declared(weights, declared) if declared else _assigned(matrices, width):
        inner = [up] if gate is None or gate.weights == up.weights else [gate, up]
        for *b_inner, b_down in product([None, *vectors], repeat=len(inner) + 1):
            used = [b for b in (*b_inner, b_down) if b is not None]
            if len(used) != len(vectors) or set(used) != set(vectors):
                continue  # each takes part, once
            biased = [(part, b) for part, b in zip((*inner, down), (*b_inner, b_down), strict=True) if b is not None]
            if any(stacks[b].shape[1] != _sizes(part, stacks)[0] for part, b in biased):
                continue
            new_up, new_down = replace(up, bias=b_inner[-1]), replace(down, bias=b_down)
            new_gate = None if gate is None else replace(gate, bias=b_inner[0])
            for name in [declared.activation] if declared else ACTIVATIONS:
                yield Function(up=new_up, gate=new_gate, down=new_down, activation=name)
            if gate is not None and not declared:
                yield Function(up=new_up, gate=new_gate, down=new_down, clamp=_clamp(module))


def _assigned(matrices: Mapping[Weights, Tensor], width: int) -> Iterator[tuple[Part | None, Part, Part]]:
    """(gate, up, down) in every way in which the sizes meet."""
    if len(matrices) not in (2, 3):
        return
    for order in permutations(matrices):
        for across in product((False, True), repeat=len(order)):
            *inner, down = (Part(weights=w, transposed=t) for w, t in zip(order, across, strict=True))
            out, hidden = _sizes(down, matrices)
            if out != width or any(_sizes(part, matrices)[1] != width for part in inner):
                continue
            outs = [_sizes(part, matrices)[0] for part in inner]
            if outs == [hidden, hidden]:
                yield inner[0], inner[1], down
            elif outs == [hidden]:
                yield None, inner[0], down
            elif outs == [2 * hidden]:
                for gate, up in _HALVES:
                    yield replace(inner[0], half=gate), replace(inner[0], half=up), down


def _declared(weights: Sequence[Weights], experts: ExpertLayout) -> Iterator[tuple[Part | None, Part, Part]]:
    by_name = {w.name: w for w in weights}
    for name in (experts.up, experts.down, experts.gate):
        if name is not None and name not in by_name:
            raise ClaimError(
                f"the claim names {name!r}, which holds no experts' weights; those are {', '.join(by_name)}"
            )
    if experts.activation not in ACTIVATIONS and not hasattr(F, experts.activation):
        raise ClaimError(f"torch.nn.functional has no {experts.activation!r}, which the claim names as activation")
    across = experts.axes == "in_out"
    up = Part(weights=by_name[experts.up], transposed=across)
    down = Part(weights=by_name[experts.down], transposed=across)
    if experts.fused == "none":
        yield None if experts.gate is None else Part(weights=by_name[experts.gate], transposed=across), up, down
    else:
        gate_half, up_half = _HALVES[0 if experts.fused == "concatenated" else 2]
        yield replace(up, half=gate_half), replace(up, half=up_half), down


def _sizes(part: Part, stacks: Mapping[Weights, Tensor]) -> tuple[int, int]:
    """(out, in) of the whole tensor that a part is of."""
    _, first, second = stacks[part.weights].shape
    return (second, first) if part.transposed else (first, second)


def _clamp(module: nn.Module) -> tuple[float, float]:
    """gpt-oss's constants, where a part of the block carries them, else as published."""
    found = {}
    for name, published in (("alpha", 1.702), ("limit", 7.0)):
        carried = [getattr(m, key, None) for m in module.modules() for key in (name, f"swiglu_{name}")]
        found[name] = next((float(v) for v in carried if isinstance(v, int | float)), published)
    return found["alpha"], found["limit"]
