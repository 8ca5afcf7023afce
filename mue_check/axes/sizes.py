"""The sizes from which the ladders of a tier are built."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Width d and depth L of the reference, and the targets along each axis. An empty tuple omits an axis.

    The first of ``depths`` is the reference of the depth axis: two blocks are too few for its law (docs/choices.md).
    ``batches`` and ``durations`` are factors. ``capacities`` are numbers of experts N above ``capacity_base``;
    ``granularities`` are the parts into which each expert of the coarse mixture splits; ``groups`` divide its experts.
    ``memory_experts`` are numbers of experts N on the memory task, and ``speed`` the models whose speed-up is measured
    there.
    """

    width: int
    depth: int
    widths: tuple[int, ...]
    mixture_widths: tuple[int, ...]
    depths: tuple[int, ...]
    batches: tuple[int, ...]
    durations: tuple[int, ...]
    activated: tuple[int, ...]
    total_experts: int
    capacity_base: int
    capacities: tuple[int, ...]
    granularities: tuple[int, ...]
    shared: tuple[int, ...]
    groups: tuple[int, ...]
    memory_experts: tuple[int, ...]
    speed: tuple[str, ...]
    heldout: str
    """SPEC of the composite target, which changes everything at once."""
