"""The wheel, unpacked in a folder of its own: it holds the suites and examples, and leaves other projects alone."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]
FILES = {
    "conftest.py": "def pytest_addoption(parser):\n    parser.addoption('--seeds', type=int, default=3)\n",
    "test_own.py": "def test_seeds(request):\n    assert request.config.getoption('--seeds') == 5\n",
    "pyproject.toml": "[tool.pytest.ini_options]\naddopts = ['--seeds=5', '--strict-config']\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's project, whose tests have an option with the name of one of ours."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, project: Path) -> Run:
    """Run a Python module in the project, with the wheel before everything else on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    built = subprocess.run([sys.executable, "-c", build], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(folder / "site")
    env = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)

    return run


def test_the_suites_run_from_any_folder_and_without_its_options(run: Run, project: Path) -> None:
    result = run("mue_check", "suite", "test_width.py", "-k", "test_scales and not width_of", "--study", "s")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
    report = (project / "s" / "report.md").read_text()
    assert "mue_check suite 'suites/test_width.py::test_scales[markov-width]'" in report


def test_the_tests_of_the_project_have_its_options_only(run: Run) -> None:
    result = run("pytest", "-q", "test_own.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--tier" not in run("pytest", "--help").stdout


def test_the_examples_are_copied_and_the_mistake_in_one_is_found(run: Run, project: Path) -> None:
    copied = run("mue_check", "examples", "mine")
    assert sorted(copied.stdout.split()) == sorted(
        f"mine/{path.name}" for path in (ROOT / "docs/examples").iterdir() if path.is_file()
    )
    again = run("mue_check", "examples", "mine")
    assert again.returncode == 2
    assert again.stderr.endswith("exists: name another folder\n")
    checked = run("mue_check", "router", "mine/my_router.py:Router", "--only", "claim")
    assert (checked.returncode, "FAIL (bias-selection)" in checked.stdout) == (1, True), checked.stderr


def test_every_pinned_version_installs_on_the_lowest_python_that_is_promised() -> None:
    """Debian 12 has Python 3.11.2: a pin that asks for 3.11.5 makes the first command fail there."""
    needs = {dist.name.lower().replace("_", "-"): dist.metadata.get("Requires-Python") for dist in distributions()}
    assert needs["mue-check"] == ">=3.11"
    lines = (ROOT / "constraints.txt").read_text().lower().replace("_", "-").splitlines()
    pins = [line.partition("==")[0] for line in lines]
    asked = {pin: needs[pin] for pin in pins if needs.get(pin)}
    assert len(asked) > 30
    assert {pin: need for pin, need in asked.items() if "3.11.0" not in SpecifierSet(need)} == {}
