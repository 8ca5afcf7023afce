"""At the base size every factor is 1, so the model must train exactly as it does without a parameterization."""

from collections.abc import Iterator

import torch

from mue_check.audit.setup import uncompiled
from mue_check.own_model.candidate import Candidate, ModelError, reseed
from mue_check.own_model.measure import Coordinates, measure

_SAME = 1e-5
"""Relative difference of losses that rounding explains."""


def at_base(candidate: Candidate, axis: str, base: float, lr: float, own: Coordinates | None) -> Iterator[str]:
    """What differs at the base size: learning rates that are not the given one, then the losses around an update.

    ``own`` is what was measured there with seed 0, if anything was.
    """
    own = own or measure(candidate, axis, base, 0, lr, 1)
    off = {name: rates[0] / lr for name, rates in own.rates.items() if abs(rates[0] / lr - 1) > _SAME}
    if off:
        name = max(off, key=lambda n: abs(off[n] - 1))
        yield (
            f"at the base {axis}={base:g} the learning rate of {name} is {off[name]:.4g} times the given one"
            f"{f', and {len(off) - 1} more' * (len(off) > 1)}: every factor must be 1 there"
        )
    if off or candidate.plain:
        plain = measure(candidate, axis, base, 0, lr, own.updates, plain=True).losses[:2]
    else:  # it is the plain model: all that can differ is what is drawn
        plain = [_initial_loss(candidate, axis, base)]
    for step, (a, b) in enumerate(zip(own.losses, plain, strict=False)):
        if abs(a - b) > _SAME * abs(b):
            if not step and not candidate.plain:
                raise ModelError(
                    f"two models of seed 0 at {axis}={base:g} have losses {a:.6g} and {b:.6g} before any update: model "
                    "and batches(seed) must draw from the seed alone"
                )
            where = "after an update" if step else "at initialization"
            yield (
                f"at the base {axis}={base:g} the loss {where} is {a:.6g}, and {b:.6g} "
                f"{'of the plain model' if candidate.plain else 'with one learning rate for all parameters'}: "
                "training must be identical there"
            )
            return


@torch.no_grad()
def _initial_loss(candidate: Candidate, axis: str, base: float) -> float:
    """The first loss of seed 0, of a model that is built again."""
    model, batch = candidate.build(axis, base, 0), candidate.batch(0)
    reseed(1)
    with uncompiled():
        return candidate.loss_of(model, batch).item()
