"""Kernel launches of one training step and the bytes that it moves, by shape and precision.

    python bench/launches.py [--out reports/bench]

A captured step replays exactly the launches of the eager step that is counted here. torch's profiler counts them on a
GPU. Where a stand-in CUDA runtime is loaded (docs/gpu_testing.md), its own counter does: no GPU is needed. It cannot
launch Triton kernels, so those are counted where they would be launched. Bytes: every operation reads its arguments and
writes its results once; a Triton kernel takes each of its tensors once. Writes launches.md.
"""

import argparse
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.jit import JITFunction

from mue_check.bench.cases import CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.table import table
from mue_check.execute.process import prepare_process
from mue_check.precision import PRECISIONS
from mue_check.training import Stack, training_step
from mue_check.training.products import set_products

CASES = (
    CUDA_CAPACITY.dense,
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
RUNTIME = ctypes.CDLL(None)
STAND_IN = hasattr(RUNTIME, "hollow_count")


@dataclass
class Triton:
    """Launches of Triton kernels, and the bytes of their tensors."""

    launches: int = 0
    bytes: int = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        launch = JITFunction.run

        def run(kernel: Any, *arguments: Any, **options: Any) -> Any:
            self.launches += 1
            self.bytes += sum(map(size_of, arguments))
            return None if STAND_IN else launch(kernel, *arguments, **options)

        JITFunction.run = run
        try:
            yield
        finally:
            JITFunction.run = launch


class Moved(TorchDispatchMode):
    """The bytes of arguments and results of every operation that computes something."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.namespace == "mue_check":  # counted by what it calls
            with self:
                return function._op_dk(DispatchKey.CompositeExplicitAutograd, *arguments, **(options or {}))
        found = function(*arguments, **(options or {}))
        results = {id(t.untyped_storage()): t for t in tree_leaves(found) if isinstance(t, Tensor)}
        given = [t for t in tree_leaves((arguments, options)) if isinstance(t, Tensor)]
        is_view = not function._schema.is_mutable and any(
            t.untyped_storage().data_ptr() == r.untyped_storage().data_ptr() for t in given for r in results.values()
        )
        if not (is_view or "empty" in function.__name__):
            self.bytes += sum(map(size_of, [*given, *results.values()]))
        return found


def size_of(x: object) -> int:
    """Bytes of a tensor, no more than its storage has; 0 for all else."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) if isinstance(x, Tensor) else 0


def counts(case: BenchCase) -> tuple[int, float]:
    """Launches and gigabytes of a step."""
    setup = BenchSetup(case, torch.device("cuda"))
    set_products(case.precision, setup.device)
    with Triton().counted():
        stack = setup.stack(range(case.runs))
        for _ in range(WARM_UP):
            training_step(stack)
    triton, moved = Triton(), Moved()
    with triton.counted(), moved:
        training_step(stack)
    return launches(stack), (triton.bytes + moved.bytes) / 1e9


def launches(stack: Stack) -> int:
    torch.cuda.synchronize()
    triton = Triton()
    if STAND_IN:
        RUNTIME.hollow_count(1)
        with triton.counted():
            training_step(stack)
        RUNTIME.hollow_count(0)
        return int(RUNTIME.hollow_total()) + triton.launches
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        training_step(stack)
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profiler.events())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("reports/bench"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no CUDA device, nor a stand-in for one")
    prepare_process()
    by_what = "a stand-in CUDA runtime that counts kernels" if STAND_IN else torch.cuda.get_device_name()
    rows = []
    for case in CASES:
        found = []
        for precision in PRECISIONS:
            number, gigabytes = counts(replace(case, precision=precision))
            found.append(f"{number}, {gigabytes:.1f}")
            gc.collect()
            torch.cuda.empty_cache()
        rows.append((case.model, str(case.tokens), str(case.runs), *found))
        print(" ".join(rows[-1]), flush=True)
        lines = [
            "# Kernel launches of one training step, and gigabytes that it moves",
            "",
            f"`python bench/launches.py`, torch {torch.__version__}, counted by {by_what}. Forward, backward and",
            "optimizer, all R runs in one step; copies and fills on the device count as launches. Gigabytes: the",
            "arguments and results of every operation, once each, whatever a cache holds.",
            "",
            *table(("model", "tokens", "R", *PRECISIONS), rows),
        ]
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "launches.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
