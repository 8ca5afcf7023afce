"""Figures of a load."""

import math

import numpy as np
import pytest

from mue_check.sigma0.imbalance import Imbalance


def test_a_uniform_load_is_even() -> None:
    found = Imbalance.of(np.full(8, 3.0))
    assert found.shortfall_bits == pytest.approx(0, abs=1e-12)
    assert (found.experts, found.dead) == (8, 0)
    assert (found.variation, found.entropy, found.peak) == pytest.approx((0, 1, 1))


def test_figures_of_an_uneven_load() -> None:
    found = Imbalance.of(np.array([4.0, 2.0, 2.0, 0.0]))
    assert found.peak == pytest.approx(2)
    assert found.dead == 1
    assert found.variation == pytest.approx(math.sqrt(2) / 2)
    assert found.entropy == pytest.approx(1.5 / 2)
    assert found.shortfall_bits == pytest.approx(-1 / 3)  # what the dead one leaves to the others
    assert "1 without tokens" in str(found)


def test_all_tokens_on_one_expert() -> None:
    found = Imbalance.of(np.array([0.0, 0, 0, 5]))
    assert (found.entropy, found.shortfall_bits, found.peak) == pytest.approx((0, -2, 4))
    assert Imbalance.of(np.array([1.0])).entropy == 1
