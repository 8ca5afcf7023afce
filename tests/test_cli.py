import csv
import errno
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.cli import main
from mue_check.cli.command import write_output
from mue_check.mutants.run import get_mutant

REFERENCE = "d=128,L=32,H=128,B=65536,T=25000"
TARGET = "d=1024,L=32,128e8a1s,h=1024,B=65536,T=100000"
COLUMNS = ["role", "init_std", "lr", "weight_decay", "eps", "beta1", "beta2", "forward_multiplier"]


def rules(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["rules", "--reference", REFERENCE, "--target", TARGET, *arguments]) == 0
    return capsys.readouterr().out


def test_json_and_csv_hold_the_same_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(rules(capsys, "--format", "json"))
    assert [list(row) for row in rows] == [COLUMNS] * len(rows)
    down = next(row for row in rows if row["role"] == "expert_down")
    assert down["forward_multiplier"] == pytest.approx(1 / 9)
    assert down["lr"] == pytest.approx(6.25e-5)
    parsed = list(csv.DictReader(io.StringIO(rules(capsys, "--format", "csv"))))
    assert [row["role"] for row in parsed] == [row["role"] for row in rows]
    assert [float(row["init_std"]) for row in parsed] == [row["init_std"] for row in rows]


def test_table_shows_every_role_and_where_multipliers_go(capsys: pytest.CaptureFixture[str]) -> None:
    out = rules(capsys)
    for word in ("complete_mue", *COLUMNS, "shared_down", "unembedding", "0.1111"):
        assert word in out
    assert "unit expansion" not in out


def test_a_reference_of_another_expansion_gets_a_note_on_its_tuning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--reference", "d=128,L=2,H=512", "--target", "d=256,H=1024"]) == 0
    assert "tuned with A = 0.25 and with its down-projection at 2 x init_std" in capsys.readouterr().out


def test_base_values_are_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    out = rules(
        capsys,
        "--format=json",
        "--lr=4.52e-3",
        "--wd=0.02",
        "--init-std=0.02",
        "--eps=1e-9",
        "--beta1=0.8",
        "--beta2=0.9",
    )
    row = json.loads(out)[0]
    assert row["lr"] == pytest.approx(2.26e-3)
    assert row["weight_decay"] == pytest.approx(0.01)
    assert row["init_std"] == 0.02
    assert row["eps"] == pytest.approx(2e-9)
    assert row["beta1"] == pytest.approx(0.95)


def test_completion_knows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    assert main(["--print-completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert {"mue_check_report", "mue_check_judge"} <= set(re.findall("_shtab_(mue_check_[a-z]+)_", script))


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "mue_check suite" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("arguments", [["--help"], ["rules", "--help"], ["report", "--help"], ["compare", "--help"]])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "example: mue_check" in out or "`mue_check suite`" in out


RULES = ["rules", "--reference", REFERENCE, "--target", TARGET]
BUDGET = ["budget", "--load", "1,2,3,4", "--spec", "4e1a", "--batch", "8"]
ROUTER = ["router", "builtin:sigmoid_norm"]
MUTANTS = ["mutants", "--study", "study"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*RULES, "--target", "d=1024,4e8a"], "at most N=4"),
        ([*RULES, "--target", "d=1000"], "not divisible by the head width"),
        ([*RULES, "--target", "d=1024,16e4a3g"], "must divide"),
        ([*RULES, "--target", "q=3"], "unknown key 'q'"),
        ([*RULES, "--target", "B=6553600,T=1"], "must lie in [0, 1)"),
        ([*RULES, "--rule", "mump"], "unknown rule 'mump'"),
        ([*RULES, "--lr", "-1"], "lr=-1.0"),
        ([*RULES, "--lr", "fast"], "invalid float value"),
        ([*RULES, "--format", "yaml"], "unknown value 'yaml'"),
        (["rules", "--reference", REFERENCE], "--target"),
        (["rules", "--reference", f"d={'9' * 400},L=2,H=8", "--target", "d=8"], "ModelSpec.width=9999999999"),
        (["rules", "--reference", "FILE.toml", "--target", "d=8"], "nested too deep"),
        ([*BUDGET, "--load", "FILE"], "its brackets are nested too deep"),
        ([*BUDGET, "--batch", "9" * 400], "and at most 1e+15"),
        ([*BUDGET, "--spec", f"4e{'9' * 5000}a"], "is not a notation of experts"),
        ([*BUDGET, "--tolerance", "inf"], "tolerance inf: must"),
        ([*BUDGET, "--calibration", "FILE"], "nested too deep"),
        ([*ROUTER, "--time-limit", "inf"], "--time-limit inf: must be above 0"),
        ([*ROUTER, "--seeds", "9" * 30], "--seeds 99999999999999999999...: must"),
        ([*ROUTER, "--claim", "FILE.toml"], "nested too deep"),
        ([*ROUTER, "--expected", "FILE.toml"], "nested too deep"),
        ([*ROUTER, "--shapes", f"{'9' * 5000}x8x4x1"], "write d_model x d_expert"),
        ([*MUTANTS, "--only", "typo"], "unknown mutant 'typo': allowed are hidden_lr_unscaled"),
        ([*MUTANTS, "--tier", "huge"], "unknown tier 'huge'"),
        ([*MUTANTS, "--workers", "0"], "--workers 0: must be at least 1"),
        (["nothing"], "unknown command 'nothing'"),
        (["reprot"], "unknown command 'reprot' (did you mean 'report'?)"),
        (["report"], "STUDY"),
        (["report", "nowhere"], "holds no study"),
        (["report", "x", "--quite"], "unknown option '--quite' (did you mean '--quiet'?)"),
        (["report", "a\nb"], "must not contain line breaks"),
        (["report", "x" * 300], "xxx"),
        (["compare"], "STUDY"),
        (["compare", "x" * 5000], "xxx"),
        (["plan", "--budget", "9" * 400 + "h"], "write a time above 0"),
        (["--print-completion", "fish"], "give one of bash, zsh, tcsh"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else value[0],
)
def test_bad_arguments_and_files_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("[" * 100_000)
    Path("FILE.toml").write_text("a = " + "[" * 100_000)
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(str(stop.code))
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1
    assert len(captured.err) < 1100
    assert says in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "FILE.toml"]


def test_a_result_never_replaces_a_device(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_output(str(pipe), "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert pipe.is_fifo()


def test_as_a_module_and_into_a_closed_pipe() -> None:
    root = Path(__file__).parents[1]
    code = f"{sys.executable} -m mue_check rules --reference {REFERENCE} --target {TARGET} --format json | head -1"
    out = subprocess.run(code, shell=True, cwd=root, capture_output=True, text=True, check=True, env=os.environ.copy())
    assert out.stdout.strip() == "["
    assert out.stderr == ""


def test_mutants_are_put_before_the_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "made" / "table.md"
    only = "betas_not_moved_with_batch,weight_decay_not_moved_with_duration"
    arguments = ["mutants", "--only", only, "--study", str(tmp_path / "study"), "--out", str(table)]
    assert main(arguments) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "ok   betas_not_moved_with_batch (batch_at_fixed_tokens): audit caught"
    assert out[-1] == "2 of 2 mutants caught by the check that names them"
    text = table.read_text(encoding="utf-8")
    assert "Score 100%" in text
    assert "beta1 0.9, prescribed 0.6, 1.5 times" in text


def test_a_mutant_that_nothing_catches_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless = replace(get_mutant("eps_not_moved_with_batch"), build=lambda p: p)
    monkeypatch.setattr("mue_check.mutants.run.get_mutant", lambda name: harmless)
    assert main(["mutants", "--only", "eps_not_moved_with_batch", "--study", str(tmp_path / "study")]) == 1
    out = capsys.readouterr().out
    assert "MISS eps_not_moved_with_batch" in out
    assert "not caught: eps_not_moved_with_batch (must be seen by audit): audit PASS: 18 parameters" in out


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BrokenPipeError(), 141, ""),
        (KeyboardInterrupt(), 130, "mue_check rules: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left"), 2, "mue_check rules: the output cannot be used: No space left\n"),
    ],
    ids=["reader left", "interrupted", "full disk"],
)
def test_what_stops_halfway_is_no_pass(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    class Errors(io.StringIO):
        told = ""

        def write(self, text: str) -> int:
            self.told += text
            return len(text)

    def stopped(options: object) -> int:
        raise error

    errors = Errors()
    monkeypatch.setattr("mue_check.cli.rules.run", stopped)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["rules", "--reference", REFERENCE, "--target", TARGET]) == code
    assert errors.told == says
