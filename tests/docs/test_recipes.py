"""The recipes for CI and clusters: each file passes its linter, and the action does what it says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"
SCHEMAS = {
    RECIPES / "github.yml": "vendor.github-workflows",
    ROOT / "action.yml": "vendor.github-actions",
    RECIPES / "gitlab.yml": "vendor.gitlab-ci",
}
HOOKS = ROOT / ".pre-commit-hooks.yaml"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))


def lint(name: str, *arguments: str | Path, text: str | None = None) -> None:
    tool = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if tool is None:
        pytest.skip(f"needs {name} (the extra docs)")
    result = subprocess.run([tool, *arguments], input=text, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("path", "schema"), SCHEMAS.items(), ids=lambda value: getattr(value, "name", value))
def test_the_schema_accepts_it(path: Path, schema: str) -> None:
    lint("check-jsonschema", "--builtin-schema", schema, path)


@pytest.mark.parametrize("path", [*SCHEMAS, HOOKS, ROOT / "mkdocs.yml"], ids=lambda path: path.name)
def test_the_yaml_is_clean(path: Path) -> None:
    off = ", ".join(f"{rule}: disable" for rule in ("document-start", "comments", "braces"))
    lint("yamllint", "--strict", "-d", f"{{extends: default, rules: {{line-length: {{max: 140}}, {off}}}}}", path)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.sh")), ids=lambda path: path.name)
def test_a_batch_script_is_clean(path: Path) -> None:
    lint("shellcheck", path)


@pytest.mark.parametrize("step", ACTION["runs"]["steps"], ids=lambda step: step["name"])
def test_a_step_of_the_action_is_clean(step: dict[str, str]) -> None:
    lint("shellcheck", "--shell", "bash", "-", text=step["run"])


def test_the_hook_is_a_command() -> None:
    (hook,) = yaml.safe_load(HOOKS.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", *hook["entry"].split(), "docs/examples/my_router.py:Router", "--only", "fit"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def run_step(name: str, tmp_path: Path, **env: str) -> tuple[int, str]:
    """Run a step of the action as GitHub does; its exit code and the summary of the job."""
    (step,) = (step for step in ACTION["runs"]["steps"] if step["name"] == name)
    summary = tmp_path / "summary.md"
    fake = tmp_path / "mue_check"
    fake.write_text('#!/bin/sh\necho "$@" >> "$CALLED"\necho verdict\nexit "$CODE"\n')
    fake.chmod(0o755)
    (script := tmp_path / "step.sh").write_text(step["run"])
    path = f"{tmp_path}:/usr/bin:/bin"
    env = {"PATH": path, "GITHUB_STEP_SUMMARY": str(summary), "CALLED": str(tmp_path / "called"), **env}
    result = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", script], env=env, cwd=tmp_path, check=False
    )
    return result.returncode, summary.read_text() if summary.exists() else (tmp_path / "called").read_text()


@pytest.mark.parametrize("code", [0, 1])
def test_the_router_step_ends_with_the_codes_of_the_command(tmp_path: Path, code: int) -> None:
    assert run_step("Check the router", tmp_path, ROUTER="a.py:R", CODE=str(code)) == (code, "```\nverdict\n```\n")


def test_the_suites_get_tier_router_and_further_options(tmp_path: Path) -> None:
    env = {"TIER": "smoke", "STUDY": "s", "CODE": "0"}
    _, called = run_step("Run the suites", tmp_path, ROUTER="a.py:R", OPTIONS="--axes width --rungs 1", **env)
    assert called == "suite --tier smoke --study s -n auto --router a.py:R --axes width --rungs 1\n"


def test_the_report_is_the_summary(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# PASS\n")
    assert run_step("Summary", tmp_path, STUDY=".", CODE="0") == (0, "# PASS\n")
