"""Run a benchmark plan: check that all implementations of a case agree, then time them.

Results are reported after every task.
"""

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from mue_check.bench.cases import FUSED, BenchCase, BenchPlan, BenchTask
from mue_check.bench.ceilings import measure_ceilings, needed_bytes, needed_flops
from mue_check.bench.conclusions import compare_with_bars, find_growth
from mue_check.bench.mup_coordinates import measure_coordinates
from mue_check.bench.results import BenchResult, BenchRow, Ceilings, CoordinateRow, LatencyRow, StepRow
from mue_check.bench.setup import BenchSetup
from mue_check.bench.timing import Spread, Way, ratios, time_ways
from mue_check.bench.ways import COMPARED, Disagreement, builders, require_agreement
from mue_check.execute.machine import device_name
from mue_check.training.out_of_memory import is_out_of_memory
from mue_check.training.products import set_products

NO_MEMORY = "out of memory"
Report = Callable[[BenchResult, str], None]
Seconds = Mapping[str, list[float]]


def run_bench(
    plan: BenchPlan,
    *,
    command: str = "",
    report: Report = lambda result, line: None,
    until: float = math.inf,
) -> BenchResult:
    """Measure every task that begins before ``until`` (time.monotonic).

    ``report`` gets the result so far and one line about the task, after each of them. A way that fails or disagrees
    with the others becomes a note in its row and one of the result's ``problems``.
    """
    bench = _Bench(plan)
    rows: list[BenchRow] = []
    began = time.monotonic()

    def result(left: Sequence[BenchTask]) -> BenchResult:
        steps = tuple(row for row in rows if isinstance(row, StepRow))
        latency = tuple(row for row in rows if isinstance(row, LatencyRow))
        return BenchResult(
            device=plan.device,
            device_name=device_name(plan.device),
            torch=torch.__version__,
            threads=torch.get_num_threads(),
            command=command,
            ceilings=bench.ceilings,
            steps=steps,
            latency=latency,
            coordinates=tuple(row for row in rows if isinstance(row, CoordinateRow)),
            growth=tuple(find_growth(steps, latency)),
            bars=tuple(compare_with_bars(steps, latency)),
            problems=tuple(bench.problems),
            not_reached=tuple(task.name for task in left),
        )

    for at, task in enumerate(plan.tasks):
        if time.monotonic() >= until:
            return result(plan.tasks[at:])
        found = bench.measure(task)
        known = {(row.case, row.way) for row in rows if isinstance(row, StepRow)}
        rows += [row for row in found if not isinstance(row, StepRow) or (row.case, row.way) not in known]
        line = f"{at + 1}/{len(plan.tasks)} {task.name}: {'; '.join(map(_in_short, found))}"
        report(result(plan.tasks[at + 1 :]), f"{line} [{time.monotonic() - began:.0f} s]")
    return result(())


def _in_short(row: BenchRow) -> str:
    """A row for the line of its task."""
    if row.note:
        return row.note if row.note.startswith(row.way) else f"{row.way} {row.note}"
    if isinstance(row, LatencyRow):
        return f"{row.way} {row.ratio.median:.2f}x" if row.ratio else row.way
    unit, scale = ("s", 1.0) if isinstance(row, CoordinateRow) else ("ms", 1e3)
    time_ = f" {row.seconds.median * scale:.3g} {unit}" if row.seconds else ""
    return row.way + time_ + (f" ({row.times.median:.2f}x)" if row.times and row.times.high != 1 else "")


class _Bench:
    """Measures tasks on one device, and collects what goes wrong."""

    def __init__(self, plan: BenchPlan) -> None:
        self.plan, self.device = plan, torch.device(plan.device)
        self.problems: list[str] = []
        precisions = list(dict.fromkeys(case.precision for task in plan.tasks for case in task.cases))
        self.ceilings: Ceilings = measure_ceilings(self.device, precisions, plan.matmul, plan.copy_mib)

    def measure(self, task: BenchTask) -> list[BenchRow]:
        """The rows of one task; nothing of it stays in memory."""
        measure = {"steps": self.steps, "latency": self.latency, "coordinates": self.coordinates}[task.kind]
        try:
            return measure(task)
        except Exception as error:  # one broken task must not cost the others
            note = self.problem(task.name, error)
            way = task.ways[0] if task.ways else "fused"
            return [StepRow(case=task.cases[0], way=way, note=note)] if task.kind == "steps" else []
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def problem(self, name: str, error: Exception) -> str:
        """Remember an error; returns it as a note."""
        note = str(error) if isinstance(error, Disagreement) else f"{type(error).__name__}: {error}"
        note = " ".join(note.split())[:300]
        self.problems.append(f"{name}: {note}")
        return note

    def steps(self, task: BenchTask) -> list[BenchRow]:
        """One row for each way."""
        (case,) = task.cases
        ways, notes = self.agreeing(case, task.ways)
        seconds = self.timed(ways)
        if not seconds and "vmap" in ways:  # it takes the most memory
            del ways["vmap"]
            gc.collect()
            notes["vmap"] = NO_MEMORY
            seconds = self.timed(ways)
        notes |= dict.fromkeys(ways.keys() - seconds.keys(), NO_MEMORY)
        first = next((way for way in FUSED if way in seconds), None)
        parameters = BenchSetup(case, self.device).stack([0]).state.declared
        rows: list[BenchRow] = [StepRow(case=case, way=way, note=note) for way, note in notes.items()]
        for way, taken in seconds.items():
            spread = Spread.of(taken)
            rows.append(
                StepRow(
                    case=case,
                    way=way,
                    seconds=spread,
                    times=ratios(taken, seconds[first]) if first else None,
                    share_of_matmul=needed_flops(case) / spread.median / self.ceilings.flops_per_second[case.precision],
                    share_of_bandwidth=needed_bytes(parameters) / spread.median / self.ceilings.bytes_per_second,
                )
            )
        return rows

    def latency(self, task: BenchTask) -> list[BenchRow]:
        """The fused step of a mixture against the dense one, after both have trained like plain models."""
        (mixture,) = task.cases
        dense, dense_notes = self.agreeing(mixture.dense, [*task.ways, "plain"])
        sparse, notes = self.agreeing(mixture, [*task.ways, "plain batched"])
        rows: list[BenchRow] = []
        for way in (way for way in FUSED if way in {*dense, *dense_notes, *sparse, *notes}):
            both = {"dense": dense[way], "mixture": sparse[way]} if way in dense and way in sparse else {}
            seconds = self.timed(both)
            if not seconds:
                note = dense_notes.get(way) or notes.get(way) or NO_MEMORY
                rows.append(LatencyRow(grows=task.grows, case=mixture, way=way, note=note))
                continue
            rows.append(
                LatencyRow(
                    grows=task.grows,
                    case=mixture,
                    way=way,
                    dense=Spread.of(seconds["dense"]),
                    mixture=Spread.of(seconds["mixture"]),
                    ratio=ratios(seconds["mixture"], seconds["dense"]),
                )
            )
        return rows

    def coordinates(self, task: BenchTask) -> list[BenchRow]:
        """Our coordinate check, and mup's where it is installed."""
        return list(measure_coordinates(task.cases, self.device, self.plan.rounds))

    def agreeing(self, case: BenchCase, wanted: Iterable[str]) -> tuple[dict[str, Way], dict[str, str]]:
        """The ways that fit into memory, each after COMPARED steps, and notes on the others.

        A way whose losses differ from those of the first is noted and not timed.
        """
        setup = BenchSetup(case, self.device)
        set_products(case.precision, self.device)
        expected: Tensor | None = None
        ways: dict[str, Way] = {}
        notes: dict[str, str] = {}
        for name, build in builders(setup).items():
            if name not in wanted:
                continue
            try:
                way = build()
                way.advance(COMPARED)
                losses = way.losses()[:COMPARED].float().clone()
                require_agreement(name, losses, losses if expected is None else expected, case)
            except Exception as error:
                notes[name] = NO_MEMORY if is_out_of_memory(error) else self.problem(case.name, error)
                continue
            expected = losses if expected is None else expected
            ways[name] = way
        return ways, notes

    def timed(self, ways: Mapping[str, Way]) -> Seconds:
        """Seconds by way and round; nothing where the ways do not fit into memory together."""
        try:
            return time_ways(ways, self.device, self.plan.rounds, self.plan.seconds)
        except torch.OutOfMemoryError:
            return {}
