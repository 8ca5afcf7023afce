"""Stored comparisons: read strictly, and held against their cells."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mue_check.catalog import summarize
from mue_check.cli import main
from mue_check.overview.report import report_of
from mue_check.records import Environment
from mue_check.records.files import read_record, sealed
from mue_check.report.markdown import render_markdown
from mue_check.study.comparison import load_comparisons, save_comparison
from tests.report.conftest import Made


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A study of one drift that passes."""
    made = Made(tmp_path / "study")
    made.store.prepare()
    made.ask(made.side(32), made.side(64, 0.1))
    return made


SIDE = {"label": "d32", "size": 32, "model": "d=32", "first_seed": 0}


def file_of(made: Made) -> Path:
    (path,) = (made.root / "comparisons").glob("*.json")
    return path


def refused(made: Made, capsys: pytest.CaptureFixture[str], name: str) -> str:
    """The line of `mue_check report`, which names the file and ends with exit code 2."""
    assert main(["report", str(made.root)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    return line


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sides": None}, ".sides is None: a list is needed"),
        ({"sides": []}, "has no sides, or a side without cells"),
        ({"sides": [SIDE | {"cells": []}]}, "has no sides, or a side without cells"),
        ({"sides": [SIDE | {"cells": ["../../x"]}]}, "is no key of a cell"),
        ({"tolerance": "0.5"}, ".tolerance is '0.5': a finite number is needed"),
        ({"tolerance": -0.5}, "has the tolerance -0.5: at least 0 is needed"),
        ({"tolerance": True}, ".tolerance is True: a finite number is needed"),
        ({"knob": "temperature"}, ".knob is 'temperature': 'lr' or"),
        ({"expected": "GREEN"}, "expects 'GREEN', which is no verdict"),
        ({"name": "another"}, "has the name 'another': a copy of another one"),
        ({"schema": 1}, "has schema 1, this version reads 2"),
    ],
)
def test_a_comparison_is_read_strictly(
    made: Made, capsys: pytest.CaptureFixture[str], change: dict[str, Any], says: str
) -> None:
    path = file_of(made)
    path.write_bytes(sealed({**read_record(path), **change}))
    assert says in refused(made, capsys, path.name)


def test_a_comparison_without_sides_or_with_a_deep_or_edited_text(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(made)
    good = path.read_text()
    value = read_record(path)
    del value["sides"]
    path.write_bytes(sealed(value))
    assert "lacks 'sides'" in refused(made, capsys, path.name)
    path.write_text("[" * 100_000)
    assert "is no JSON" in refused(made, capsys, path.name)
    path.write_text(good.replace('"tolerance": 0.5', '"tolerance": 5.0'))
    assert "was changed after it was stored" in refused(made, capsys, path.name)
    path.write_text(good.replace('"tolerance": 0.5', '"tolerance": NaN'))
    assert "is no JSON" in refused(made, capsys, path.name)
    path.rename(path.with_name("copy.json"))
    path.with_name("copy.json").write_text(good)
    assert "a copy of another one" in refused(made, capsys, "copy.json")


def target_of(made: Made, width: int = 64, **changes: Any) -> dict[str, Any]:
    """The cells of another target, of a study with these changes."""
    return {"cells": replace(made, **changes).side(width, 0.1).cells}


def two_arms(made: Made) -> dict[str, Any]:
    return {"cells": (*made.side(64, 0.1).cells[:2], *made.side(64, 0.4).cells[2:])}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda made: target_of(made, 128),
            "is of the model d=128,L=2,H=128,B=512,T=100, and the side 'd64' is d=64,L=2,H=64,B=512,T=100",
        ),
        (lambda made: target_of(made, knob="weight_decay"), "sweeps weight_decay, and the question is about lr"),
        (
            lambda made: target_of(made, corpus="docstrings"),
            "has the corpus docstrings, and the comparison's first cell markov",
        ),
        (two_arms, "is of another arm than the first cell of its side"),
        (
            lambda made: {"cells": made.early(64, 1.0).cells},
            "has the measurement early_curve, and the question needs loss_grid",
        ),
        (lambda made: {"first_seed": 1}, "has seeds below 1, the first of its side"),
        (lambda made: {"cells": ("0" * 20,)}, "cannot read"),
    ],
)
def test_cells_are_those_that_the_question_is_about(
    made: Made, capsys: pytest.CaptureFixture[str], change: Callable[[Made], dict[str, Any]], says: str
) -> None:
    (comparison,) = load_comparisons(made.root)
    reference, target = comparison.sides
    save_comparison(made.root, replace(comparison, sides=(reference, replace(target, **change(made)))))
    line = refused(made, capsys, comparison.name)
    assert says in line
    assert "/cells/" in line


@pytest.mark.parametrize("study", ["x" * 300, "new\nline", "null\0byte", ""])
def test_a_strange_path_of_a_study_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, study: str) -> None:
    try:
        code: object = main(["report", str(tmp_path / study)])
    except SystemExit as refused:  # an argument with control characters is refused when it is parsed
        code = refused.code
    assert code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_study_of_several_machines_says_so(tmp_path: Path) -> None:
    here = Environment(mue_check="0.3.0", torch="2.13.0", device="cpu", processor="one")
    there = replace(here, torch="2.11.0", device="GPU")
    made = Made(tmp_path / "study", environment=here)
    made.ask(made.side(32), replace(made, environment=there).side(64, 0.1))
    made.ask(made.side(32), made.side(128, 0.1))
    summary = summarize(made.root)
    assert summary.environments == {here: 8, there: 4}
    page = render_markdown(report_of(summary))
    assert "The cells come from 2 combinations of versions, device and processor" in page
    assert "| 0.3.0 | 2.13.0 | cpu | one | 8 |\n| 0.3.0 | 2.11.0 | GPU | one | 4 |" in page


def test_a_study_of_one_machine_says_nothing_of_it(made: Made) -> None:
    assert "Measured on" not in render_markdown(report_of(summarize(made.root)))
