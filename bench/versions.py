"""Run the tests that depend on torch, transformers, numpy and pytest under several interpreters, and write a table.

python bench/versions.py .venv/bin/python other/bin/python --out reports/bench/versions.md

Each interpreter has the dependencies of mue_check, in the versions that are to be tried.
"""

import argparse
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("torch", "triton", "transformers", "numpy", "pandas", "pytest")
TESTS = (
    *("tests/audit", "tests/bridges", "tests/conformance/test_hugging_face.py", "tests/cost/test_flops.py"),
    *("tests/models", "tests/routing", "tests/rules", "tests/training", "tests/test_cli.py", "tests/test_spec.py"),
)
VERSIONS = f"""
import sys
from importlib.metadata import PackageNotFoundError, version
print(sys.version.split()[0])
for name in {NAMES}:
    try:
        print(version(name))
    except PackageNotFoundError:
        print("-")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", nargs="+")
    parser.add_argument("--tests", default=" ".join(TESTS), help="for pytest")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    rows = []
    for python in options.python:
        found = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.split()
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line", *options.tests.split()]
        result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        print(result.stdout)
        rows.append([*found, result.stdout.strip().splitlines()[-1].strip("= ").split(" in ")[0]])
    header = ["Python", *NAMES, "tests"]
    lines = ["# Versions", "", f"`pytest {options.tests}` on a CPU. Written by `python bench/versions.py`.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
