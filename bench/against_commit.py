"""Compare the CPU time of the cpu tier's cells between this tree and an earlier commit, and check that numbers agree.

    python bench/against_commit.py 55ea0e2 [--out reports/bench] [--draws 20] [--repeats 3]

Run it in a git clone, on a quiet machine. COMMIT is checked out into a temporary worktree. Each version measures in its
own process, and the two take turns. The sample comes from the records of reports/example under complete_mue: groups of
cells that a question needs together (equal except for their seeds), drawn in proportion to their recorded cost, so that
the mean of new/old over the draws estimates that of the whole tier. A version measures a group as its own suites do: in
batches if it has `mue_check.execute.batches`, otherwise cell by cell. Of long trainings only the first steps are
measured, and their cost is extrapolated linearly. Both versions run on the installed torch. Exit code: 0; 1 if numbers
differ beyond TOLERANCE; 2 for bad arguments.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from packed import rebuild, unpacked

ROOT = Path(__file__).resolve().parents[1]
RULE = "complete_mue"
TOLERANCE = 1e-3
"""Relative above 1, absolute below: rounding depends on the layout of products."""
FIRST_SEEDS = 4
"""`seeds` of the cpu tier, measured together; more are added one by one. The null control's begin at 1000."""
LEAST_STEPS = 12
WHOLE = "whole"
Content = dict[str, object]


@dataclass(frozen=True)
class CellGroup:
    """Cells that a question needs together, their recorded cost, and how often the sample drew them."""

    cells: list[Content]
    seconds: float
    draws: int = 1

    @property
    def kind(self) -> str:
        cell = self.cells[0]
        return f"{cell['measurement']}, {'mixture' if 'total' in cell['model']['feed_forward'] else 'dense'}"

    @property
    def name(self) -> str:
        cell, model = self.cells[0], self.cells[0]["model"]
        ffn = model["feed_forward"]
        mixture = "{total}e{activated}a{shared}s h={hidden}"
        text = (mixture if "total" in ffn else "H={hidden}").format(**ffn)
        runs = f"{len(cell['values'])} values x {sum(len(c['seeds']) for c in self.cells)} seeds"
        return f"d={model['width']} L={model['depth']} {text}, {runs}"

    @property
    def steps(self) -> int:
        cell = self.cells[0]
        return cell["steps"][-1] if cell["measurement"] in ("coordinates", "early_curve") else cell["train"]["steps"]

    def one_step(self) -> list[Content]:
        """The same cells trained for one step: the cost of a measurement without its steps."""
        if self.cells[0]["measurement"] == "early_curve":
            return self.first_steps(1)
        return [{**cell, "train": {**cell["train"], "steps": 1, "warmup": 0}} for cell in self.cells]

    def first_steps(self, steps: int) -> list[Content]:
        """Their first steps, measuring only the training loss."""
        return [{**cell, "measurement": "early_curve", "steps": [steps]} for cell in self.cells]

    @property
    def can_be_cut(self) -> bool:
        return self.cells[0]["measurement"] in ("loss_grid", "routing", "early_curve")


def read_groups(archive: Path) -> list[CellGroup]:
    """The recorded cells of RULE on the first corpus, which every version has, grouped as a question measures them."""
    from mue_check.data import load_corpus

    corpus = load_corpus("markov").fingerprint
    records: dict[str, dict] = {}
    costs: dict[str, float] = {}
    with unpacked(archive) as study:
        for path in sorted((study / "cells").glob("*.json")):
            record = json.loads(path.read_text())
            if record["rule"] == RULE and record["cell"]["corpus"] == corpus:
                records[path.name] = record["cell"]
                cost = study / "costs" / path.name
                costs[path.name] = json.loads(cost.read_text())["core_seconds"] if cost.exists() else 0.0
    together: defaultdict[str, list[str]] = defaultdict(list)
    for file, cell in records.items():
        seeds = cell["seeds"]
        # seeds that are added later train on their own, one at a time or a round of several
        late = seeds if seeds[0] % 1000 >= FIRST_SEEDS else []
        together[json.dumps({**cell, "seeds": late, "side": seeds[0] // 1000}, sort_keys=True)].append(file)
    groups = []
    for _, files in sorted(together.items()):
        cells = sorted((records[file] for file in files), key=lambda cell: cell["seeds"])
        groups.append(CellGroup(cells, sum(costs[file] for file in files)))
    return sorted(groups, key=lambda group: (group.kind, group.name))


def draw(groups: list[CellGroup], draws: int) -> list[CellGroup]:
    """A systematic sample in proportion to cost, in which every kind keeps its share."""
    total = sum(group.seconds for group in groups)
    at, taken = 0.0, []
    for group in groups:
        low, at = at, at + group.seconds
        count = sum(low <= (i + 0.5) * total / draws < at for i in range(draws))
        if count:
            taken.append(CellGroup(group.cells, group.seconds, count))
    return taken


class Version:
    """A process that measures with the code of one tree."""

    def __init__(self, tree: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(tree)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tree, env=environment
        )

    def measure(self, cells: list[Content]) -> tuple[float, list[dict]]:
        """CPU seconds, and the columns of each cell."""
        self.process.stdin.write(json.dumps(cells) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a version's process ended; its error is printed above")
        answer = json.loads(line)
        return answer["seconds"], answer["columns"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def work(tree: Path) -> None:
    """The process of one version: reads a group of cells per line, writes CPU seconds and columns."""
    import mue_check

    if not Path(mue_check.__file__).resolve().is_relative_to(tree.resolve()):
        raise SystemExit(f"mue_check was imported from {mue_check.__file__}, not from {tree}")
    from mue_check.data import load_corpus
    from mue_check.execute.process import prepare_process
    from mue_check.measure import MEASUREMENTS

    try:
        from mue_check.execute.batches import make_batches, measure
    except ImportError:
        make_batches = measure = None

    prepare_process()
    for line in sys.stdin:
        cells = [rebuild(content) for content in json.loads(line)]
        began = time.process_time()
        if measure is None:
            columns = [MEASUREMENTS[cell.measurement](cell, load_corpus(cell.corpus)) for cell in cells]
        else:
            batches = [(batch, measure(batch)) for batch in make_batches(cells)]
            found = {cell.key: m.columns for batch, all_m in batches for cell, m in zip(batch, all_m, strict=True)}
            columns = [found[cell.key] for cell in cells]
        seconds = time.process_time() - began
        print(json.dumps({"seconds": seconds, "columns": columns}), flush=True)


def difference(old: list[dict], new: list[dict]) -> float:
    """The largest difference of any number, relative above 1; inf if the tables differ in shape."""
    worst = 0.0
    for ours, theirs in zip(new, old, strict=True):
        if set(ours) != set(theirs):
            return math.inf
        for name, values in ours.items():
            if len(values) != len(theirs[name]):
                return math.inf
            for a, b in zip(values, theirs[name], strict=True):
                if a == b or (a != a and b != b):
                    continue
                if isinstance(a, str) or isinstance(b, str) or not (math.isfinite(a) and math.isfinite(b)):
                    return math.inf
                worst = max(worst, abs(a - b) / max(1.0, abs(a), abs(b)))
    return worst


def extrapolated(seconds: dict[str, float], steps: int, all_steps: int) -> float:
    """Seconds of the whole training, extrapolated from its parts."""
    if WHOLE in seconds:
        return seconds[WHOLE]
    return seconds["fixed"] + (all_steps - 1) * (seconds["few"] - seconds["one"]) / (steps - 1)


def compare(versions: dict[str, Version], group: CellGroup, repeats: int, seconds: float) -> dict[str, object]:
    """Measure a group in both versions by turns: CPU seconds, and the largest difference of their numbers."""
    steps = group.steps
    parts = {WHOLE: group.cells}
    if group.can_be_cut:
        steps = min(group.steps, max(LEAST_STEPS, round(group.steps * seconds / group.seconds)))
    if steps < group.steps:
        parts = {"fixed": group.one_step(), "one": group.first_steps(1), "few": group.first_steps(steps)}
    times: dict[str, dict[str, list[float]]] = {name: {part: [] for part in parts} for name in versions}
    worst = 0.0
    for repeat in range(repeats):
        order = list(versions)[:: 1 if repeat % 2 == 0 else -1]
        for part, cells in parts.items():
            columns = {}
            for name in order:
                elapsed, columns[name] = versions[name].measure(cells)
                times[name][part].append(elapsed)
            worst = max(worst, difference(columns["old"], columns["new"]))
    middle = {name: {part: statistics.median(taken) for part, taken in own.items()} for name, own in times.items()}
    whole = {name: extrapolated(own, steps, group.steps) for name, own in middle.items()}
    last = list(parts)[-1]
    spread = [old / new for old, new in zip(times["old"][last], times["new"][last], strict=True)]
    return {
        "kind": group.kind,
        "group": group.name,
        "cells": len(group.cells),
        "draws": group.draws,
        "recorded_seconds": group.seconds,
        "steps": group.steps,
        "steps_measured": steps,
        "old_seconds": whole["old"],
        "new_seconds": whole["new"],
        "old_over_new": whole["old"] / whole["new"],
        "lowest": min(spread),
        "highest": max(spread),
        "largest_difference": worst,
    }


def over_draws(rows: list[dict]) -> tuple[float, float, float]:
    """old/new with the ends of a 95 % interval over draws (nan for a single draw)."""
    shares = [row["new_seconds"] / row["old_seconds"] for row in rows for _ in range(row["draws"])]
    mean = statistics.mean(shares)
    if len(shares) < 2:
        return 1 / mean, math.nan, math.nan
    half = 1.96 * statistics.stdev(shares) / math.sqrt(len(shares))
    return 1 / mean, 1 / (mean + half), 1 / max(mean - half, 1e-9)


def render(result: dict) -> str:
    """The result as Markdown."""
    from mue_check.bench.table import table

    ratio, low, high = result["tier"].values()
    lines = [
        f"# CPU time of the cpu tier: {result['new']} against {result['old']}",
        "",
        f"`python bench/against_commit.py {result['commit']} --draws {result['draws']} --repeats {result['repeats']}`, "
        f"{result['machine']}, torch {result['torch']}, one thread.",
        "",
        f"**The old code takes {ratio:.2f} times the CPU time** (95 % over draws: {low:.2f} to {high:.2f}) for the "
        f"records of reports/example under {RULE}: {result['draws']} draws of groups of cells, by recorded cost, of "
        f"{result['groups']} groups that cost {result['recorded_seconds']:.0f} s. Largest difference of any number: "
        f"{result['largest_difference']:.2g} (tolerance {TOLERANCE:g}).",
        "",
        *table(
            ("kind", "draws", "old / new"),
            [(kind, str(draws), f"{value:.2f}") for kind, (draws, value) in result["kinds"].items()],
        ),
        "",
        "Only the first steps of long trainings are measured (column steps); their cost is extrapolated linearly.",
        "",
        *table(
            ("group", "cells", "draws", "steps", "of", "old s", "new s", "old / new", "in rounds", "difference"),
            [
                (
                    f"{row['kind']}: {row['group']}",
                    *(str(row[key]) for key in ("cells", "draws", "steps_measured", "steps")),
                    *(f"{row[key]:.2f}" for key in ("old_seconds", "new_seconds", "old_over_new")),
                    f"{row['lowest']:.2f} to {row['highest']:.2f}",
                    f"{row['largest_difference']:.1g}",
                )
                for row in result["rows"]
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
    if done.returncode:
        print(f"against_commit: git {arguments[0]}: {done.stderr.strip()}", file=sys.stderr)
        raise SystemExit(2)
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--out", type=Path, help="folder for against_commit.json and .md")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.8, help="of the old code, for one long training")
    parser.add_argument("--records", type=Path, default=ROOT / "reports/example/records.tar.xz")
    options = parser.parse_args()
    if not options.records.is_file():
        parser.error(f"--records {options.records}: no such file")
    import torch

    from mue_check.execute.machine import device_name

    groups = read_groups(options.records)
    sample = draw(groups, options.draws)
    commit = git("rev-parse", "--short", "--verify", f"{options.commit}^{{commit}}")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "old"
        git("worktree", "add", "--detach", str(tree), commit)
        versions = {"old": Version(tree), "new": Version(ROOT)}
        try:
            rows = []
            for group in sample:
                rows.append(compare(versions, group, options.repeats, options.seconds))
                row = rows[-1]
                print(
                    f"{len(rows)}/{len(sample)} {row['kind']}: {row['group']}: {row['old_over_new']:.2f}, "
                    f"difference {row['largest_difference']:.1g}",
                    file=sys.stderr,
                )
        finally:
            for version in versions.values():
                version.close()
            git("worktree", "remove", "--force", str(tree))
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in Counter(row["kind"] for row in rows)}
    result = {
        "commit": options.commit,
        "old": commit,
        "new": git("describe", "--always", "--dirty"),
        "machine": device_name("cpu"),
        "torch": torch.__version__,
        "draws": options.draws,
        "repeats": options.repeats,
        "groups": len(groups),
        "recorded_seconds": sum(group.seconds for group in groups),
        "tier": dict(zip(("old_over_new", "low", "high"), over_draws(rows), strict=True)),
        "kinds": {kind: (sum(row["draws"] for row in own), over_draws(own)[0]) for kind, own in kinds.items()},
        "largest_difference": max(row["largest_difference"] for row in rows),
        "rows": rows,
    }
    print(render(result), end="")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "against_commit.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (options.out / "against_commit.md").write_text(render(result), encoding="utf-8")
    if result["largest_difference"] > TOLERANCE:
        print("against_commit: the versions give different numbers", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]))
    else:
        sys.exit(main())
