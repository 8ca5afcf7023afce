"""The composition root: all axes, tiers and kinds of question, and functions that need all of them.

The packages below do not import this module. To add a kind of question, write its file and list it here.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from mue_check.axes import AXES as CORE_AXES
from mue_check.errors import SpecError, unknown
from mue_check.modalities import LANGUAGE, get_modality
from mue_check.overview import report
from mue_check.questions.axes_report import AxesKind
from mue_check.questions.controls import ControlKind
from mue_check.questions.drift_report import DriftKind
from mue_check.questions.early import EARLY
from mue_check.questions.exponents import ExponentKind
from mue_check.questions.own_optima import OptimaKind
from mue_check.questions.question import CaseMaker, QuestionKind
from mue_check.questions.routing import ROUTING
from mue_check.questions.samples import SAMPLES
from mue_check.questions.scales import SCALES
from mue_check.questions.sensitivity import SensitivityKind
from mue_check.questions.speed import SPEED
from mue_check.questions.summary import Summary
from mue_check.questions.trend import TrendKind
from mue_check.questions.tune_once import TUNE_ONCE
from mue_check.questions.values import VALUES
from mue_check.questions.what_next import WhatNextKind
from mue_check.sigma0.forecast import FORECAST
from mue_check.sigma0.gamma_report import GAMMA
from mue_check.sigma0.ladders import LAB, LABORATORIES, SIGMA0, sigma0_ladders
from mue_check.sigma0.shift_report import SHIFT
from mue_check.tiers import CPU, FULL, GPU, SMOKE, Tier

QUESTIONS: tuple[QuestionKind, ...] = (
    AxesKind(),
    SensitivityKind(),
    DriftKind(),
    OptimaKind(),
    TrendKind(),
    ExponentKind(),
    SCALES,
    EARLY,
    TUNE_ONCE,
    SPEED,
    SAMPLES,
    ROUTING,
    GAMMA,
    SHIFT,
    FORECAST,
    VALUES,
    ControlKind(),
    WhatNextKind(),
)
"""Kinds are judged, counted and printed in this order. A kind may use the findings of those before it."""

CASES: Mapping[str, CaseMaker] = dict(chain.from_iterable(kind.cases.items() for kind in QUESTIONS))
"""The cases of the suites' tests, by the name of their fixture, from all kinds."""

AXES = (*CORE_AXES, SIGMA0)
"""The names of all axes, in the order of suites and reports."""


def _with_every_axis(tier: Tier) -> Tier:
    return replace(tier, axes={**CORE_AXES, SIGMA0: partial(sigma0_ladders, LABORATORIES[tier.name])})


TIERS: Mapping[str, Tier] = {tier.name: _with_every_axis(tier) for tier in (SMOKE, CPU, LAB, GPU, FULL)}


def get_tier(name: str, modality: str = LANGUAGE) -> Tier:
    """The tier of that name in a modality. Raises SpecError, which names the known tiers."""
    try:
        return get_modality(modality).of(TIERS[name])
    except KeyError:
        raise SpecError(unknown("tier", name, TIERS)) from None


def parse_axes(text: str | None) -> tuple[str, ...]:
    """The axes in a comma-separated list; all axes for None. Raises SpecError, which names the allowed axes."""
    if text is None:
        return AXES
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in AXES:
            raise SpecError(unknown("axis", name, AXES))
    return names


def summarize(root: Path) -> Summary:
    """Judge a study from its records. Raises StoreError if there are none or a cell is missing."""
    return report.summarize(root, QUESTIONS, AXES)


def write_report(root: Path, summary: Summary | None = None) -> Path:
    """Write the report of a study and return the path of its page. Judges the study unless ``summary`` is given."""
    return report.write_report(root, summary or summarize(root))
