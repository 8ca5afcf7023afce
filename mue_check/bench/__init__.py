"""How quick a stack of runs is: against the ways a sweep is usually written, the device's ceilings, and itself."""

from mue_check.bench.cases import Plan, make_plan
from mue_check.bench.run import run_bench

__all__ = ["Plan", "make_plan", "run_bench"]
