"""The campaign of kills in small, in a process of its own: it forks."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from tests.reliability.kills import run
found = run(2, 1, Path(sys.argv[1]))
print(found.text())
sys.exit(bool(found.troubles) or found.kills != 2)
"""


def test_records_after_kills_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
