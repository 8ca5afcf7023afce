"""Time a stack of runs against the usual ways to write a sweep, against the device's ceilings, and against itself."""

from mue_check.bench.cases import BenchPlan, make_plan
from mue_check.bench.run import run_bench

__all__ = ["BenchPlan", "make_plan", "run_bench"]
