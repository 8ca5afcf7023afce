"""Initial values against the prescribed ones: whole matrices, all of a role together, and each expert of a stack."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn

from mue_check.audit.prescribed import Prescribed, Slot
from mue_check.audit.report import Offence
from mue_check.judge.audit import RELATIVE_TOLERANCE
from mue_check.rules import Role
from mue_check.rules.roles import VECTORS

_FALSE_ALARMS = 1e-4
"""How often one audit of a right model may accuse some matrix of it, over all comparisons together."""


@dataclass(frozen=True, kw_only=True)
class Initial:
    """Root mean square of a parameter's entries, least and largest entry, and the RMS of each expert of a stack."""

    rms: float
    least: float
    largest: float
    numbers: int
    experts: tuple[float, ...] = ()


def measure_initial(model: nn.Module, prescribed: Prescribed) -> dict[str, Initial]:
    """Name -> Initial, for every parameter with a role."""
    by_name = dict(model.named_parameters(remove_duplicate=False))
    out = {}
    for name in prescribed.slots:
        value = by_name[name].detach()
        stack = prescribed.assignments[name].experts
        out[name] = Initial(
            rms=_rms(value),
            least=float(value.min()) if value.numel() else math.nan,
            largest=float(value.max()) if value.numel() else math.nan,
            numbers=value.numel(),
            experts=tuple(_rms(one) for one in value) if stack else (),
        )
    return out


def judge_initial(
    prescribed: Prescribed, measured: Mapping[str, Initial], gains: Mapping[str, float]
) -> Iterator[Offence]:
    """Everything that does not start as prescribed; standard errors widen with the number of comparisons.

    ``gains``: what each norm's gain starts at.
    """
    drawn = {n: s for n, s in prescribed.slots.items() if s.role not in VECTORS and not s.conflict}
    comparisons = sum(1 + len(measured[n].experts) for n in drawn) + len({s.label for s in drawn.values()})
    errors = NormalDist().inv_cdf(1 - _FALSE_ALARMS / (2 * max(1, comparisons)))
    accused: set[str] = set()
    for name, slot in prescribed.slots.items():
        found = measured[name]
        if slot.role in VECTORS:
            yield from _constant(name, slot, found, gains.get(name, 0.0))
        elif name in drawn:
            offence = _matrix(name, slot, found, errors)
            if offence is not None:
                accused.add(slot.label)
                yield offence
    for label in dict.fromkeys(s.label for s in drawn.values()):
        if label not in accused:
            yield from _together(label, drawn, measured, errors)


def _constant(name: str, slot: Slot, found: Initial, start: float) -> Iterator[Offence]:
    worst = max(found.least, found.largest, key=lambda entry: abs(entry - start))
    if abs(worst - start) > 1e-6:
        says = f"an entry that should start at {start:g}"
        yield Offence(check="init_std", parameter=name, role=slot.label, measured=worst, prescribed=start, says=says)


def _matrix(name: str, slot: Slot, found: Initial, errors: float) -> Offence | None:
    std = slot.row.init_std
    odd = [
        i for i, rms in enumerate(found.experts) if not _agrees(rms, std, found.numbers // len(found.experts), errors)
    ]
    if odd and 2 * len(odd) < len(found.experts):
        worst = max(odd, key=lambda i: abs(math.log(max(found.experts[i], 1e-300) / std)))
        return Offence(
            check="expert_init",
            parameter=name,
            role=slot.label,
            measured=found.experts[worst],
            prescribed=std,
            says=f"expert {worst}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else "") + ", unlike the others",
        )
    if _agrees(found.rms, std, found.numbers, errors) and not odd:
        return None
    if found.rms == 0 and slot.role is Role.ROUTER:
        return Offence(
            check="router_zero",
            parameter=name,
            role=slot.label,
            measured=0.0,
            prescribed=std,
            says="starts at 0, so all logits tie: every token takes the same experts",
        )
    return Offence(check="init_std", parameter=name, role=slot.label, measured=found.rms, prescribed=std)


def _together(
    label: str, drawn: Mapping[str, Slot], measured: Mapping[str, Initial], errors: float
) -> Iterator[Offence]:
    """All matrices of a slot as one: sees a few per cent that no single small matrix shows."""
    names = [n for n, s in drawn.items() if s.label == label]
    # dense layers of several widths have several stds: each is taken over its own
    relative = [(measured[n].rms / drawn[n].row.init_std) ** 2 * measured[n].numbers for n in names]
    total = sum(measured[n].numbers for n in names)
    ratio = math.sqrt(sum(relative) / total)
    if len(names) > 1 and not _agrees(ratio, 1.0, total, errors):
        std = drawn[names[0]].row.init_std
        yield Offence(
            check="init_std",
            parameter=names[0],
            role=label,
            measured=ratio * std,
            prescribed=std,
            says=f"over all {len(names)} together",
        )


def _agrees(measured: float, prescribed: float, numbers: int, errors: float) -> bool:
    # the RMS of n normal numbers has a relative standard error of 1 / sqrt(2 n)
    return math.isclose(measured, prescribed, rel_tol=RELATIVE_TOLERANCE + errors / math.sqrt(2 * max(1, numbers)))


def _rms(value: Tensor) -> float:
    if not value.numel():
        return math.nan
    wide = torch.float32 if value.device.type == "mps" else torch.float64
    return float(torch.linalg.vector_norm(value.detach(), dtype=wide)) / math.sqrt(value.numel())
