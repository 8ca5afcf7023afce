"""At the base size every factor is 1, so the model must train exactly as it does without a parameterization."""

from collections.abc import Iterator

from mue_check.own_model.candidate import Candidate
from mue_check.own_model.measure import measure

_SAME = 1e-5
"""Relative difference of losses that rounding explains."""


def at_base(candidate: Candidate, axis: str, base: float, lr: float) -> Iterator[str]:
    """What differs at the base size: learning rates that are not the given one, then the losses around an update."""
    own = measure(candidate, axis, base, 0, lr, 1)
    off = {name: rates[0] / lr for name, rates in own.rates.items() if abs(rates[0] / lr - 1) > _SAME}
    if off:
        name = max(off, key=lambda n: abs(off[n] - 1))
        yield (
            f"at the base {axis}={base:g} the learning rate of {name} is {off[name]:.4g} times the given one"
            f"{f', and {len(off) - 1} more' * (len(off) > 1)}: every factor must be 1 there"
        )
    plain = measure(candidate, axis, base, 0, lr, 1, plain=True)
    for step, (a, b) in enumerate(zip(own.losses, plain.losses, strict=True)):
        if abs(a - b) > _SAME * abs(b):
            where = "after an update" if step else "at initialization"
            yield (
                f"at the base {axis}={base:g} the loss {where} is {a:.6g}, and {b:.6g} "
                f"{'of the plain model' if candidate.plain else 'with one learning rate for all parameters'}: "
                "training must be identical there"
            )
            return
