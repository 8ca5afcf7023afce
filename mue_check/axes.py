"""Axes: the ladders of model specs along which a learning rate is carried, from one reference."""

from dataclasses import dataclass

from mue_check.errors import SpecError
from mue_check.spec import Dense, Experts, ModelSpec


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One model on an axis. ``size`` is its place on the axis, ``label`` what people call it."""

    label: str
    size: int
    model: ModelSpec


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """A reference and its targets along one axis, in ascending size."""

    axis: str
    reference: Rung
    targets: tuple[Rung, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Reference first."""
        return (self.reference, *self.targets)


def width_ladder(widths: tuple[int, ...], *, depth: int) -> Ladder:
    """Dense models of unit expansion (H = d)."""
    rungs = [
        Rung(label=f"d{d}", size=d, model=ModelSpec(width=d, depth=depth, feed_forward=Dense(hidden=d))) for d in widths
    ]
    return Ladder(axis="width", reference=rungs[0], targets=tuple(rungs[1:]))


def activated_experts_ladder(activated: tuple[int, ...], *, total: int, width: int, depth: int) -> Ladder:
    """The dense model of the same width, then ``total`` experts of full width with a of them active.

    The route is Bridge I and Bridge II at once: the learning rate comes from the dense model.
    """
    dense = ModelSpec(width=width, depth=depth, feed_forward=Dense(hidden=width))
    targets = []
    for a in activated:
        experts = Experts(total=total, activated=a, hidden=width)
        model = ModelSpec(width=width, depth=depth, feed_forward=experts)
        targets.append(Rung(label=experts.notation, size=a, model=model))
    return Ladder(axis="activated_experts", reference=Rung(label="dense", size=1, model=dense), targets=tuple(targets))


AXES = ("width", "activated_experts")


def parse_axes(text: str | None) -> tuple[str, ...]:
    """The axes named in a comma-separated list; all of them for None. SpecError names the allowed ones."""
    if text is None:
        return AXES
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in AXES:
            raise SpecError(f"unknown axis {name!r}: allowed are {', '.join(AXES)}")
    return names
