"""The campaign of coverage in small: at the tolerance, where reading a plain interval at every look covers 0.84."""

import pytest

from tests.reliability.coverage import FAR_TARGET, GENERATORS, TOLERANCE, tally

SMALL = [g for g in GENERATORS if g.name in ("noise grows with the rate", "cubic curves", "two minima")]


@pytest.mark.parametrize("generator", SMALL, ids=lambda generator: generator.name)
def test_at_the_tolerance_the_interval_covers_and_neither_verdict_is_given(generator) -> None:
    found = tally(generator, TOLERANCE, 150)
    assert found.unresolved == 0
    assert found.covered >= 92
    assert found.passed <= 6
    assert found.failed <= 6


def test_clear_drifts_are_told_apart_with_few_seeds() -> None:
    right, wrong = (tally(GENERATORS[0], drift, 60) for drift in (0.0, 1.0))
    assert right.passed == wrong.failed == 100
    assert right.seeds < 6
    assert wrong.seeds < 6


def test_a_deeper_minimum_far_away_is_found() -> None:
    found = tally(FAR_TARGET, 4.5, 40)
    assert found.failed == 100
