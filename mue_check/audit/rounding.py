"""Updates that are lost to rounding: weights of low precision that are stepped without a copy of higher precision.

A weight w in bfloat16 can only move by multiples of its spacing, 2^-8 to 2^-7 of |w|. An update below half of it is
rounded away, unless the optimizer keeps float32 copies, sums up what is lost, or rounds at random.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mue_check.audit.prescribed import ModelPrescription
from mue_check.audit.report import AuditFindings
from mue_check.audit.restore import preserved
from mue_check.audit.setup import SetUp
from mue_check.audit.updates import EffectiveValues, stand_ins

_COARSE = 1e-4
"""A dtype with a larger epsilon has low precision."""
_TYPICAL = 0.2
"""The RMS of Adam's update over its LR, which is 0.2 to 0.4 in training (arXiv 2502.16982)."""
_STEPS = 48
"""Rounding at random moves a weight by updates of 1/6 of its spacing in all but one of 6000 tries of so many steps."""


def judge_rounding(
    setup: SetUp, prescribed: ModelPrescription, values: Mapping[str, EffectiveValues], found: AuditFindings
) -> None:
    """Report parameters of which most entries would not move by a typical update at the peak LR."""
    named = dict(setup.model.named_parameters(remove_duplicate=False))
    coarse = {name: p for name in values for p in [named[name]] if id(p) not in setup.copies and _is_coarse(p)}
    if not coarse:
        return
    losing = _losing(setup)
    for name, p in coarse.items():
        update = _TYPICAL * values[name].lr
        # no mean over entries if the LR is not known
        if id(p) not in losing or not update > 0:
            continue
        lost = float((update < _spacing(p) / 2).double().mean())
        if lost > 0.5:
            says = (
                f"the spacing of {str(p.dtype).removeprefix('torch.')} is more than twice a typical update of "
                f"{update:.2g} ({_TYPICAL:g} LR) at {lost:.0%} of its entries, and the step rounds it away: keep the "
                "weights or a copy of them in float32"
            )
            found.add("rounding", name, prescribed.expected[name].label, says)


def _losing(setup: SetUp) -> set[int]:
    """Ids of parameters that many updates of a third to a sixth of their spacing do not move."""
    rates = {id(p): float(group["lr"]) for group in setup.groups for p in group["params"] if "lr" in group}
    try:
        with preserved(setup, weights=False), stand_ins(setup, keep_dtype=True) as parameters, torch.no_grad():
            setup.clear_moments()
            for group in setup.groups:
                group["weight_decay"] = 0.0
            low = [p for p in parameters if _is_coarse(p) and rates.get(id(p), 0) > 0]
            for p in low:
                # 1.5 times the power of two whose spacing is 3 to 6 times the LR
                spacing = math.ceil(math.log2(3 * rates[id(p)] / torch.finfo(p.dtype).eps))
                p.fill_(1.5 * 2.0**spacing)
            start = {id(p): float(p) for p in low}
            for _ in range(_STEPS):
                for p in parameters:
                    p.grad = torch.ones_like(p)
                for optimizer in setup.optimizers:
                    optimizer.step()
            return {id(p) for p in low if float(p) == start[id(p)]}
    except Exception:  # the user's code; measure_updates reports it
        return set()


def _is_coarse(p: Tensor) -> bool:
    return p.is_floating_point() and torch.finfo(p.dtype).eps > _COARSE


def _spacing(p: Tensor) -> Tensor:
    """The distance from each entry to the next larger one."""
    exponent = torch.frexp(p.detach().float())[1] - 1
    return torch.ldexp(torch.full_like(exponent, torch.finfo(p.dtype).eps, dtype=torch.float32), exponent)
