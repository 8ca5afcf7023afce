"""Kernel launches of one training step, by shape and precision: a yardstick for work on kernels.

    python bench/launches.py [--out reports/bench]

A captured step replays exactly the launches of the eager step that is counted here. torch's profiler counts them on a
GPU. Where a stand-in CUDA runtime is loaded (docs/gpu_testing.md), its own counter does: no GPU is needed, and the
counts are the same but for kernels that cuBLAS splits in two. Writes launches.md.
"""

import argparse
import ctypes
import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from mue_check.bench.cases import CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.table import table
from mue_check.execute.process import prepare_process
from mue_check.precision import PRECISIONS
from mue_check.training import training_step
from mue_check.training.products import set_products

CASES = (
    CUDA_MIXTURE.dense,
    CUDA_MIXTURE,
    replace(CUDA_MIXTURE, runs=1),
    CUDA_SHORT,
    CUDA_CAPACITY,
    *(
        replace(CUDA_MIXTURE, model=f"{CUDA_MIXTURE.model}{more}")
        for more in (",router=softmax_norm", ",router=deepseek_v3,balance=selection_bias", ",load=zipf:0.5")
    ),
    replace(CUDA_MIXTURE, model="d=128,L=4,16e4a,h=32,router=expert_choice"),
)
WARM_UP = 2


def counter() -> tuple[str, Callable[[Callable[[], None]], int]]:
    """What counts, and a function that counts the launches of a call.

    A stand-in CUDA runtime exports ``hollow_count`` and ``hollow_total``; a real card is counted by torch's profiler.
    """
    runtime = ctypes.CDLL(None)
    if not hasattr(runtime, "hollow_count"):
        return torch.cuda.get_device_name(), profiled

    def counted(call: Callable[[], None]) -> int:
        runtime.hollow_count(1)
        call()
        runtime.hollow_count(0)
        return int(runtime.hollow_total())

    return "a stand-in CUDA runtime that counts kernels", counted


def profiled(call: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


def launches(case: BenchCase, count: Callable[[Callable[[], None]], int]) -> int:
    setup = BenchSetup(case, torch.device("cuda"))
    set_products(case.precision, setup.device)
    stack = setup.stack(range(case.runs))
    for _ in range(WARM_UP):
        training_step(stack)
    return count(partial(training_step, stack))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device, nor a stand-in for one")
    prepare_process()
    by_what, count = counter()
    rows = []
    for case in CASES:
        counts = []
        for precision in PRECISIONS:
            counts.append(str(launches(replace(case, precision=precision), count)))
            gc.collect()
            torch.cuda.empty_cache()
        rows.append((case.model, str(case.tokens), str(case.runs), *counts))
        print(" ".join(rows[-1]), flush=True)
        lines = [
            "# Kernel launches of one training step",
            "",
            f"`python bench/launches.py`, torch {torch.__version__}, counted by {by_what}. Forward, backward and",
            "optimizer, all R runs in one step; copies and fills on the device count as launches.",
            "",
            *table(("model", "tokens", "R", *PRECISIONS), rows),
        ]
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "launches.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
