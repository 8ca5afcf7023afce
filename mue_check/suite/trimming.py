"""``--seeds`` and ``--rungs``: change a tier's numbers of seeds, and drop the last targets of ladders."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mue_check.errors import SpecError

if TYPE_CHECKING:
    from mue_check.axes import Ladder
    from mue_check.tiers import Tier

MOST_SEEDS = 1000
"""The null control uses the seeds from here on (``questions.drift.NULL_SEED``)."""


def with_seeds(tier: Tier, text: str | None) -> Tier:
    """The tier with ``LOW[:HIGH]`` seeds in each drift, and no more than HIGH in any other question.

    SpecError below ``judge.drift.MIN_SEEDS``, which give no useful interval.
    """
    if text is None:
        return tier
    from mue_check.judge.drift import MIN_SEEDS

    found = re.fullmatch(r"(\d{1,9})(?::(\d{1,9}))?", text.strip())
    if found is None:
        raise SpecError(f"--seeds {text}: write LOW or LOW:HIGH, for example 4:8")
    low, high = int(found[1]), int(found[2] or found[1])
    if low < MIN_SEEDS:
        raise SpecError(f"--seeds {text}: at least {MIN_SEEDS} are needed for a useful interval")
    if not low <= high <= MOST_SEEDS:
        raise SpecError(f"--seeds {text}: HIGH must be at least LOW and at most {MOST_SEEDS}")
    return replace(tier, seeds=low, max_seeds=high, seed_limit=high)


def parse_rungs(text: str | None) -> int | None:
    """The number of targets of each ladder, or None for all. SpecError unless it is a whole number of at least 1."""
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < 1:
        raise SpecError(f"--rungs {text}: must be a whole number of at least 1")
    return int(text)


def cut(ladder: Ladder, rungs: int | None) -> Ladder:
    """The ladder's first ``rungs`` targets. A ladder of gradient noise stays whole, since its loads give one slope."""
    return ladder if rungs is None or "noise" in ladder.uses else replace(ladder, targets=ladder.targets[:rungs])
