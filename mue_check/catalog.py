"""The composition root: every axis and every tier. Nothing below imports this module."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from mue_check.axes import AXES as CORE_AXES
from mue_check.errors import SpecError
from mue_check.sigma0.laboratory import LAB, LABORATORIES
from mue_check.sigma0.ladders import SIGMA0, sigma0_ladders
from mue_check.tiers import CPU, FULL, GPU, SMOKE, Tier

AXES = (*CORE_AXES, SIGMA0)
"""Names of the axes, in the order of suites and reports."""


def _with_every_axis(tier: Tier) -> Tier:
    return replace(tier, axes={**CORE_AXES, SIGMA0: partial(sigma0_ladders, LABORATORIES[tier.name])})


TIERS: Mapping[str, Tier] = {tier.name: _with_every_axis(tier) for tier in (SMOKE, CPU, LAB, GPU, FULL)}


def get_tier(name: str) -> Tier:
    """The tier of that name; SpecError names the known ones."""
    try:
        return TIERS[name]
    except KeyError:
        raise SpecError(f"unknown tier {name!r}: allowed are {', '.join(TIERS)}") from None


def parse_axes(text: str | None) -> tuple[str, ...]:
    """The axes named in a comma-separated list; all of them for None. SpecError names the allowed ones."""
    if text is None:
        return AXES
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in AXES:
            raise SpecError(f"unknown axis {name!r}: allowed are {', '.join(AXES)}")
    return names
