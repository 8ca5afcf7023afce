"""Every Triton kernel compiles for an H100: the interpreter, which runs them in other tests, accepts more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mue_check.models.kernels import HAS_TRITON


@pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
def test_every_kernel_compiles(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(root)}
    command = [
        sys.executable,
        "bench/compiled_kernels.py",
        "--out",
        str(tmp_path),
        "--arch",
        "90",
        "--precision",
        "tf32",
    ]
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    table = (tmp_path / "compiled_kernels.md").read_text()
    compiled = {line.split()[1] for line in table.splitlines() if " sm_90 " in line}
    source = "".join(path.read_text() for path in (root / "mue_check/models/kernels").glob("*.py"))
    assert compiled == set(re.findall(r"^ +_(\w+)\[.*\]\(", source, re.MULTILINE))
