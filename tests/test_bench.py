"""The benchmark scripts run, do the same work on all sides, and write what they found. Nothing here is timed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("script", "key"), [("fused_runs.py", "cases"), ("expert_product.py", "rows")])
def test_it_runs_and_writes(tmp_path: Path, script: str, key: str) -> None:
    out = tmp_path / "out.json"
    subprocess.run(
        [sys.executable, str(ROOT / "bench" / script), "--quick", "--json", str(out)],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    rows = json.loads(out.read_text())[key]
    assert len(rows) == 1
    assert all(value > 0 for value in rows[0].values() if not isinstance(value, str))
