"""The user's own training: a plain loop over batches, at one learning rate, to a final loss on batches held out."""

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mue_check.audit.setup import uncompiled
from mue_check.own_model.candidate import Candidate, ModelError, calling, reseed

_FIRST, _FASTER = 4, 2.0
"""Steps of the first look, and the factor of its other learning rate."""
_SAME = 1e-3
"""Relative difference of losses that rounding explains, on a GPU too."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run trains: for how many steps, and on how many held-out batches its final loss is a mean."""

    steps: int
    held_out: int = 8


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run: the loss of each step before its update, and the model as it is at the end."""

    model: nn.Module
    losses: list[float]
    held_out: float
    """NaN if it diverged or was not asked for."""


def train(user: Candidate, axis: str, size: float, seed: int, lr: float, plan: Plan, *, only: int = 0) -> Trained:
    """Train the model of one size from one seed. ``only``: stop after that many steps, without a final loss.

    A run whose loss is no longer finite has diverged and ends there. ModelError if that is so before any update, and
    for whatever the user's code raises.
    """
    steps = only or plan.steps
    model = user.build(axis, size, seed)
    optimizer = user.optimize(model, lr)
    scheduler = user.schedule(optimizer, plan.steps)
    _seed_all(seed + 1)
    stream = _Stream(user, seed, needed=steps + (0 if only or user.held_out else plan.held_out))
    losses = []
    model.train()
    with uncompiled():
        for batch in itertools.islice(stream, steps):
            with torch.set_grad_enabled(user.step is None):
                loss = user.loss_of(model, batch, finite=False)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                break
            model.zero_grad()
            user.update(model, optimizer, scheduler, batch, loss)
        if not math.isfinite(losses[0]):
            raise ModelError(f"the loss of {axis}={size:g} is {losses[0]} before any update")
        is_over = only or not math.isfinite(losses[-1])
        final = math.nan if is_over else _held_out(user, model, seed, stream, plan)
    return Trained(model=model, losses=losses, held_out=final)


@torch.no_grad()
def _held_out(user: Candidate, model: nn.Module, seed: int, stream: "_Stream", plan: Plan) -> float:
    """The mean loss of the batches held out, or else of those after the last that was trained on."""
    model.eval()
    if user.held_out is not None:
        stream = _Stream(user, seed, needed=plan.held_out, held_out=True)
    losses = [user.loss_of(model, batch, finite=False) for batch in itertools.islice(stream, plan.held_out)]
    return float(torch.stack([loss.reshape(()).double() for loss in losses]).mean())


class _Stream:
    """The batches of a seed. ModelError, one line, where there are fewer than needed."""

    def __init__(self, user: Candidate, seed: int, needed: int, *, held_out: bool = False) -> None:
        self.what, self.needed, self.given = f"{'held_out' if held_out else 'batches'}({seed})", needed, 0
        self.batches = user.stream(seed, held_out=held_out)

    def __iter__(self) -> Iterator[object]:
        return self

    def __next__(self) -> object:
        with calling(self.what):
            for batch in self.batches:
                self.given += 1
                return batch
        raise ModelError(
            f"{self.what} ends after {self.given} batches, and a run needs {self.needed}: let it go on, or train for "
            "fewer steps"
        )


def _seed_all(seed: int) -> None:
    """Seed the global generators, from which the user's data, dropout and step may draw."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    reseed(seed)


def first_look(user: Candidate, axis: str, size: float, lr: float, plan: Plan) -> None:
    """A few steps of the smallest model before a study: do they depend on the seed and the learning rate, and on
    nothing else? ModelError, one line, says what is wrong."""
    only = min(_FIRST, plan.steps)
    model = user.build(axis, size, 0)
    with torch.no_grad():
        once, again = (user.loss_of(model, user.batch(0)).item() for _ in range(2))
    if not math.isclose(once, again, rel_tol=_SAME):
        raise ModelError(f"batches(0) gives other data when it is called again: losses {once:.6g} and {again:.6g}")
    first, second, faster = (train(user, axis, size, 0, rate, plan, only=only) for rate in (lr, lr, _FASTER * lr))
    for step, (a, b) in enumerate(zip(first.losses, second.losses, strict=False)):
        if not math.isclose(a, b, rel_tol=_SAME):
            raise ModelError(
                f"two runs of seed 0 differ: losses {a:.6g} and {b:.6g} at step {step}. batches(seed) and the model "
                "must draw from the seed alone"
            )
    if all(torch.equal(p, q) for p, q in zip(first.model.parameters(), faster.model.parameters(), strict=True)):
        raise ModelError(
            f"{only} steps at lr {lr:g} and {_FASTER * lr:g} give the same parameters: optimizer(model, lr=...), or a "
            "scheduler, does not use lr"
        )
