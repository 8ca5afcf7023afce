"""Ladders of mixtures: activated experts, capacity, granularity, shared experts, hybrids, and the bridges."""

import hashlib
from dataclasses import replace

from mue_check.axes.ladder import USUAL, Ladder, LadderUse, Rung
from mue_check.axes.scale import dense
from mue_check.axes.sizes import Sizes
from mue_check.errors import SpecError
from mue_check.spec import Experts, ModelSpec, Scenario
from mue_check.spec_text import parse_scenario


def activated_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """From the dense model to N experts of full width with a of them active: Bridges I and II in one step."""
    reference = dense_reference(sizes)
    targets = [
        mixture(sizes, Experts(total=sizes.total_experts, activated=a, hidden=sizes.width), size=a)
        for a in sizes.activated
    ]
    wide = [_of_16(sizes, a, sizes.width // 2, size=a) for a in (4, 16)]
    return (
        Ladder.of([reference, *targets], axis="activated_experts"),
        Ladder.by_group([reference, *wide], axis="activated_experts"),
    )


def _of_16(sizes: Sizes, activated: int, hidden: int, *, size: int) -> Rung:
    return mixture(sizes, Experts(total=16, activated=activated, hidden=hidden), size=size)


def dense_reference(sizes: Sizes) -> Rung:
    """The dense model from which the experts' own values are carried over."""
    return Rung(label="dense", size=1, model=dense(sizes.width, sizes.depth))


def capacity_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """More experts N with the same number activated."""
    rungs = [
        mixture(sizes, Experts(total=n, activated=2, hidden=sizes.width // 4), size=n)
        for n in (sizes.capacity_base, *sizes.capacities)
    ]
    wide = Experts(total=32, activated=2, hidden=sizes.width // 2)
    return (
        Ladder.of(rungs, axis="capacity"),
        Ladder.by_group([dense_reference(sizes), mixture(sizes, wide, size=32)], axis="capacity"),
    )


def granularity_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Each expert split into g narrower ones, at constant density a/N and active width a h. It starts at a = 2, since
    a single normalized weight is constant and its router learns nothing."""
    rungs = [
        mixture(sizes, Experts(total=8 * g, activated=2 * g, hidden=sizes.width // (2 * g)), size=g)
        for g in (1, *sizes.granularities)
    ]
    fine = Experts(total=64, activated=16, hidden=sizes.width // 16)
    return (
        Ladder.of(rungs, axis="granularity"),
        Ladder.by_group([dense_reference(sizes), mixture(sizes, fine, size=8)], axis="granularity"),
    )


def small(
    sizes: Sizes, *, groups: int = 1, shared: int = 0, router: str = "sigmoid_norm", activated: int = 4
) -> Experts:
    """16 experts of a quarter of the model's width, so that four active experts are as wide as the model."""
    return Experts(total=16, activated=activated, hidden=sizes.width // 4, groups=groups, shared=shared, router=router)


def shared_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Shared experts in addition to the routed ones."""
    rungs = [mixture(sizes, small(sizes, shared=s), size=s + 1) for s in (0, *sizes.shared)]
    many = Experts(total=16, activated=16, hidden=sizes.width // 16, shared=16)
    return (
        Ladder.of(rungs, axis="shared_experts"),
        Ladder.by_group([dense_reference(sizes), mixture(sizes, many, size=17)], axis="shared_experts"),
    )


def hybrid_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Groups with global normalization, with per-group normalization, and with a shared expert."""
    rungs = [mixture(sizes, small(sizes), size=1)]
    for g in sizes.groups:
        rungs.append(mixture(sizes, small(sizes, groups=g), size=len(rungs) + 1))
    per_group = small(sizes, groups=4, router="sigmoid_group_norm")
    rungs.append(mixture(sizes, per_group, size=len(rungs) + 1, label=f"{per_group.notation}-per-group"))
    if sizes.shared:
        rungs.append(mixture(sizes, small(sizes, groups=2, shared=1), size=len(rungs) + 1))
    grouped = Experts(total=32, activated=16, hidden=sizes.width // 16, groups=4)
    summed = Experts(total=16, activated=8, hidden=sizes.width // 8, groups=8, router="sigmoid_group_norm")
    by_group = [
        dense_reference(sizes),
        mixture(sizes, grouped, size=2),
        mixture(sizes, summed, size=3, label=f"{summed.notation}-per-group"),
    ]
    return (Ladder.of(rungs, axis="routing_hybrids"), Ladder.by_group(by_group, axis="routing_hybrids"))


def bridge_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Bridge I, Bridge II, and their composition compared with the direct route.

    The chain goes from a dense model with H = 4 d through the Dense MoE 16e16a of the same active width to 16e4a. The
    direct route to 16e4a starts at the dense model with H = d. Both end in the same cells, so the routes agree if the
    two dense models do.
    """
    d = sizes.width
    wide = Rung(label=f"H{4 * d}", size=1, model=dense(d, sizes.depth, hidden=4 * d))
    narrow = Rung(label=f"H{d}", size=1, model=dense(d, sizes.depth))
    full = mixture(sizes, small(sizes, activated=16), size=2)
    sparse = mixture(sizes, small(sizes), size=3)
    return (
        Ladder.of([wide, full], axis="bridges", name="bridge_1"),
        Ladder.of([full, sparse], axis="bridges", name="bridge_2"),
        Ladder.of([narrow, replace(wide, size=2), sparse], axis="bridges", name="bridges_composed"),
        Ladder.by_group([narrow, _of_16(sizes, 16, d // 16, size=2)], axis="bridges", name="bridge_1"),
        Ladder.by_group(
            [_of_16(sizes, a, d // 4, size=at) for at, a in ((1, 16), (2, 2))], axis="bridges", name="bridge_2"
        ),
    )


def heldout_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """One composite target that changes everything at once."""
    reference = Scenario(model=dense(sizes.width, sizes.depths[0]))
    return (heldout_ladder(reference, parse_scenario(sizes.heldout, default=reference)),)


def heldout_ladder(reference: Scenario, target: Scenario, *, own: bool = False) -> Ladder:
    """A ladder from one scenario to any other.

    If batch or duration differ, so do the learning rates of the first steps, and activation scales cannot be compared.
    The label of a user's ``own`` target has a hash of its scenario, so that different targets have different names.
    """
    if target == reference:
        raise SpecError(f"the composite target {target} is the reference itself: name what differs")
    batch = target.tokens_per_step / reference.tokens_per_step
    steps = target.steps / reference.steps
    label = f"composite-{hashlib.sha256(str(target).encode()).hexdigest()[:6]}" if own else "composite"
    rung = Rung(label=label, size=2, model=target.model, batch=batch, steps=steps)
    first = Rung(label=f"d{reference.model.width}", size=1, model=reference.model)
    return Ladder.of([first, rung], axis="heldout", uses=USUAL if batch == steps == 1 else ["drift"])


def speed_ladders(sizes: Sizes) -> tuple[Ladder, ...]:
    """Mixtures against a dense model of their active compute, and ladders along which the final loss should fall.

    They have the width of the memory task in every tier: a wide dense model stores the whole table by itself.
    """

    def ladder(name: str, use: LadderUse, *models: str) -> Ladder:
        rungs = [_memory_rung(model, size) for size, model in enumerate(models, 1)]
        return Ladder.of(rungs, axis="speed", name=name, regime="memory", uses=[use])

    faster = (
        ladder("speed", "speed", "dense", *sizes.speed),
        ladder("granularity_to_capacity", "tune_once", "32e8a-h4", "32e2a-h16"),
    )
    return (
        *(faster if sizes.speed else ()),
        ladder("tune_once_activated", "tune_once", *(f"{sizes.total_experts}e{a}a-h16" for a in (1, *sizes.activated))),
        ladder("tune_once_capacity", "tune_once", *(f"{n}e2a-h16" for n in sizes.memory_experts)),
        ladder("tune_once_granularity", "tune_once", "8e2a-h16", "64e16a-h2"),
        ladder("tune_once_depth", "tune_once", "dense", "dense-L4"),
    )


def _memory_rung(label: str, size: int) -> Rung:
    """``dense``, ``dense-L<depth>`` or ``<experts>-h<width>`` on the memory task."""
    kind, _, number = label.partition("-")
    width, depth = 32, 2
    if kind == "dense":
        return Rung(label=label, size=size, model=dense(width, int(number[1:] or depth)))
    experts = Experts.from_notation(kind, hidden=int(number[1:]))
    return Rung(label=label, size=size, model=ModelSpec(width=width, depth=depth, feed_forward=experts))


def mixture(sizes: Sizes, experts: Experts, *, size: int, label: str | None = None) -> Rung:
    """A rung with these experts at the reference's width and depth."""
    model = ModelSpec(width=sizes.width, depth=sizes.depth, feed_forward=experts)
    return Rung(label=label or experts.notation, size=size, model=model)
