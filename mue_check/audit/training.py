"""Dead parameters: those that a few real steps of training neither reach with a gradient nor move."""

import contextlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mue_check.audit.assign import Assignment
from mue_check.audit.report import Offence
from mue_check.audit.restore import preserved
from mue_check.audit.schedule import step_scheduler
from mue_check.audit.setup import SetUp, said
from mue_check.audit.wrapped import uncompiled
from mue_check.rules.roles import ROUTED

STEPS = 3
"""The first step of a model with a matrix at zero trains that matrix alone; the others follow in the next ones."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of it. ``moved`` are the parameters that changed, ``failed`` says why no step could be taken."""

    offences: tuple[Offence, ...] = ()
    notes: tuple[str, ...] = ()
    moved: frozenset[str] = frozenset()
    failed: str = ""


def find_dead(
    setup: SetUp,
    assignments: Mapping[str, Assignment],
    idle: Collection[str],
    loss: Callable[[], Tensor],
) -> Trained:
    """Take three steps with the real loss, optimizer and scheduler, and undo them.

    An expert that no token reached is not dead where others of its layer moved: it is a note. So is a parameter with
    a gradient that stood still, unless the optimizer is known to do nothing to it (``idle``): a small update is lost
    beside a large weight.
    """
    named = {
        n: p for n, p in setup.model.named_parameters(remove_duplicate=False) if n in assignments and p.requires_grad
    }
    reached = {name: torch.zeros(_pieces(assignments[name]), dtype=torch.bool) for name in named}
    moved = dict.fromkeys(named, False)
    try:
        with preserved(setup), uncompiled(), torch.enable_grad():
            setup.model.train()
            for step in range(STEPS):
                before = {name: p.detach().clone() for name, p in named.items() if not moved[name]}
                for p in named.values():
                    p.grad = None
                value = loss()
                if not bool(torch.isfinite(value.detach()).all()):
                    return Trained(failed=f"the loss is {float(value.detach().sum()):g}")
                torch.autograd.backward(value)
                for name, p in named.items():
                    if p.grad is not None:
                        pieces = p.grad.detach().reshape(len(reached[name]), -1)
                        reached[name] |= (pieces != 0).any(1).cpu()
                for optimizer in setup.optimizers:
                    optimizer.step()
                for scheduler in setup.schedulers:
                    with contextlib.suppress(Exception):  # where the schedule is followed it is told
                        step_scheduler(scheduler, step)
                for name, value_before in before.items():
                    moved[name] = not torch.equal(value_before, named[name].detach())
                if all(moved.values()) and all(bool(pieces.all()) for pieces in reached.values()):
                    break
    except Exception as error:
        # model, loss and optimizer are the user's own code
        return Trained(failed=f"a training step raised {said(error)}")
    still = [name for name in named if not moved[name] and bool(reached[name].any())]
    judged = _judge(assignments, reached, still, idle)
    return replace(judged, moved=frozenset(name for name, did in moved.items() if did))


def _judge(
    assignments: Mapping[str, Assignment], reached: Mapping[str, Tensor], still: Sequence[str], idle: Collection[str]
) -> Trained:
    layers: dict[str, bool] = {}
    for name, pieces in reached.items():
        layers[_layer(name)] = layers.get(_layer(name), False) or bool(pieces.any())
    offences, missed, tensors = [], 0, 0
    for name, pieces in reached.items():
        a = assignments[name]
        role = "" if a.role is None else str(a.role)
        if bool(pieces.any()):
            missed += int((~pieces).sum())
            tensors += int(not bool(pieces.all()))
        elif a.role in ROUTED and _layer(name) != name and layers[_layer(name)]:
            missed, tensors = missed + 1, tensors + 1
        else:
            says = f"no gradient in {STEPS} steps: nothing trains it"
            offences.append(Offence(check="dead", parameter=name, role=role, says=says))
    for name in (name for name in still if name in idle):
        says = f"has a gradient and did not change in {STEPS} steps"
        offences.append(Offence(check="dead", parameter=name, role=str(assignments[name].role or ""), says=says))
    notes = [f"no token reached {missed} experts' matrices in {tensors} tensors within {STEPS} steps"] if missed else []
    lost = [name for name in still if name not in idle]
    if lost:
        notes.append(
            f"{len(lost)} parameters with a gradient, the first {lost[0]}, did not change in {STEPS} steps: a rate of "
            "0, no group, or updates below the spacing of their type"
        )
    return Trained(offences=tuple(offences), notes=tuple(notes))


def _pieces(a: Assignment) -> int:
    """Experts of a stack are looked at one by one."""
    return a.experts or 1


def _layer(name: str) -> str:
    """The name without the number of an expert: parameters of the same layer and use share it."""
    return re.sub(r"experts\.\d+\.", "experts.*.", name)
