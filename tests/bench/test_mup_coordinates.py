"""The coordinate check against microsoft/mup's own: the same numbers where mup is installed, a note where it is not."""

from dataclasses import replace

import pytest
import torch

from mue_check.bench import mup_coordinates as check
from mue_check.bench.cases import BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.ways import Disagreement

CASE = BenchCase(model="d=32,H=32", batch=2, context=8, runs=2)
CASES = (CASE, replace(CASE, model="d=48,H=48"))
CPU = torch.device("cpu")


def fused() -> check.Coordinates:
    setups = [BenchSetup(c, CPU, rule=check.RULE, base=check.ADAMW, constant=True) for c in CASES]
    return check.fused_coordinates(setups)


def test_an_absent_mup_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "mup_is_installed", lambda: False)
    ours, theirs = check.measure_coordinates(CASES, CPU, 2)
    assert ours.seconds is not None
    assert theirs.way == "mup"
    assert theirs.seconds is None
    assert "pip install --no-deps mup" in theirs.note


def test_coordinates_are_of_every_place() -> None:
    found = fused()
    places = {name for _, _, _, name in found}
    assert places == {"logits", *(f"block{i}.{part}_branch" for i in range(2) for part in ("attention", "ffn"))}
    assert len(found) == 2 * 2 * check.STEPS * len(places)
    assert all(value > 0 for value in found.values())


def test_mup_reads_the_same_numbers() -> None:
    pytest.importorskip("mup")
    rows = list(check.measure_coordinates(CASES, CPU, 2))
    assert [row.way for row in rows] == ["fused", "mup"]
    assert all(row.seconds is not None and len(row.models) == 2 for row in rows)


def test_other_numbers_are_a_disagreement() -> None:
    ours = fused()
    check.require_same(ours, dict(ours))
    key = next(iter(ours))
    with pytest.raises(Disagreement, match="differ by up to"):
        check.require_same({**ours, key: ours[key] * 1.01}, ours)
    with pytest.raises(Disagreement, match="different places"):
        check.require_same({k: v for k, v in ours.items() if k != key}, ours)
