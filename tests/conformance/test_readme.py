"""The README's example is what the command prints."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_is_printed() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("mue_check router docs/examples/my_router.py:Router\n")[1].split("```")[0]
    lines = [line for line in shown.splitlines() if line.strip() and line.strip() != "..."]
    assert len(lines) > 15
    result = subprocess.run(
        [sys.executable, "-m", "mue_check", "router", "docs/examples/my_router.py:Router"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 1
    printed = result.stdout.splitlines()
    assert [line for line in lines if line not in printed] == []
