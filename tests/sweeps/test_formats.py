"""A made-up sweep in every format gives its known drift."""

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mue_check.cli import main
from tests.sweeps.made_up import FORMATS, WIDTHS, Capture, judge, runs, tidy_csv, wandb_names


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_known_drift(name: str, tmp_path: Path, capsys: Capture) -> None:
    code, found = judge(capsys, FORMATS[name](runs(-1.0), tmp_path))
    assert [arm["size"] for arm in found["arms"]] == list(WIDTHS)
    assert [arm["drift"]["mean"] for arm in found["arms"][1:]] == pytest.approx([-1, -2], abs=0.02)
    assert found["exponent"]["mean"] == pytest.approx(-1, abs=0.02)
    assert (code, found["verdict"]) == (1, "FAIL")


READERS = [("parquet", "read_parquet", "pyarrow"), ("xlsx", "read_excel", "openpyxl")]


@pytest.mark.parametrize(("kind", "reader", "library"), READERS)
def test_other_files_are_read_where_pandas_reads_them(
    kind: str, reader: str, library: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns that pandas kept as an index count, too."""
    (path := tmp_path / f"runs.{kind}").write_bytes(b"PK")
    monkeypatch.setattr(pd, reader, lambda _: runs(-1.0).set_index("width"))
    assert judge(capsys, path)[1]["exponent"]["mean"] == pytest.approx(-1, abs=0.02)

    def unavailable(_: Path) -> None:
        raise ImportError("Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.")

    monkeypatch.setattr(pd, reader, unavailable)
    assert main(["judge", str(path)]) == 2
    assert f"pip install {library}, or export CSV" in capsys.readouterr().err


def test_several_files_are_one_sweep(tmp_path: Path, capsys: Capture) -> None:
    paths = []
    for width in WIDTHS:
        own = runs(0.5, widths=[width])[["lr", "loss"]]
        own.to_csv(path := tmp_path / f"width_{width}.csv", index=False)
        paths.append(path)
    assert judge(capsys, *paths)[1]["exponent"]["mean"] == pytest.approx(0.5, abs=0.02)


def test_files_whose_names_say_nothing_are_the_arms(tmp_path: Path, capsys: Capture) -> None:
    for name, drift in (("dense", 0.0), ("moe", 1.0)):
        runs(drift, widths=[128])[["lr", "loss"]].to_csv(tmp_path / f"{name}.csv", index=False)
    _, found = judge(capsys, tmp_path / "dense.csv", tmp_path / "moe.csv")
    assert found["columns"]["arm"] == "file"
    assert found["arms"][1]["drift"]["mean"] == pytest.approx(1, abs=0.02)


def test_options_name_columns_that_no_guess_would_find(tmp_path: Path, capsys: Capture) -> None:
    table = runs(1.0).rename(columns={"lr": "peak", "loss": "metric", "width": "kind"})
    found = judge(capsys, tidy_csv(table, tmp_path), "--x", "peak", "--loss", "metric", "--arm", "kind")[1]
    assert found["exponent"]["mean"] == pytest.approx(1, abs=0.02)


def test_a_pattern_reads_names(tmp_path: Path, capsys: Capture) -> None:
    path = wandb_names(runs(1.0), tmp_path)
    found = judge(capsys, path, "--pattern", "w{size}-lr{lr}", "--arm", "size")[1]
    assert found["exponent"]["mean"] == pytest.approx(1, abs=0.02)


def test_log2_rates_are_rates(tmp_path: Path, capsys: Capture) -> None:
    table = runs(1.0)
    table["log2lr"] = table.pop("lr").map(lambda rate: f"{math.log2(rate):g}")
    assert judge(capsys, tidy_csv(table, tmp_path))[1]["exponent"]["mean"] == pytest.approx(1, abs=0.02)


def test_judging_tables_and_studies_loads_no_torch(tmp_path: Path) -> None:
    path = tidy_csv(runs(0.0), tmp_path)
    code = f"import sys, mue_check.catalog; from mue_check.cli import main; main(['judge', {str(path)!r}])"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
