"""The key of a cell, on which every stored study depends."""

import hashlib
import math

import pytest

from mue_check.records.cell import content_key
from tests.studies import make_cell


def test_a_key_is_the_hash_of_compact_json_with_sorted_names() -> None:
    expected = hashlib.sha256(b'{"a":[0.5,"x"],"b":{"c":null,"d":1}}').hexdigest()[:20]
    assert content_key({"a": [0.5, "x"], "b": {"c": None, "d": 1}}) == expected
    assert content_key({"b": {"d": 1, "c": None}, "a": [0.5, "x"]}) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_content_that_is_not_json_has_no_key(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key({"a": value})


def test_a_cell_says_what_it_is() -> None:
    cell = make_cell(seeds=(3, 4, 7))
    assert str(cell) == (
        "loss_grid d=32,L=1,H=32 B=64,T=10 on markov, rule complete_mue, 2 values of lr x seeds 3, 4, 7"
    )
    assert cell.runs == 6


def test_cells_that_differ_in_values_and_seeds_have_one_shape() -> None:
    cell = make_cell()
    assert cell.shape == make_cell(seeds=(5, 6), values=(0.5,)).shape
    assert cell.shape != make_cell(steps=(1,)).shape
    assert cell.shape != cell.key
