"""Questions without an answer keep a study from passing; a report says which they are, and which run asked what."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.catalog import summarize
from mue_check.cli import main
from mue_check.errors import MueCheckError
from mue_check.judge.verdict import Verdict
from mue_check.measure import MEASUREMENTS
from mue_check.mutants.run import get_mutant
from mue_check.overview.conclusion import count_lines, outcome_lines
from mue_check.overview.sections import question_table
from mue_check.questions.drift import ask_drift
from mue_check.questions.values import ValuesFinding, ask_values
from mue_check.records.files import read_record, write_record
from mue_check.rules import get_rule
from mue_check.study.asked import load_asked
from mue_check.study.comparison import load_comparisons
from mue_check.study.folder import Study
from tests.report.conftest import Made
from tests.studies import LADDER, study_at

WIDTH, DEPTH = (f"drift-{axis}-d64-lr-markov-complete_mue-sigmoid_norm" for axis in ("width", "depth"))
LATER = "2026-11-02T10:00:00.000000Z"


@pytest.fixture
def study(made: Made) -> Path:
    """Two questions, both answered with PASS."""
    made.store.prepare()
    made.ask(made.side(32), made.side(64, 0.1))
    made.ask(made.side(32), made.side(64, 0.2), axis="depth")
    return made.root


def edit(path: Path, **fields: object) -> None:
    write_record(path, read_record(path) | fields, root=path.parent)


def reported(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code of ``mue_check report``, what it printed, and the Markdown that it wrote."""
    code = main(["report", str(root)])
    out = capsys.readouterr()
    return code, out.out + out.err, (root / "report.md").read_text() if code != 2 else ""


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn in other tests."""
    monkeypatch.setattr("mue_check.report.write.svg_of", lambda figure: b'<svg width="1pt" height="1pt"/>')


def test_a_study_whose_questions_are_answered_passes(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, page = reported(study, capsys)
    assert code == 0
    assert "whole study: PASS, 2 questions" in said
    assert page.startswith("# study: PASS\n")
    assert "without an answer" not in page


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda path: path.unlink(), "no answer was stored"),
        (lambda path: edit(path, expected=""), "asked with expected 'PASS', but the stored answer has ''"),
        (lambda path: edit(path, tolerance=2.0), "asked with tolerance 0.5, but the stored answer has 2.0"),
    ],
)
def test_an_answer_that_is_gone_or_changed_is_none(
    study: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Path], None], why: str
) -> None:
    change(study / "comparisons" / f"{DEPTH}.json")
    code, said, page = reported(study, capsys)
    assert code == 3
    assert "whole study: INCONCLUSIVE, 2 questions, 1 without an answer" in said
    assert f"no answer: {DEPTH}: " in said
    assert why in said
    assert page.startswith("# study: INCONCLUSIVE\n")
    assert "## Questions without an answer" in page
    assert why in page
    assert "Questions without an answer" in (study / "report.html").read_text()


def test_a_failure_is_a_failure_whatever_else_has_no_answer(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Made(study)
    made.ask(made.side(32), made.side(128, 1.5))
    (study / "comparisons" / f"{DEPTH}.json").unlink()
    assert reported(study, capsys)[0] == 1


def test_a_study_without_any_answer_has_a_report(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    made.ask(made.side(32), made.side(64, 0.1), answered=False)
    code, said, page = reported(made.root, capsys)
    assert code == 3
    assert "1 question, 1 without an answer" in said
    assert "pytest suites/ -k d64" in page


@pytest.mark.parametrize("folder", ["comparisons", "asked"])
def test_an_unknown_kind_is_an_error_that_names_the_file(
    study: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study / folder / f"{DEPTH}.json"
    if folder == "asked":
        edit(path, question=json.loads(path.read_text())["question"] | {"kind": "drfit"})
    else:
        edit(path, kind="drfit")
    code, said, _ = reported(study, capsys)
    assert code == 2
    assert said.count("\n") == 1
    assert f"{path}': unknown kind 'drfit' (did you mean 'drift'?)" in said


def test_a_study_without_its_list_of_questions_says_so(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (study / "asked").iterdir():
        path.unlink()
    code, said, page = reported(study, capsys)
    assert code == 3
    assert said.count("2 of 2 answers are not in the study's list of questions") == 1
    assert "2 of 2 answers are not in the study's list" in page


def test_a_report_says_what_the_last_run_asked(study: Path) -> None:
    later = Made(study, rule="standard", run=LATER)
    later.ask(later.side(32), later.side(64, 1.5))
    summary = summarize(study)
    assert summary.last_run == LATER
    assert count_lines(summary)[0] == f"whole study: 3 questions; the last run ({LATER}) asked 1 of them"
    assert outcome_lines(summary.of_run(LATER), "this run") == ["this run: FAIL, 1 question"]
    assert outcome_lines(summary.of_run(Made(study).run), "this run") == ["this run: PASS, 2 questions"]
    table = question_table(summary)
    (row,) = (row.cells for row in table.rows if "-standard-" in row.cells[0])
    assert row[-2:] == (LATER, "yes")
    again = Made(study, run=LATER)  # a question that is asked again is the later run's
    again.ask(again.side(32), again.side(64, 0.1))
    assert len(summarize(study).of_run(LATER).asked) == 2


@pytest.fixture
def asked(tmp_path: Path) -> Study:
    """A study that can be asked."""
    return study_at(tmp_path / "study", run=LATER)


class Stops(BaseException):
    """As pytest's skip, or SystemExit."""


@pytest.mark.parametrize("error", [MueCheckError("no"), RuntimeError(), KeyboardInterrupt(), SystemExit(0), Stops()])
def test_a_question_that_raises_was_asked(asked: Study, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(cell: object, corpus: object) -> None:
        (file,) = load_asked(asked.root)  # before it is measured
        assert file.question.expected == "PASS"
        raise error

    monkeypatch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=measure))
    usual = isinstance(error, Exception | KeyboardInterrupt)
    with pytest.raises(type(error) if usual else MueCheckError) as caught:
        ask_drift(asked, LADDER, LADDER.targets[0])
    if not usual:
        assert f"width-d64-markov-complete_mue: while it was measured, user code raised {type(error).__name__}" in str(
            caught.value
        )
    (unanswered,) = summarize(asked.root).unanswered
    assert unanswered.comparison.name == "width-d64-markov-complete_mue"


def test_a_finding_that_raises_is_unanswered_too(asked: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_values(asked, LADDER, LADDER.targets[0])
    assert summarize(asked.root).as_expected

    def measure(cell: object, corpus: object) -> None:
        raise RuntimeError

    monkeypatch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=measure))
    beside = asked.with_rule(get_rule("standard"))
    with pytest.raises(RuntimeError):
        ask_drift(beside, LADDER, LADDER.targets[0], finding=True)
    assert summarize(asked.root).verdict is Verdict.INCONCLUSIVE


def test_asking_again_withdraws_an_answer_until_it_is_there(asked: Study) -> None:
    found = ask_values(asked, LADDER, LADDER.targets[0])
    assert load_comparisons(asked.root) == [found.comparison]
    with pytest.raises(RuntimeError), asked.asking(replace(found.comparison, sides=())):
        raise RuntimeError("the second run")
    assert load_comparisons(asked.root) == []
    ask_values(asked, LADDER, LADDER.targets[0])
    assert summarize(asked.root).as_expected


def test_a_failed_audit_of_values_fails_the_study(asked: Study, capsys: pytest.CaptureFixture[str]) -> None:
    ask_values(asked, LADDER, LADDER.targets[0])
    assert reported(asked.root, capsys)[0] == 0
    mutant = get_mutant("hidden_lr_unscaled")
    ask_values(asked, LADDER, LADDER.targets[0], mutant)
    right, wrong = summarize(asked.root).of(ValuesFinding)
    assert (right.verdict, wrong.verdict) == (Verdict.PASS, Verdict.FAIL)
    code, said, page = reported(asked.root, capsys)
    assert code == 1
    assert "whole study: FAIL, 2 questions" in said
    assert "ffn_up" in page
