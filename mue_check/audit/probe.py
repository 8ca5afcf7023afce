"""Measure a model's multipliers in one forward pass: compare each module's output with what reaches its consumer.

Residual branches: the inputs of two successive norms differ by what was added between them, and least squares gives
the multiplier of each branch's output. Routed experts are made identical, so that the mixture has one multiplier
(``mixtures``). Logits: what the model returns is compared with the unembedding's output, and its input with the final
norm's output. A multiplier inside a module is found by recomputing the output of its matrix.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mue_check.audit.forward_hooks import ForwardRecord, StreamSegment, recording
from mue_check.audit.least_squares import AGREEMENT, fit, fit_gated, rounding_error
from mue_check.audit.mixtures import ExpertForm, expert_outputs, find_mixtures, identical_experts
from mue_check.audit.restore import preserved_model
from mue_check.audit.roles import Assignment
from mue_check.audit.setup import uncompiled, unwrapped
from mue_check.plain import plain
from mue_check.rules import Role
from mue_check.spec import Experts, Scenario
from mue_check.user_code import describe_error

_NOTHING = 1e-3
"""Within rounding of 1 there is no multiplier."""
_ROWS = 64
"""The number of logits that are recomputed from the embedding."""
_SEQUENCES, _TOKENS = 4, 16


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What a forward pass shows.

    ``values``: multipliers by role. The router's is the sum of a token's weights, and a bias's is that of the
    unembedding's bias. ``routed``: the multiplier of the routed experts' outputs, weights included. ``partial``: roles
    whose module may hide a further multiplier. ``normed``: roles whose branches end in a norm. ``tied``: the embedding
    matrix makes the logits without a second name.
    """

    values: Mapping[Role, float] = field(default_factory=dict)
    routed: float | None = None
    partial: frozenset[Role] = frozenset()
    normed: frozenset[Role] = frozenset()
    tied: bool = False
    notes: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()


def probe_model(model: nn.Module, assignments: Mapping[str, Assignment], target: Scenario) -> ProbeResult:
    """Probe with random tokens; a note says so if the model cannot be run on them."""
    if any(p.is_meta for p in model.parameters()):
        return ProbeResult()
    tokens, ffn = random_tokens(model, assignments), target.model.feed_forward
    if tokens is None:
        return ProbeResult(notes=("no token embedding was found, so no forward pass was run to find multipliers",))
    try:
        with preserved_model(model), uncompiled():
            total = ffn.total if isinstance(ffn, Experts) else None
            return _Probe(model, assignments).run(lambda: unwrapped(model)(tokens), total)
    except Exception as error:
        # the model is the user's code and may need other arguments
        return ProbeResult(
            notes=(f"the forward pass on random tokens failed ({describe_error(error)}): no multiplier was measured",)
        )


def random_tokens(model: nn.Module, assignments: Mapping[str, Assignment]) -> Tensor | None:
    """Token ids [4, 16], or fewer if there are fewer positions; None without a token embedding."""
    table = next((a for a in assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)
    if table is None or len(table.shape) != 2:
        return None
    positions = [a.shape[0] for a in assignments.values() if a.role is Role.POSITION_EMBEDDING]
    size = (_SEQUENCES, min([_TOKENS, *positions]))
    tokens = torch.randint(table.shape[0], size, generator=torch.Generator().manual_seed(0), device="cpu")
    return tokens.to(model.get_parameter(table.name).device)


def logits_of(output: object) -> Tensor | None:
    """The logits in a model's output: ``logits``, or the first tensor of a tuple; None if there are none."""
    value: Any = getattr(output, "logits", output)
    if isinstance(value, Mapping):
        value = value.get("logits")
    if isinstance(value, tuple | list):
        value = next((v for v in value if isinstance(v, Tensor)), None)
    return plain(value) if isinstance(value, Tensor) and value.ndim >= 2 else None


class _Probe:
    """Multipliers so far, one per block (NaN if a mixture's was not found), and the range of gates."""

    def __init__(self, model: nn.Module, assignments: Mapping[str, Assignment]) -> None:
        self.model, self.assignments = model, assignments
        self.numbers: dict[Role, list[float]] = {}
        self.routed: list[float] = []
        self.gates: dict[Role, list[float]] = {}
        self.forms: list[ExpertForm] = []
        self.tied = False

    def run(self, forward: Callable[[], object], total: int | None) -> ProbeResult:
        """Call ``forward`` once; ``total`` is N, for experts in flat matrices."""
        mixtures = find_mixtures(self.model, self.assignments, total)
        with torch.no_grad(), identical_experts(self.model, self.assignments, mixtures):
            with recording(self.model, self.assignments, mixtures) as record:
                logits = logits_of(forward())
            starts = [None, *record.inputs]
            for before, after, segment in zip(starts, record.inputs, record.segments, strict=False):
                if before is None or before.shape == after.shape:
                    self._segment(segment, before, after)
            normed = record.segments[-1].normed
            if normed is not None and logits is not None:
                self._logits(record, normed, logits)
        return self._result(record)

    def _segment(self, segment: StreamSegment, before: Tensor | None, after: Tensor) -> None:
        """Split what was added between two norms into branches; the stream is empty before the first norm."""
        added, rounding = after.double() - (0 if before is None else before.double()), rounding_error(after)
        fitted = fit_gated(added, [b.value for b in segment.branches], rounding=rounding)
        for i, branch in enumerate(segment.branches if fitted else ()):
            assert fitted is not None
            self.numbers.setdefault(branch.role, []).append(fitted.multipliers[i])
            if i == fitted.gated:
                self.gates.setdefault(branch.role, []).extend(fitted.gates)
        if len(segment.mixtures) == 1 and segment.normed is not None and segment.normed.numel() == added.numel():
            self.routed.append(self._routed(segment, segment.normed, added, rounding))

    def _routed(self, segment: StreamSegment, normed: Tensor, added: Tensor, rounding: float) -> float:
        """The multiplier of f(y) in the output of identical experts; NaN if no form fits."""
        y_TD = normed.reshape(-1, normed.shape[-1])
        others = [b.value.reshape(y_TD.shape) for b in segment.branches if b.role is not Role.EXPERT_DOWN]
        best: tuple[float, float, ExpertForm | None] | None = None
        try:
            for form, output in expert_outputs(self.model, segment.mixtures[0], y_TD, self.forms):
                rows = len(output)
                terms = [output, *(other[:rows] for other in others)]
                fitted = fit_gated(added.reshape(y_TD.shape)[:rows], terms, rounding=rounding)
                # weights without a constant sum give the experts a different multiplier for each token
                if fitted is not None and fitted.gated != 0 and (best is None or fitted.residual < best[0]):
                    best = fitted.residual, fitted.multipliers[0], form
                if best is not None and form in self.forms:
                    break
        except Exception:  # an expert's module is the user's code and may need more than tokens
            best = None
        if best is None:
            return math.nan
        if best[2] is not None and best[2] not in self.forms:
            self.forms.append(best[2])
        return best[1]

    def _logits(self, record: ForwardRecord, normed: Tensor, logits: Tensor) -> None:
        """The multipliers of the logits before, inside and after the unembedding."""
        readout = record.readout
        if readout is None:
            self._logits_of_embedding(normed, logits)
            return
        if readout.output.numel() != logits.numel():
            return
        if readout.input.shape != normed.shape:
            # only the last position goes on to the logits
            if readout.input.ndim != 3 or normed.ndim != 3 or readout.input.shape[1] != 1:
                return
            normed = normed[:, -1:]
        before, after = fit(readout.input, [normed]), fit(logits, [readout.output])
        if before is not None and after is not None:
            self.numbers[Role.UNEMBEDDING] = [before.multipliers[0] * readout.multiplier * after.multipliers[0]]
            if readout.bias is not None:
                self.numbers[Role.BIAS] = [readout.bias * after.multipliers[0]]

    def _logits_of_embedding(self, normed: Tensor, logits: Tensor) -> None:
        """Logits made by the embedding matrix, without a module or a name of their own."""
        table = next((a for a in self.assignments.values() if a.role is Role.TOKEN_EMBEDDING), None)
        if table is None or any(Role.UNEMBEDDING in a.roles for a in self.assignments.values()):
            return
        weight = self.model.get_parameter(table.name).detach()
        if logits.shape[-1] != len(weight) or normed.shape[-1] != weight.shape[1]:
            return
        if logits.shape[:-1] != normed.shape[:-1] and normed.ndim == 3:
            normed = normed[:, -1:]
        if logits.shape[:-1].numel() != normed.shape[:-1].numel():
            return
        recomputed = normed.double() @ weight[:_ROWS].double().T
        fitted = fit(logits[..., :_ROWS].reshape(recomputed.shape), [recomputed])
        if fitted is not None:
            self.numbers[Role.UNEMBEDDING], self.tied = [fitted.multipliers[0]], True

    def _result(self, record: ForwardRecord) -> ProbeResult:
        notes, unjudged = [], []
        if record.weight_sums:
            sums = torch.cat(record.weight_sums)
            if float(sums.std()) <= AGREEMENT * float(sums.mean()):
                self.numbers[Role.ROUTER] = [float(sums.mean())]
            else:
                notes.append(
                    f"the weights of a token's active experts sum to {float(sums.min()):.3g} to "
                    f"{float(sums.max()):.3g}: the rule's R assumes a constant sum; `mue_check router` judges routers"
                )
        for role, gates in self.gates.items():
            notes.append(
                f"{role} has a different multiplier for each token, {min(gates):.3g} to {max(gates):.3g}: the rule "
                "has no such gate"
            )
        values: dict[Role | None, float] = {}
        every: list[tuple[Role | None, list[float]]] = [*self.numbers.items(), (None, self.routed)]
        for key, numbers in every:
            if not numbers or max(map(abs, numbers)) < _NOTHING**2 or any(map(math.isnan, numbers)):
                continue  # its output is part of another branch's, or is 0
            if max(numbers) - min(numbers) <= AGREEMENT * abs(numbers[0]) and min(numbers) > 0:
                mean = sum(numbers) / len(numbers)
                values[key] = 1.0 if abs(mean - 1) < _NOTHING else float(f"{mean:.5g}")
            else:
                unjudged.append(
                    f"{key or 'routed experts'}: blocks show different multipliers, {min(numbers):.4g} to "
                    f"{max(numbers):.4g}, and the rule has one for all"
                )
        return ProbeResult(
            values={role: value for role, value in values.items() if role is not None},
            routed=values.get(None),
            partial=frozenset({Role.ROUTER} | {a.role for a in self.assignments.values() if a.experts and a.role}),
            normed=frozenset(record.normed),
            tied=self.tied,
            notes=tuple(notes),
            unjudged=tuple(unjudged),
        )
