"""The cases that a bench measures, by device and by part."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mue_check.precision import Precision
from mue_check.spec import ModelSpec
from mue_check.spec_text import parse_scenario

WAYS = ("captured", "compiled", "eager", "alone", "plain", "plain batched", "vmap")
"""Every way to train the runs of a case, in the order in which they are timed and printed."""
FUSED = ("captured", "compiled", "eager")
"""Ways that train all runs in one stack. Times are given relative to the first that the device has."""
PARTS = ("headline", "sweep", "latency", "coordinates")
"""Names for ``--only``, in the order in which they are measured."""


@dataclass(frozen=True, kw_only=True)
class BenchCase:
    """R runs of one model, each with ``batch`` sequences of ``context`` tokens per step."""

    model: str
    batch: int
    context: int
    runs: int
    precision: Precision = "fp32"

    @property
    def spec(self) -> ModelSpec:
        """The model. Its depth is 2 unless the text gives one."""
        return parse_scenario(self.model if "L=" in self.model else f"L=2,{self.model}").model

    @property
    def dense(self) -> "BenchCase":
        """The dense model of the same active width."""
        spec = self.spec
        return replace(self, model=f"d={spec.width},L={spec.depth},H={spec.feed_forward.active_width}")

    @property
    def tokens(self) -> int:
        """Tokens per step of one run."""
        return self.batch * self.context

    @property
    def name(self) -> str:
        """The shape on one line."""
        return f"{self.model}, {self.tokens} tokens, R={self.runs}, {self.precision}"


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """One line of a bench: a case in several ways, a mixture against its dense model, or the coordinate check."""

    kind: Literal["steps", "latency", "coordinates"]
    cases: tuple[BenchCase, ...]
    """One case; for the coordinate check one model at several widths."""
    ways: tuple[str, ...] = ()
    grows: str = ""
    """Of a mixture against its dense model: what the family of cases varies."""

    @property
    def name(self) -> str:
        """The task on one line."""
        suffix = {"steps": "", "latency": " against dense", "coordinates": ": coordinate check"}[self.kind]
        return " and ".join(case.name for case in self.cases) + suffix + " (compiled)" * ("compiled" in self.ways)


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """Everything that one bench measures, in order."""

    device: str
    tasks: tuple[BenchTask, ...]
    rounds: int = 5
    seconds: float = 0.12
    """How long each way should run in each round."""
    matmul: int = 1024
    copy_mib: int = 256

    def cases(self, kind: str) -> list[BenchCase]:
        """The cases of all tasks of one kind."""
        return [case for task in self.tasks if task.kind == kind for case in task.cases]


RUNS = (1, 4, 8, 16, 32)
CPU_DENSE = BenchCase(model="d=32,H=32", batch=8, context=32, runs=8)
CPU_WIDER = replace(CPU_DENSE, model="d=64,H=64")
CPU_MIXTURE = replace(CPU_DENSE, model="d=32,16e4a,h=8")
CPU_CAPACITY = replace(CPU_DENSE, model="d=32,L=2,64e8a,h=4")
CUDA_MIXTURE = BenchCase(model="d=128,L=4,16e4a,h=32", batch=64, context=64, runs=32)
CUDA_SHORT = replace(CUDA_MIXTURE, batch=8)
CUDA_CAPACITY = replace(CUDA_MIXTURE, model="d=128,L=4,256e8a,h=16")
UNCOMPILED = tuple(way for way in WAYS if way != "compiled")
Parts = dict[str, list[BenchTask]]


def make_plan(
    device: str, precisions: Sequence[Precision], *, quick: bool = False, only: Sequence[str] = ()
) -> BenchPlan:
    """The plan of a device, or of those of its PARTS in ``only``. Growth is measured in the first precision only."""
    parts = _quick(precisions) if quick else _cuda(precisions) if device == "cuda" else _cpu(precisions)
    tasks = _merged(task for part in PARTS if not only or part in only for task in parts[part])
    if quick:
        return BenchPlan(device=device, tasks=tasks, rounds=3, seconds=0.04, matmul=512, copy_mib=64)
    if device == "cuda":
        return BenchPlan(device=device, tasks=tasks, seconds=0.06, matmul=8192, copy_mib=1024)
    return BenchPlan(device=device, tasks=tasks)


def _merged(tasks: Iterable[BenchTask]) -> tuple[BenchTask, ...]:
    """Each task once, at its first place, with all requested ways. Tasks that compile stay separate."""
    merged: dict[tuple[BenchTask, bool], BenchTask] = {}
    for task in tasks:
        key = replace(task, ways=()), "compiled" in task.ways
        ways = {*task.ways, *(merged[key].ways if key in merged else ())}
        merged[key] = replace(task, ways=tuple(way for way in WAYS if way in ways))
    return tuple(merged.values())


def _steps(cases: Iterable[BenchCase], ways: tuple[str, ...] = UNCOMPILED) -> list[BenchTask]:
    return [BenchTask(kind="steps", cases=(case,), ways=ways) for case in cases]


def _latency(grows: str, cases: Iterable[BenchCase], ways: tuple[str, ...] = ("captured", "eager")) -> list[BenchTask]:
    return [BenchTask(kind="latency", cases=(case,), ways=ways, grows=grows) for case in cases]


def _coordinates(case: BenchCase, models: Sequence[str]) -> list[BenchTask]:
    return [BenchTask(kind="coordinates", cases=tuple(replace(case, model=model) for model in models))]


def _quick(precisions: Sequence[Precision]) -> Parts:
    dense, mixture = (replace(case, precision=precisions[0]) for case in (CPU_DENSE, CPU_MIXTURE))
    return {
        "headline": _steps([mixture]),
        "sweep": _steps([replace(dense, runs=1), dense]),
        "latency": _latency("capacity", [replace(CPU_CAPACITY, precision=precisions[0])]),
        "coordinates": _coordinates(replace(CPU_DENSE, runs=4), [CPU_DENSE.model]),
    }


def _cpu(precisions: Sequence[Precision]) -> Parts:
    first = precisions[0]
    dense, mixture = (replace(case, precision=first) for case in (CPU_DENSE, CPU_MIXTURE))
    sweep = [replace(case, runs=r) for case in (dense, mixture) for r in RUNS]
    sweep += [replace(dense, batch=16)]
    sweep += [replace(dense, model=f"d={d},H={d}") for d in (64, 128)]
    sweep += [replace(dense, context=t) for t in (16, 64, 128)]
    capacity = [replace(mixture, model=f"d=32,L=2,{n}e8a,h=4") for n in (8, 16, 64, 256)]
    granularity = [replace(mixture, model=_split(32, 2, 128, a)) for a in (2, 8, 32, 64)]
    return {
        "headline": _steps([dense, replace(CPU_WIDER, precision=first), mixture], ("eager", "alone", "plain"))
        + _latency("capacity", [replace(CPU_CAPACITY, precision=first)]),
        "sweep": _steps(replace(case, precision=p) for p in precisions for case in sweep),
        "latency": _latency("capacity", capacity) + _latency("granularity", granularity),
        "coordinates": _coordinates(CPU_DENSE, ["d=32,H=32", "d=64,H=64"]),
    }


def _cuda(precisions: Sequence[Precision]) -> Parts:
    mixture = replace(CUDA_MIXTURE, precision=precisions[0])
    dense = replace(mixture.dense, runs=8)
    headline = [replace(case, precision=p) for case in (CUDA_MIXTURE, CUDA_SHORT) for p in precisions]
    rounded = [p for p in precisions if p != "fp32"] or precisions
    sweep = [replace(mixture, runs=r) for r in RUNS]
    sweep += [replace(mixture, model="d=128,L=4,16e4a,h=128")]
    sweep += [replace(dense, model=f"d={d},L=4,H={d}") for d in (128, 256, 512)]
    sweep += [replace(dense, context=t, batch=16) for t in (64, 256, 1024)]
    capacity = [replace(mixture, model=f"d=128,L=4,{n}e8a,h=16") for n in (8, 32, 128)]
    capacity += [replace(CUDA_CAPACITY, precision=p) for p in precisions]
    granularity = [replace(mixture, model=_split(128, 4, 512, a), runs=8) for a in (2, 4, 16, 64)]
    return {
        "headline": _steps(headline, ("captured", "alone", "plain batched"))
        + _latency("capacity", [replace(CUDA_CAPACITY, precision=p) for p in rounded], ("captured",))
        + _steps(sorted(headline, key=lambda case: case.precision == "fp32"), ("captured", "compiled")),
        "sweep": _steps([*headline, *sweep]),
        "latency": _latency("capacity", capacity) + _latency("granularity", granularity),
        "coordinates": _coordinates(replace(dense, precision="fp32"), ["d=128,L=4,H=128", "d=256,L=4,H=256"]),
    }


def _split(width: int, depth: int, active_width: int, activated: int) -> str:
    """The mixture of that granularity at equal active width and density a/N = 1/4."""
    return f"d={width},L={depth},{4 * activated}e{activated}a,h={active_width // activated}"
