"""Record one forward pass by hooks: norms, branches, readout and the weights of experts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.least_squares import fit
from mue_check.audit.mixtures import Mixture
from mue_check.audit.roles import Assignment, width_of
from mue_check.plain import plain
from mue_check.rules import Role
from mue_check.rules.roles import DOWN, EMBEDDINGS

_BRANCH_ENDS = DOWN | {Role.ATTENTION_OUT}
_FEW = 16
"""The number of a matrix's outputs that are recomputed."""


@dataclass(frozen=True)
class BranchOutput:
    """The output of a module on its way to the residual stream, and the multiplier inside that module."""

    role: Role
    output: Tensor
    multiplier: float = 1.0

    @property
    def value(self) -> Tensor:
        """The output of the matrix alone."""
        return self.output if self.multiplier == 1 else self.output / self.multiplier


@dataclass(kw_only=True)
class StreamSegment:
    """What ran between two norms of the residual stream. ``normed`` is the output of the first."""

    normed: Tensor | None = None
    branches: list[BranchOutput] = field(default_factory=list)
    mixtures: list[Mixture] = field(default_factory=list)


@dataclass(frozen=True)
class ReadoutRecord:
    """Input and output of the unembedding, and the multipliers of its matrix and its bias inside the module."""

    input: Tensor
    output: Tensor
    multiplier: float
    bias: float | None


@dataclass(kw_only=True)
class ForwardRecord:
    """One forward pass. ``inputs`` are the norms' inputs; ``normed`` are roles whose branches end in a norm."""

    inputs: list[Tensor] = field(default_factory=list)
    segments: list[StreamSegment] = field(default_factory=lambda: [StreamSegment()])
    normed: set[Role] = field(default_factory=set)
    readout: ReadoutRecord | None = None
    weight_sums: list[Tensor] = field(default_factory=list)

    def on_norm(self, x: Tensor, y: Tensor) -> None:
        """A norm after a branch ends the branch. Any other begins a segment, unless two norms read the same stream."""
        branches = self.segments[-1].branches
        for i, branch in enumerate(branches):
            if branch.role in _BRANCH_ENDS and branch.output.shape == x.shape and torch.equal(branch.output, x):
                branches[i] = replace(branch, output=y, multiplier=1.0)
                self.normed.add(branch.role)
                return
        if self.inputs and self.inputs[-1].shape == x.shape and torch.equal(self.inputs[-1], x):
            self.segments[-1].normed = y
            return
        self.inputs.append(x)
        self.segments.append(StreamSegment(normed=y))

    def on_branch(self, module: nn.Module, a: Assignment, x: Tensor, y: Tensor) -> None:
        """The module of a matrix that adds to the residual stream."""
        assert a.role is not None
        if y.is_floating_point():
            leaf = a.name.rpartition(".")[2]
            multiplier = 1.0 if a.experts else _inner_multipliers(module, a.axes, leaf, x, y)[0]
            self.segments[-1].branches.append(BranchOutput(a.role, y, multiplier))

    def on_readout(self, module: nn.Module, x: Tensor, y: Tensor) -> None:
        """The module of the unembedding."""
        multiplier, *bias = _inner_multipliers(module, "out_in", "weight", x, y)
        self.readout = ReadoutRecord(x, y, multiplier, bias[0] if bias else None)

    def on_experts(self, inputs: Sequence[object], total: int) -> None:
        """The module of a stack of experts: its inputs may include the weights of each token's experts."""
        for value in inputs:
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim == 2:
                rows = value.detach().double()
                if rows.shape[1] <= total and bool((rows >= 0).all()):
                    self.weight_sums.append(rows.sum(1))

    def on_mixture(self, mixture: Mixture, inputs: Sequence[object]) -> None:
        """A layer of experts is about to run."""
        if mixture not in self.segments[-1].mixtures:
            self.segments[-1].mixtures.append(mixture)


@contextmanager
def recording(
    model: nn.Module, assignments: Mapping[str, Assignment], mixtures: Sequence[Mixture]
) -> Iterator[ForwardRecord]:
    """Record forward passes while the context lasts."""
    record, handles, width = ForwardRecord(), [], width_of(assignments)
    attention = tuple(
        a.name.removesuffix(".weight").rpartition(".")[0] + "."
        for a in assignments.values()
        if a.role is Role.ATTENTION_QKV
    )

    def after(module: nn.Module, event: Callable[[Tensor, Tensor], None]) -> None:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
            x, y = _main_input((*args, *kwargs.values())), _main_output(output)
            if x is not None and y is not None:
                # clones, because the model may change them in place
                event(x.detach().clone(), y.detach().clone())

        handles.append(module.register_forward_hook(hook, with_kwargs=True))

    def before(module: nn.Module, event: Callable[[Sequence[object]], None]) -> None:
        def hook(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
            event((*args, *kwargs.values()))

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        for mixture in mixtures:
            for path in mixture.modules:
                before(model.get_submodule(path), partial(record.on_mixture, mixture))
        for a in assignments.values():
            module = model.get_submodule(a.module)
            if a.role is Role.NORM_GAIN and a.shape == (width,) and not a.module.startswith(attention):
                after(module, record.on_norm)
            elif a.role in EMBEDDINGS or (a.role in _BRANCH_ENDS and (a.role is not Role.EXPERT_DOWN or a.experts)):
                after(module, partial(record.on_branch, module, a))
                if a.role is Role.EXPERT_DOWN and a.experts:
                    before(module, partial(record.on_experts, total=a.experts))
            if Role.UNEMBEDDING in a.roles:
                readout = _readout_module(model, a)
                if readout is not None:
                    after(readout, partial(record.on_readout, readout))
        for path, module in model.named_modules():
            # norms without a gain have no parameter with a role
            plain = "norm" in type(module).__name__.lower() and not any(True for _ in module.parameters())
            if plain and not path.startswith(attention):
                after(module, record.on_norm)
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _inner_multipliers(module: nn.Module, axes: str, leaf: str, x: Tensor, y: Tensor) -> list[float]:
    """The multiplier that a module applies to its matrix, and to its bias if it has one; [1.0] if it cannot be found.

    A few outputs are recomputed from the module's input.
    """
    weight, bias = getattr(module, leaf, None), getattr(module, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return [1.0]
    if not x.is_floating_point():
        looked_up = F.embedding(x.reshape(-1)[:_FEW], weight).double()
        actual = y.reshape(-1, y.shape[-1])[:_FEW]
        found = fit(actual, [looked_up]) if actual.shape == looked_up.shape else None
    else:
        matrix = weight.T if axes == "in_out" else weight
        if x.shape[-1] != matrix.shape[1] or y.shape[-1] != matrix.shape[0] or x.shape[:-1] != y.shape[:-1]:
            return [1.0]
        terms = [x.double() @ matrix[:_FEW].double().T]
        if isinstance(bias, Tensor) and bool(bias[:_FEW].any()):
            terms.append(bias[:_FEW].double())
        found = fit(y[..., :_FEW], terms)
    # within rounding of 1 there is no multiplier
    return [1.0] if found is None else [1.0 if abs(m - 1) < 1e-3 else m for m in found.multipliers]


def _readout_module(model: nn.Module, a: Assignment) -> nn.Module | None:
    """The module that holds the unembedding; a tied matrix is also held by the lookup."""
    weight = model.get_parameter(a.name)
    for module in model.modules():
        if not isinstance(module, nn.Embedding) and getattr(module, "weight", None) is weight:
            return module
    return None


def _main_input(values: tuple[object, ...]) -> Tensor | None:
    """The first tensor of floating-point numbers among a module's inputs, or else of token ids."""
    tensors = [plain(v) for v in values if isinstance(v, Tensor)]
    return next((t for t in tensors if t.is_floating_point()), tensors[0] if tensors else None)


def _main_output(output: object) -> Tensor | None:
    value = output[0] if isinstance(output, tuple | list) and output else output
    return plain(value) if isinstance(value, Tensor) else None
