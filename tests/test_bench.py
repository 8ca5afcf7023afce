"""The benchmark scripts run, do the same work on all sides, and write what they found. Nothing here is timed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def test_it_runs_and_writes(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, str(ROOT / "bench" / "expert_product.py"), "--quick", "--json", str(out)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 1
    assert all(value > 0 for value in rows[0].values() if not isinstance(value, str))


def test_null_controls_in_small(tmp_path: Path) -> None:
    """Two of the pairs that reports/calibration has a hundred of: real trainings, other seeds, no failure."""
    subprocess.run(
        [
            *(sys.executable, str(ROOT / "bench" / "null_controls.py"), "--pairs", "2", "--workers", "1"),
            *("--study", str(tmp_path / "study"), "--out", str(tmp_path / "out")),
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    rows = (tmp_path / "out" / "null_controls.csv").read_text().splitlines()
    assert len(rows) == 3
    assert not [row for row in rows if row.endswith("FAIL")]
    assert "The 95 % interval holds 0 in" in (tmp_path / "out" / "null_controls.md").read_text()


def test_load_control_in_small(tmp_path: Path) -> None:
    """One load, both controls: steering is there at once, and the published rule takes longer than a short training."""
    subprocess.run(
        [sys.executable, str(ROOT / "bench" / "load_control.py"), "--quick", "--out", str(tmp_path)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    table = pd.read_csv(tmp_path / "load_control.csv")
    assert set(table["window"]) == {"1-50", "held-out", "held-out, carried on"}
    error = table[table["window"] == "1-50"].groupby("control")["max_error"].max()
    assert error["steering"] < 0.1
    assert error["sign rule, step 0.01"] > 1
    assert (tmp_path / "load_control.md").read_text().count("| 16e2a,h=16 | zipf:1 | 60 |") == 4
