"""Initial values: what each parameter starts at against what it should, by matrix, by role and by expert of a stack."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from mue_check.audit.prescribed import Expected, ModelPrescription
from mue_check.audit.report import AuditFindings
from mue_check.audit.restore import preserved_model
from mue_check.audit.roles import Assignment, layer_of
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role
from mue_check.rules.roles import ROUTED, VECTORS

_FALSE_ALARMS = 1e-4
"""The chance that one audit of a correct model reports any init std, over all its comparisons."""


def judge_copies(model: nn.Module, assignments: Mapping[str, Assignment], found: AuditFindings) -> None:
    """Report layers whose experts all start with the same weights."""
    layers: dict[str, list[Tensor]] = {}
    for name, a in assignments.items():
        if a.role in ROUTED - {Role.ROUTER}:
            value = model.get_parameter(name).detach()
            layers.setdefault(layer_of(name), []).extend(value if a.experts else [value])
    for name, (first, *others) in layers.items():
        if others and bool(first.any()) and all(torch.equal(first, other) for other in others):
            found.add("expert_init", name, says=f"{1 + len(others)} experts start with the same weights")


@dataclass(frozen=True, kw_only=True)
class InitialValues:
    """RMS, mean, minimum and maximum of a parameter's entries, and the RMS of each expert of a stack."""

    rms: float
    mean: float
    least: float
    largest: float
    count: int
    experts: tuple[float, ...] = ()


def initial_gains(model: nn.Module, assignments: Mapping[str, Assignment]) -> dict[str, float]:
    """Name -> where a norm's gain should start: at 1, or at 0 if its module adds the 1 (Gemma, Qwen3-Next)."""
    gains = {name: a for name, a in assignments.items() if a.role is Role.NORM_GAIN}
    return {name: 0.0 if _adds_one(model, a) else 1.0 for name, a in gains.items()}


@torch.no_grad()
def _adds_one(model: nn.Module, a: Assignment) -> bool:
    """Whether the module's output is not 0 when all its parameters are."""
    module, gain = model.get_submodule(a.module), model.get_parameter(a.name)
    saved = [(p, p.data) for p in module.parameters(recurse=False)]
    if any(p.is_meta for p, _ in saved):
        return False
    x = torch.linspace(-1, 1, 4 * gain.numel(), dtype=gain.dtype, device=gain.device).reshape(4, -1)
    try:
        for p, value in saved:
            p.data = torch.zeros_like(value)
        with preserved_model(module):
            y = module(x)
    except Exception:  # the user's code, which may need other arguments
        return False
    finally:
        for p, value in saved:
            p.data = value
    return isinstance(y, Tensor) and bool(y.any())


def measure_initial(model: nn.Module, prescribed: ModelPrescription) -> dict[str, InitialValues]:
    """Name -> initial values, for every parameter with a role."""
    by_name = dict(model.named_parameters(remove_duplicate=False))
    out = {}
    for name in prescribed.expected:
        value = by_name[name].detach()
        out[name] = InitialValues(
            rms=_rms(value),
            mean=float(value.float().mean()),
            least=float(value.min()) if value.numel() else math.nan,
            largest=float(value.max()) if value.numel() else math.nan,
            count=value.numel(),
            experts=tuple(map(_rms, value)) if prescribed.assignments[name].experts else (),
        )
    return out


def judge_initial(
    prescribed: ModelPrescription,
    measured: Mapping[str, InitialValues],
    gains: Mapping[str, float],
    found: AuditFindings,
) -> None:
    """Report everything that does not start as prescribed. ``gains``: where each norm's gain should start.

    The tolerance is 2 % and as many standard errors as the number of comparisons needs.
    """
    drawn = {n: e for n, e in prescribed.expected.items() if e.role not in VECTORS and not e.conflict}
    comparisons = sum(2 + len(measured[n].experts) for n in drawn) + len({e.label for e in drawn.values()})
    errors = NormalDist().inv_cdf(1 - _FALSE_ALARMS / (2 * max(1, comparisons)))
    wrong: set[str] = set()
    for name, expected in prescribed.expected.items():
        if expected.role in VECTORS:
            _judge_constant(name, expected, measured[name], gains.get(name, 0.0), found)
        elif name in drawn and not _judge_matrix(name, expected, measured[name], errors, found):
            wrong.add(expected.label)
    for label in dict.fromkeys(e.label for e in drawn.values()):
        if label not in wrong:
            _judge_role(label, drawn, measured, errors, found)


def _judge_constant(name: str, expected: Expected, measured: InitialValues, start: float, found: AuditFindings) -> None:
    worst = max(measured.least, measured.largest, key=lambda entry: abs(entry - start))
    if abs(worst - start) > 1e-6:
        says = f"an entry that should start at {start:g}"
        found.add("init_std", name, expected.label, says, measured=worst, prescribed=start)


def _judge_matrix(name: str, expected: Expected, measured: InitialValues, errors: float, found: AuditFindings) -> bool:
    """Report a matrix, or a minority of the experts in a stack; True if all is as prescribed."""
    std, label, stack = expected.row.init_std, expected.label, measured.experts
    odd = [i for i, rms in enumerate(stack) if not _agrees(rms, std, measured.count // len(stack), errors)]
    if odd and 2 * len(odd) < len(stack):
        worst = max(odd, key=lambda i: abs(math.log(max(stack[i], 1e-300) / std)))
        says = f"expert {worst}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "") + ", unlike the others"
        found.add("expert_init", name, label, says, measured=stack[worst], prescribed=std)
    elif _agrees(measured.rms, std, measured.count, errors) and not odd:
        if abs(measured.mean) <= (RELATIVE_TOLERANCE + errors / math.sqrt(measured.count)) * std:
            return True
        found.add("init_mean", name, label, measured=measured.mean, prescribed=0.0)
    elif measured.rms == 0 and expected.role is Role.ROUTER:
        says = "starts at 0, so all logits tie and every token goes to the same experts"
        found.add("router_zero", name, label, says, measured=0.0, prescribed=std)
    else:
        found.add("init_std", name, label, measured=measured.rms, prescribed=std)
    return False


def _judge_role(
    label: str,
    drawn: Mapping[str, Expected],
    measured: Mapping[str, InitialValues],
    errors: float,
    found: AuditFindings,
) -> None:
    """All matrices of a role together show a difference of a few percent that no small matrix shows alone."""
    names = [n for n, e in drawn.items() if e.label == label]
    # relative to each matrix's own std: dense layers of several widths have several
    squares = [(measured[n].rms / drawn[n].row.init_std) ** 2 * measured[n].count for n in names]
    total = sum(measured[n].count for n in names)
    ratio = math.sqrt(sum(squares) / total)
    if len(names) > 1 and not _agrees(ratio, 1.0, total, errors):
        std = drawn[names[0]].row.init_std
        says = f"over all {len(names)} together"
        found.add("init_std", names[0], label, says, measured=ratio * std, prescribed=std)


def _agrees(measured: float, prescribed: float, count: int, errors: float) -> bool:
    # the RMS of n normal numbers has a relative standard error of 1 / sqrt(2 n)
    return math.isclose(measured, prescribed, rel_tol=RELATIVE_TOLERANCE + errors / math.sqrt(2 * max(1, count)))


def _rms(value: Tensor) -> float:
    if not value.numel():
        return math.nan
    wide = torch.float32 if value.device.type == "mps" else torch.float64
    return float(torch.linalg.vector_norm(value.detach(), dtype=wide)) / math.sqrt(value.numel())
