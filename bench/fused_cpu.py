"""What one pass over the state would save on a CPU: the share of AdamW in whole steps of the cpu tier.

    python bench/fused_cpu.py [--out reports/bench]

Times steps of the last target of some ladders, AdamW as it is, and the same numbers by torch's fused AdamW and, where
numba is installed, by a loop that numba compiles. The gain is that of a whole step with the quickest of them. CPU time
of one thread, medians. Writes fused_cpu.md.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mue_check.bench.table import table
from mue_check.data import load_data
from mue_check.execute.machine import device_name
from mue_check.execute.memory import runs_of_a_stack
from mue_check.execute.process import prepare_process
from mue_check.measure.stacks import new_stack
from mue_check.rules import get_rule
from mue_check.study.folder import Study
from mue_check.tiers import CPU
from mue_check.training import Stack, training_step

AXES = ("width", "depth", "activated_experts", "capacity")
REPEATS = 15


def milliseconds(call: Callable[[], None]) -> float:
    """The median CPU time of a call, after two others."""
    times = []
    for _ in range(REPEATS + 2):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * statistics.median(times[2:])


def largest(axis: str) -> tuple[str, Stack]:
    """The last target of an axis, as many runs as the tier trains together."""
    study = Study(root=Path(), command="", tier=CPU, corpus="markov", rule=get_rule("complete_mue"), tolerance=0.5)
    ladder = CPU.ladders(axis)[0]
    cell = study.arm(ladder, ladder.targets[-1]).cell("loss_grid", [2.0**-6.5], [0])
    cell = replace(cell, seeds=tuple(range(runs_of_a_stack(cell))))
    stack = new_stack(cell, load_data("markov"))
    return f"{cell.model}, {cell.train.tokens_per_step} tokens, R={stack.runs}", stack


def fused(stack: Stack) -> None:
    """torch's fused AdamW over the whole state."""
    state = stack.state
    tensors = ([state.flat], [state.gradient], [state.first], [state.second], [], [torch.ones(())])
    torch._fused_adamw_(
        *tensors, lr=0.0, beta1=0.9, beta2=0.95, weight_decay=0.1, eps=1e-8, amsgrad=False, maximize=False
    )


def by_numba() -> Callable[[Stack], None] | None:
    """One loop over the state, if numba is installed."""
    try:
        import numba
    except ImportError:
        return None

    import numpy as np

    @numba.njit
    def loop(p, g, m, v, lr, decay, eps, rest1, beta2, rest2):  # type: ignore[no-untyped-def]
        for i in range(p.size):
            m[i] += rest1 * (g[i] - m[i])
            v[i] = v[i] * beta2 + rest2 * g[i] * g[i]
            p[i] -= decay * p[i] + m[i] / (np.sqrt(v[i]) + eps) * lr

    def call(stack: Stack) -> None:
        tensors: list[Tensor] = [stack.state.flat, stack.state.gradient, stack.state.first, stack.state.second]
        loop(*(t.numpy() for t in tensors), *map(np.float32, (0.0, 0.0, 1e-8, 0.1, 0.95, 0.05)))

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    prepare_process()
    other, rows = by_numba(), []
    for axis in AXES:
        name, stack = largest(axis)
        step = milliseconds(partial(training_step, stack))
        stack.counter.zero_()
        now = milliseconds(partial(stack.optimizer.step, stack.counter))
        ways = [milliseconds(partial(fused, stack)), milliseconds(partial(other, stack)) if other else float("nan")]
        gain = step / (step - now + min(way for way in ways if way == way))
        numbers = f"{stack.state.flat.numel() / 1e6:.1f}"
        rows.append((name, numbers, *(f"{ms:.2f}" for ms in (step, now, *ways)), f"{gain:.2f}"))
        print(" ".join(rows[-1]), flush=True)
    heads = ("model", "million numbers", "step", "AdamW", "torch's fused", "numba", "gain of the step")
    lines = [
        "# AdamW in one pass on a CPU",
        "",
        f"`python bench/fused_cpu.py`, torch {torch.__version__}, one core of {device_name('cpu')}. Milliseconds of",
        "CPU time.",
        "",
        *table(heads, rows),
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fused_cpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
