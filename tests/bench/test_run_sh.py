"""tests/gpu/run.sh with a stand-in for Python: the deadline holds, and what was finished is packed."""

import os
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "gpu" / "run.sh"
PARTS = (
    *("device", "kernels", "test_cuda", "test_memory", "bench", "gpu_tier", "report"),
    *("test_others", "launches", "gpu_tier_continued", "report_of_all"),
)
STAND_IN = """#!/usr/bin/env bash
echo "python $*"
arguments="$*"
while [ $# -gt 0 ]; do
  case $1 in
    --json) echo '{}' >"$2"; echo table >"${2%.json}.md" ;;
    --study) mkdir -p "$2/cells" "$2/locks"; echo '{}' >>"$2/cells/a.json"; touch "$2/locks/a" ;;
    report) [ ! -d "$2" ] || echo report >"$2/report.md" ;;
  esac
  shift
done
[[ -z $FAIL || $arguments != *$FAIL* ]] || exit 3
[[ -z $HANG || $arguments != *$HANG* ]] || { trap '' INT; while :; do sleep 1; done; }
[[ -z $STOP || $arguments != *$STOP* ]] || { trap 'echo interrupted; exit 2' INT; while :; do sleep 0.2; done; }
"""


def run(tmp_path: Path, *, deadline: int = 60, **behavior: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """Exit code, each part's line of the summary, and the files that came out with their size in the name of a tar."""
    tmp_path.mkdir(exist_ok=True)
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    settings = {
        "FAIL": "",
        "HANG": "",
        "STOP": "",
        "PYTHON": str(python),
        "DEADLINE": str(deadline),
        "GRACE": "1",
        "REPORT": "2",
    }
    began = time.monotonic()
    done = subprocess.run(
        [str(SCRIPT), str(tmp_path / "out")],
        env={**os.environ, "GRACE": "1", **settings, **behavior},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert time.monotonic() - began < deadline, done.stdout
    assert not done.stderr or "HANG" in behavior  # bash prints "Killed"
    files = {file.name: "" for file in (tmp_path / "out").iterdir()}
    for name in files:
        if name.endswith(".tar.gz"):
            with tarfile.open(tmp_path / "out" / name) as packed:
                files[name] = " ".join(packed.getnames())
    lines = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    return done.returncode, dict(line.split(": ", 1) for line in lines if ": " in line), files


def test_every_part_runs_and_is_packed(tmp_path: Path) -> None:
    code, parts, files = run(tmp_path)
    assert code == 0
    assert tuple(parts) == PARTS
    assert all(text.startswith("exit 0 after") for text in parts.values())
    assert set(files) == {"summary.txt", "results.tar.gz", "study.tar.gz", "bench.md", "report.md"}
    assert all(f"results/{name}.log" in files["results.tar.gz"] for name in PARTS)
    assert "results/bench.json" in files["results.tar.gz"]
    assert "study/cells/a.json" in files["study.tar.gz"]
    assert "locks" not in files["study.tar.gz"]


def test_only_some_parts_run(tmp_path: Path) -> None:
    code, parts, _ = run(tmp_path, ONLY="test_memory report", FAIL="test_cuda.py")
    assert code == 0
    assert tuple(parts) == ("device", "test_memory", "report")


@pytest.mark.parametrize("fails", ["test_cuda.py", "bench --device"])
def test_a_part_that_fails_does_not_stop_the_others(tmp_path: Path, fails: str) -> None:
    code, parts, files = run(tmp_path, FAIL=f"{fails}")
    assert code == 1
    assert tuple(parts) == PARTS
    assert len(files) == 5
    assert sum(text.startswith("exit 3 after") for text in parts.values()) in (1, 2)  # test_others names test_cuda.py


def test_the_deadline_holds_and_what_was_finished_is_packed(tmp_path: Path) -> None:
    """A part that hangs and ignores signals, a report that does, and a tier that is interrupted; they wait together."""
    behaviors = {"bench": "bench --device", "report": "mue_check report", "tier": "suites/"}
    deadlines = {"bench": 8, "report": 16, "tier": 12}
    with ThreadPoolExecutor() as pool:
        started = {
            name: pool.submit(
                run, tmp_path / name, deadline=deadlines[name], **{"STOP" if name == "tier" else "HANG": what}
            )
            for name, what in behaviors.items()
        }
    code, parts, files = started["bench"].result()
    assert code == 1
    assert tuple(parts) == PARTS
    assert parts["bench"].startswith("exit 137 after")
    assert parts["report_of_all"].startswith("exit skipped")
    assert "results/bench.log" in files["results.tar.gz"]

    code, parts, files = started["report"].result()
    assert code == 1
    assert parts["report"].startswith("exit 137 after")
    assert parts["launches"].startswith("exit 0 after")
    assert "study/cells/a.json" in files["study.tar.gz"]

    _, parts, files = started["tier"].result()
    with tarfile.open(tmp_path / "tier" / "out" / "results.tar.gz") as packed:
        log = packed.extractfile("results/gpu_tier.log")
        assert log is not None
        assert "interrupted" in log.read().decode()
    assert parts["gpu_tier"].startswith("exit 124 after")
    assert {"study.tar.gz", "summary.txt", "results.tar.gz", "bench.md"} <= set(files)
    assert parts["gpu_tier_continued"].startswith("exit skipped")
    assert parts["report"].startswith("exit 0 after")
    assert "report.md" in files


def test_gpu_tests_print_a_failure_when_it_happens(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((SCRIPT.parent / "conftest.py").read_text())
    pytester.makepyfile("import os\ndef test_fails():\n    assert 1 == 2\ndef test_dies():\n    os._exit(3)")
    result = pytester.runpytest_subprocess("-p", "no:mue_check.pytest_plugin")
    assert result.ret == 3
    result.stdout.fnmatch_lines(["E*assert 1 == 2"])
