"""Ladders of scale: width, depth, batch and duration."""

import math

from mue_check.axes.ladder import Ladder, Rung
from mue_check.axes.sizes import Sizes
from mue_check.spec import REFERENCE_HEAD_WIDTH, Dense, Experts, ModelSpec


def dense(width: int, depth: int, *, hidden: int | None = None, head_width: int = REFERENCE_HEAD_WIDTH) -> ModelSpec:
    """A dense model with hidden width d unless ``hidden`` is given."""
    return ModelSpec(width=width, depth=depth, feed_forward=Dense(hidden=hidden or width), head_width=head_width)


def width_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Dense models, mixtures, and models with wider instead of more heads (only for activation scales)."""
    widths = (sizes.width, *sizes.widths)
    dense_rungs = [Rung(label=f"d{d}", size=d, model=dense(d, sizes.depth)) for d in widths]
    mixtures = []
    for d in (sizes.width, *sizes.mixture_widths):
        experts = Experts(total=8, activated=2, shared=1, hidden=d // 2)
        model = ModelSpec(width=d, depth=sizes.depth, feed_forward=experts)
        mixtures.append(Rung(label=f"d{d}-{experts.notation}", size=d, model=model))
    heads = [Rung(label=f"d{d}-2-heads", size=d, model=dense(d, sizes.depth, head_width=d // 2)) for d in widths]
    ladders = (
        Ladder.of(dense_rungs, axis="width"),
        Ladder.of(mixtures, axis="width", name="width_of_mixture"),
        Ladder.of(heads, axis="width", name="width_of_heads", uses=["scales"]),
    )
    return tuple(ladder for ladder in ladders if ladder.targets)


def depth_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Dense models of one width with more blocks."""
    rungs = [Rung(label=f"L{n}", size=n, model=dense(sizes.width, n)) for n in sizes.depths]
    ends = [Rung(label=f"L{n}", size=n, model=dense(sizes.width, n)) for n in (sizes.depth, 8 * sizes.depth)]
    return (Ladder.of(rungs, axis="depth"), Ladder.by_group(ends, axis="depth"))


def batch_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Batch x k at fixed tokens (exact), and at fixed steps (approximate: sigma_0 falls by sqrt(k))."""
    model = dense(sizes.width, sizes.depth)
    reference = Rung(label="B1", size=1, model=model)
    exact = [Rung(label=f"B{k}", size=k, model=model, batch=k, steps=1 / k) for k in sizes.batches]
    approximate = [Rung(label=f"B{k}", size=k, model=model, batch=k, residual=sigma_shift(k)) for k in sizes.batches]
    return (
        _noisy([reference, *exact], "batch", "batch_at_fixed_tokens"),
        _noisy([reference, *approximate], "batch", "batch_at_fixed_steps"),
    )


def duration_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Steps x k at fixed batch (approximate: the horizon is kept, sigma_0 falls by sqrt(k))."""
    model = dense(sizes.width, sizes.depth)
    reference = Rung(label="T1", size=1, model=model)
    longer = [Rung(label=f"T{k}", size=k, model=model, steps=k, residual=sigma_shift(k)) for k in sizes.durations]
    return (_noisy([reference, *longer], "duration", "duration_at_fixed_batch"),)


def sigma_shift(k: float) -> float:
    """log2(k) / 2: the octaves of learning rate that would restore sigma_0 after it fell by sqrt(k) (arXiv 2205.10287).

    sigma_0 is the learning rate times the ratio of gradient noise to signal. An approximate law does not restore it, so
    the optimum may move by up to that much.
    """
    return math.log2(k) / 2


def _noisy(rungs: list[Rung], axis: str, name: str) -> Ladder:
    return Ladder.of(rungs, axis=axis, name=name, regime="noise", uses=["drift"])
