"""Dead parameters: those that a few real training steps neither reach with a gradient nor move."""

import contextlib
from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mue_check.audit.probe import logits_of, random_tokens
from mue_check.audit.report import AuditFindings
from mue_check.audit.restore import preserved
from mue_check.audit.roles import Assignment, layer_of
from mue_check.audit.schedule import step_scheduler
from mue_check.audit.setup import Loss, SetUp, uncompiled, unwrapped
from mue_check.errors import with_article
from mue_check.plain import plain, unregistered
from mue_check.rules.roles import ROUTED
from mue_check.user_code import describe_error

STEPS = 3
"""With a matrix at zero the first step trains that matrix alone; the others follow in the next steps."""


def judge_training(
    setup: SetUp, assignments: Mapping[str, Assignment], idle: Collection[str], found: AuditFindings, *, probe: bool
) -> frozenset[str] | None:
    """Take three steps with the real loss, optimizer and scheduler, and undo them. Returns the parameters that moved.

    None: no step could be taken. Without a loss, and with ``probe``, the model predicts random tokens. An expert that
    no token reached is not dead if others of its layer had a gradient: it is a note. So is a parameter that has a
    gradient and did not move, unless the optimizer is known not to move it (``idle``): rounding hides a small update of
    a large weight.
    """
    loss = setup.loss or (_default_loss(setup.model, assignments) if probe else None)
    if loss is None:
        found.notes.append("no loss: dead parameters were not looked for")
        return None
    named = {
        n: p for n, p in setup.model.named_parameters(remove_duplicate=False) if n in assignments and p.requires_grad
    }
    # the experts of a stack count one by one
    reached = {name: torch.zeros(assignments[name].experts or 1, dtype=torch.bool, device="cpu") for name in named}
    moved = dict.fromkeys(named, False)
    try:
        failure = _train(setup, loss, named, reached, moved, found)
    except _WrongLoss as error:
        failure = str(error)
        if setup.loss is not None:
            found.add("loss", "(loss)", says=failure)
            return None
    if failure and setup.loss is None:
        found.notes.append(f"dead parameters were not looked for, as there is no loss ({failure})")
        return None
    if failure:
        found.unjudged.append(f"dead parameters: {failure}")
        return None
    still = [name for name in named if not moved[name] and bool(reached[name].any())]
    _judge(assignments, reached, still, idle, found)
    return frozenset(name for name, did in moved.items() if did)


def _default_loss(model: nn.Module, assignments: Mapping[str, Assignment]) -> Loss | None:
    """Cross-entropy on random tokens; None without a token embedding."""
    tokens, inner = random_tokens(model, assignments), unwrapped(model)
    if tokens is None:
        return None

    def loss() -> Tensor:
        logits = logits_of(inner(tokens))
        if logits is None:
            raise TypeError("the model returned no logits")
        rows = logits.flatten(0, -2)
        # some models return fewer positions than they are given
        targets = tokens.flatten().roll(1)[: len(rows)] % rows.shape[1]
        return F.cross_entropy(rows.float(), targets)

    return loss


def _train(
    setup: SetUp,
    loss: Loss,
    named: Mapping[str, Tensor],
    reached: dict[str, Tensor],
    moved: dict[str, bool],
    found: AuditFindings,
) -> str:
    """Take the steps, and note in ``reached`` and ``moved`` what they do; returns why a step could not be taken."""
    try:
        with preserved(setup), uncompiled(), torch.enable_grad():
            setup.model.train()
            for step in range(STEPS):
                before = {name: p.detach().clone() for name, p in named.items() if not moved[name]}
                for p in named.values():
                    p.grad = None
                value = _scalar(loss())
                if step == 0:
                    _judge_outside(setup, value, found)
                torch.autograd.backward(value)
                for name, p in named.items():
                    if p.grad is not None:
                        experts = plain(p.grad).detach().reshape(len(reached[name]), -1)
                        reached[name] |= (experts != 0).any(1).cpu()
                for optimizer in setup.optimizers:
                    optimizer.step()
                for scheduler in setup.schedulers:
                    with contextlib.suppress(Exception):  # follow_schedule reports it
                        step_scheduler(scheduler, step)
                for name, value_before in before.items():
                    moved[name] = not torch.equal(value_before, named[name].detach())
                if all(moved.values()) and all(bool(experts.all()) for experts in reached.values()):
                    break
    except _WrongLoss:
        raise
    except Exception as error:
        # model, loss and optimizer are the user's code
        return f"a training step raised {describe_error(error)}"
    return ""


class _WrongLoss(Exception):
    """A loss with which nothing can be trained."""


def _scalar(loss: object) -> Tensor:
    """The loss as a plain tensor; _WrongLoss if it is not one finite number with a gradient."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        what = f"a tensor {list(loss.shape)}" if isinstance(loss, Tensor) else with_article(type(loss))
        raise _WrongLoss(f"the loss is {what}, not a tensor of one number")
    if not bool(torch.isfinite(loss.detach()).all()):
        raise _WrongLoss(f"the loss is {float(loss.detach()):g}")
    if not loss.requires_grad:
        raise _WrongLoss("the loss carries no gradient: it is detached, or computed under no_grad")
    return plain(loss)


def _judge_outside(setup: SetUp, loss: Tensor, found: AuditFindings) -> None:
    """Report trained parameters on which the loss depends, and which are neither the model's nor in a group.

    A note where the loss is the user's: it may have a frozen model of its own.
    """
    held = {id(p) for group in setup.groups for p in group["params"]}
    outside = [p for p in unregistered(setup.model, loss) if isinstance(p, nn.Parameter) and id(p) not in held]
    if outside:
        says = (
            f"the loss depends on a trained tensor {list(outside[0].shape)} that is neither the model's nor in a group"
        )
        if setup.loss is None:
            found.add("group", "(model)", says=f"{says}: is a layer in a plain list?")
        else:
            found.notes.append(f"{says}: is a layer in a plain list, or does the loss use another model?")


def _judge(
    assignments: Mapping[str, Assignment],
    reached: Mapping[str, Tensor],
    still: Collection[str],
    idle: Collection[str],
    found: AuditFindings,
) -> None:
    live_layers = {layer_of(name) for name, experts in reached.items() if bool(experts.any())}
    missed, tensors = 0, 0
    for name, experts in reached.items():
        role = assignments[name].role
        listed = role in ROUTED and layer_of(name) != name  # an expert in a list of modules
        if bool(experts.any()) or (listed and layer_of(name) in live_layers):
            missed += int((~experts).sum())
            tensors += int(not bool(experts.all()))
        else:
            found.add("dead", name, role or "", f"no gradient in {STEPS} steps: nothing trains it")
    for name in still:
        if name in idle:
            says = f"has a gradient and did not change in {STEPS} steps"
            found.add("dead", name, assignments[name].role or "", says)
    if missed:
        found.notes.append(f"no token reached {missed} experts' matrices in {tensors} tensors within {STEPS} steps")
    unexplained = [name for name in still if name not in idle]
    if unexplained:
        found.notes.append(
            f"{len(unexplained)} parameters with a gradient, the first {unexplained[0]}, did not change in {STEPS} "
            "steps: a rate of 0, no group, or updates below the spacing of their dtype"
        )
