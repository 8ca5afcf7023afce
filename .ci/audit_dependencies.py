"""Look for known vulnerabilities in the pinned dependencies with pip-audit: exit 1 if one is found.

pip-audit asks PyPI's database. Without the network, or behind a mirror that has no such database, nothing can be said:
that is printed, and the build goes on. pip-audit itself counts a package that it could not look up as fine.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PIP_AUDIT = "pip-audit==2.10.1"
SECONDS = 300


def main(folder: Path) -> int:
    """Audit ``constraints.txt`` with a pip-audit in a virtual environment in ``folder``."""
    tool = folder / "bin" / "pip-audit"
    try:
        if not tool.exists():
            venv.create(folder, with_pip=True)
            run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", PIP_AUDIT]).check_returncode()
        options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
        done = run([str(tool), "--requirement", str(ROOT / "constraints.txt"), *options])
    except (OSError, subprocess.SubprocessError) as error:
        print(f"dependencies: not audited, pip-audit cannot be installed or run: {error}")
        return 0
    text, code = report(done.stdout)
    print(text)
    return code


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command, and keep what it prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)


def report(found: str) -> tuple[str, int]:
    """What to print about pip-audit's JSON, and the exit code."""
    try:
        packages: list[dict[str, Any]] = json.loads(found)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return "dependencies: not audited, the database of vulnerabilities is not reachable", 0
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        return f"dependencies: not audited, no database that is reachable knows any of the {len(packages)}", 0
    lines = [
        f"dependencies: {package['name']} {package['version']} has {bug['id']}, fixed in "
        f"{', '.join(bug['fix_versions']) or 'no version'}"
        for package in known
        for bug in package["vulns"]
    ]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    rest = f"; not in the database: {', '.join(unknown)}" if unknown else ""
    none = f"dependencies: no known vulnerability in {len(known)} packages{rest}"
    return "\n".join(lines) or none, int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
