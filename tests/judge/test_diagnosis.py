"""The likely causes of what fails, from signs alone."""

import pytest

from mue_check.judge import diagnosis as signs
from mue_check.judge.diagnosis import CAUSES, suspects


def names(*found: str) -> list[str]:
    return [suspect.cause.name for suspect in suspects(found, most=5)]


def test_laws_hold_and_the_learning_rate_drifts_along_width() -> None:
    assert names(signs.WIDTH, signs.HOLD, signs.LR) == [
        "schedule",
        "decay convention",
        "embedding rate",
        "readout",
        "batch factors",
    ]


@pytest.mark.parametrize(
    ("found", "first"),
    [
        ((signs.WIDTH, signs.STEPS_HOLD, signs.MOVES), "schedule"),
        ((signs.WIDTH, signs.LOGITS_DRAWN), "readout"),
        ((signs.WIDTH, signs.HOLD, signs.LR, signs.drift_of("weight_decay")), "decay convention"),
        ((signs.WIDTH, signs.HOLD, signs.LR, signs.drift_of("embedding")), "embedding rate"),
        ((signs.WIDTH, signs.HOLD, signs.LR, signs.drift_of("unembedding")), "readout"),
        ((signs.BATCH, signs.UNKNOWN, signs.LR), "batch factors"),
        ((signs.WIDTH, signs.UNKNOWN, signs.LR), "hidden rate"),
        ((signs.EXPERTS, signs.FFN_DRAWN, signs.FFN_HOLDS), "down init"),
        ((signs.EXPERTS, signs.FFN_DRAWN, signs.MOVES), "expert multipliers"),
        ((signs.DEPTH, signs.FFN_DRAWN, signs.MOVES), "residual multiplier"),
        ((signs.DEPTH, signs.MOVES, signs.BRANCHES_START), "hidden rate"),
    ],
)
def test_the_likeliest_cause(found: tuple[str, ...], first: str) -> None:
    assert names(*found)[0] == first


def test_nothing_is_suspected_without_a_failure() -> None:
    for axis in (signs.WIDTH, signs.DEPTH, signs.EXPERTS, signs.BATCH):
        assert names(axis, signs.HOLD) == []
        assert names(axis, signs.UNKNOWN) == []


def test_a_suspect_says_why_and_what_decides() -> None:
    (first, *_) = suspects([signs.WIDTH, signs.LOGITS_DRAWN])
    assert str(first).startswith("readout: the readout is tied, or mixes")
    assert "(logits wrong at init). Decide: mue_check model" in str(first)
    assert len({cause.name for cause in CAUSES}) == len(CAUSES)
