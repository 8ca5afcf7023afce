"""Everything to know about the Triton kernels from one short visit to a GPU.

    python bench/triton_kernels.py OUT [--until SECONDS]

Compiles in parallel first. Then: the tests of tests/gpu/test_kernels.py; the expert product by several tilings; one
step of AdamW; whole captured steps with and without kernels, interleaved; and which kernels of a step take the time.
Every result is written to OUT/kernels.json at once. A part that fails or finds no time does not stop the others.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.expert_product import SHAPES, difference, measure, repeated
from mue_check.bench.cases import CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.timing import clock
from mue_check.execute.process import prepare_process
from mue_check.models.experts import all_experts, blocked_experts, grouped_experts
from mue_check.models.fused_routing import choose_by_sigmoid
from mue_check.models.kernels import VARIABLE
from mue_check.models.kernels import experts as kernels
from mue_check.models.kernels.experts import Tiling
from mue_check.models.routed_experts import routed_experts
from mue_check.precision import PRECISIONS, Precision
from mue_check.routing.variants import route
from mue_check.spec import Experts
from mue_check.training import Stack, training_step
from mue_check.training.compiling import VARIABLE as COMPILED
from mue_check.training.products import set_products

DEVICE = torch.device("cuda")
MIXTURE, CAPACITY, WIDE = (32, 4096, 128, 16, 4, 32), (32, 4096, 128, 256, 8, 16), (32, 4096, 128, 16, 2, 128)
TILINGS = {
    "a": Tiling(),
    "b": Tiling(stages=1),
    "c": Tiling(stages=3),
    "d": Tiling(step=64),
    "e": Tiling(width=128),
    "f": Tiling(rows=32),
    "g": Tiling(rows=32, step=64, width=128),
    "h": Tiling(rows=128, warps=8),
}
FULL = ("ieee", "tf32x3")
KERNELS = {"old": "", "new": "experts,adamw,pointwise,router"}
CASES = [
    replace(CUDA_MIXTURE, precision="tf32"),
    replace(CUDA_CAPACITY, precision="bf16"),
    replace(CUDA_MIXTURE, precision="bf16"),
    replace(CUDA_CAPACITY, precision="tf32"),
    replace(CUDA_SHORT, precision="bf16"),
    replace(CUDA_SHORT, precision="tf32"),
    replace(CUDA_CAPACITY.dense, precision="bf16"),
    replace(CUDA_CAPACITY.dense, precision="tf32"),
    replace(CUDA_MIXTURE, precision="fp32"),
    replace(CUDA_MIXTURE, precision="tf32", runs=1),
]
WORKERS = 12
ROUNDS = 5


class Results:
    """What has been found, written to a file after every addition."""

    def __init__(self, out: Path, until: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path, self.began, self.until = out / "kernels.json", time.monotonic(), until
        self.parts: dict[str, list[object]] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def add(self, part: str, line: str, **found: object) -> None:
        self.parts.setdefault(part, []).append(found)
        self.path.write_text(json.dumps(self.parts, indent=1) + "\n")
        print(f"[{self.seconds:4.0f}] {line}", flush=True)

    def attempt(self, name: str, part: Callable[[], None], before: float) -> None:
        """Run a part if it is not yet ``before`` seconds, and go on if it fails."""
        if self.seconds > min(before, self.until):
            self.add("skipped", f"{name}: no time left", name=name)
            return
        try:
            part()
        except Exception as error:
            traceback.print_exc()
            self.add("failed", f"{name}: {type(error).__name__}: {error}"[:300], name=name, error=str(error))
        gc.collect()
        torch.cuda.empty_cache()


@contextmanager
def tiled(tiling: Tiling | None, full: str = "ieee") -> Iterator[None]:
    """With one tiling for all shapes."""
    given = kernels.choose_tiling, kernels.FULL
    if tiling is not None:
        kernels.choose_tiling = lambda *_: tiling
    kernels.FULL = full
    try:
        yield
    finally:
        kernels.choose_tiling, kernels.FULL = given


def variants() -> Iterator[tuple[tuple[int, ...], Precision, str, Tiling, str]]:
    for shape in (MIXTURE, CAPACITY, WIDE):
        for precision in ("tf32", "bf16", "fp32"):
            for name, tiling in TILINGS.items():
                for full in FULL if precision == "fp32" else FULL[:1]:
                    if precision != "fp32" or name in "abf":
                        yield shape, precision, name, tiling, full


def compile_all(results: Results) -> None:
    """In processes of their own: Triton keeps what is compiled on disk."""
    script = [sys.executable, __file__, str(results.path.parent), "--worker"]
    with results.path.with_name("workers.log").open("w") as log:
        workers = [subprocess.Popen([*script, str(i)], stdout=log, stderr=log) for i in range(WORKERS)]
        for worker in workers:
            worker.wait(timeout=60)
    results.add("compiled", f"compiled: {[w.returncode for w in workers]}", seconds=results.seconds)


def work(mine: int) -> None:
    """Compile one share of the variants: a launch on a small problem of the same divisibility."""
    for i, (shape, precision, _, tiling, full) in enumerate(variants()):
        if i % WORKERS == mine:
            _, _, width, total, active, hidden = shape
            with tiled(tiling, full):
                measure((16, 128, width, total, active, hidden), precision, DEVICE, {"kernels": routed_experts})


def test(results: Results) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "8", "tests/gpu/test_kernels.py"]
    log = results.path.with_name("tests.log")
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, timeout=75).returncode
    print(
        "\n".join(line[:200] for line in log.read_text().splitlines() if line.startswith(("E  ", "FAILED", "ERROR")))[
            :3500
        ]
    )
    results.add("tests", f"tests: exit {code}: {log.read_text().strip().splitlines()[-1]}", code=code)


def product(results: Results, shape: tuple[int, ...], precision: Precision) -> None:
    """Every tiling, after the other products."""
    others = {"all": all_experts, "grouped": grouped_experts, "blocked": blocked_experts}
    label = f"{precision} N={shape[3]} a={shape[4]} h={shape[5]}"
    if shape[3] > 64:
        del others["all"]
    found = measure(shape, precision, DEVICE, others)
    times = {name[:-3]: found[name] for name in found if name.endswith("_ms") and found[name] is not None}
    results.add("product", f"{label}: " + in_short(times), shape=shape, precision=precision, **found)
    for s, p, name, tiling, full in variants():
        if (s, p) == (shape, precision):
            with tiled(tiling, full):
                first = {"all": all_experts, "kernels": routed_experts} if shape[3] <= 16 and name == "a" else {}
                found = measure(shape, precision, DEVICE, first or {"kernels": routed_experts})
            line = f"  {name} {full}: {shown(found['kernels_ms'])} ms, error {found.get('kernels_error')}"
            results.add("tilings", line, shape=shape, precision=precision, tiling=name, full=full, **found)


def in_short(times: dict[str, object]) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in times.items())


def shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def built(case: BenchCase, names: str, backend: str = "") -> Stack:
    os.environ[VARIABLE], os.environ[COMPILED] = names, backend
    set_products(case.precision, DEVICE)
    # a CPU draws the numbers of each seed once, which takes seconds
    return BenchSetup(case, DEVICE).stack([run % 2 for run in range(case.runs)])


def optimizer(results: Results, case: BenchCase) -> None:
    """One step of AdamW, old and new, and the share of 7 passes over the state in the bandwidth of a copy."""
    times = {}
    for name in KERNELS:
        stack = built(case, KERNELS[name])
        stack.state.gradient.normal_()
        counter = torch.ones(1, dtype=torch.int64, device=DEVICE)
        _, repeat = repeated(partial(stack.optimizer.step, counter), DEVICE)
        times[name] = 1e3 * statistics.median(clock(repeat, DEVICE) for _ in range(9))
        gigabytes = 7 * 4 * stack.state.flat.numel() / 1e9
        del stack, repeat
    rate = gigabytes / times["new"] * 1e3
    line = f"AdamW {case.model}: {in_short(times)} ms, {rate:.0f} GB/s in 7 passes"
    results.add("adamw", line, case=case.name, gigabytes=gigabytes, **times)


def routers(results: Results, shape: tuple[int, ...]) -> None:
    """The choice of experts, forward and backward, by torch's operations and by the kernel."""
    runs, tokens, _, total, active, hidden = shape
    experts = Experts(total=total, activated=active, hidden=hidden)
    logits = torch.randn(runs, tokens, total, device=DEVICE, requires_grad=True)

    def call() -> list[torch.Tensor]:
        weights = route(logits, experts, by_sigmoid=choose_by_sigmoid).weights
        return list(torch.autograd.grad(weights.square().sum(), [logits]))

    times, gradients = {}, []
    for name, names in KERNELS.items():
        os.environ[VARIABLE] = names
        found, repeat = repeated(call, DEVICE)
        times[name] = 1e3 * statistics.median(clock(repeat, DEVICE) for _ in range(9))
        gradients.append(found[0].clone())
        del found, repeat
    error = difference(gradients[1], gradients[0])
    line = f"router N={total} a={active}: {in_short(times)} ms, error {error:.1g}"
    results.add("router", line, shape=shape, error=error, **times)


def steps(results: Results, case: BenchCase, *, profiled: bool = False) -> None:
    """Whole captured steps, interleaved."""
    stacks: dict[str, Stack] = {}
    logs = {}
    more = {"two": "experts,adamw"} if profiled else {}
    for name, names in (KERNELS | more).items():
        stacks[name] = built(case, names)
        stacks[name].advance(8)
        logs[name] = stacks[name].log[:6].clone()
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for _ in range(ROUNDS):
        for name, stack in stacks.items():
            times[name].append(clock(partial(stack.advance, 8), DEVICE) / 8 * 1e3)
    medians = {name: statistics.median(t) for name, t in times.items()}
    apart = {name: float((log - logs["old"]).abs().max()) for name, log in logs.items()}
    line = f"{case.model} {case.precision} M={case.tokens} R={case.runs}: {in_short(medians)} ms a step"
    line += f", losses apart {max(apart.values()):.1g}"
    results.add("steps", line, case=case.name, rounds=times, ms=medians, apart=apart)
    if profiled:
        del stacks["old"], stacks["two"]
        hot(results, case, stacks["new"])


def compiled(results: Results, case: BenchCase) -> None:
    """Loss and optimizer by inductor, around the kernels and without them."""
    times = {}
    for name, names in (("kernels", "experts,adamw,router"), ("none", "")):
        torch.compiler.reset()
        began = results.seconds
        stack = built(case, names, "inductor")
        stack.advance(8)
        torch.cuda.synchronize()
        start = results.seconds - began
        times[name] = 1e3 * statistics.median(clock(partial(stack.advance, 8), DEVICE) / 8 for _ in range(ROUNDS))
        line = f"compiled {case.model} {case.precision}: {name} {times[name]:.3g} ms a step, {start:.0f} s to start"
        results.add("compiled steps", line, case=case.name, kernels=names, ms=times[name], start=start)
        if name == "kernels":
            hot(results, case, stack)
        del stack
        gc.collect()
        torch.cuda.empty_cache()


def hot(results: Results, case: BenchCase, stack: Stack) -> None:
    """Milliseconds and launches by kernel, of one eager step."""
    training_step(stack)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        training_step(stack)
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found.setdefault(event.name, []).append(event.device_time_total / 1e3)
    ranked = sorted(((sum(t), len(t), name) for name, t in found.items()), reverse=True)
    total, launches = sum(r[0] for r in ranked), sum(r[1] for r in ranked)
    line = f"hot {case.model} {case.precision}: {total:.1f} ms in {launches} launches\n"
    line += "\n".join(f"    {ms:7.3f} ms {count:3d} {shortened(name)}" for ms, count, name in ranked[:22])
    results.add("hot", line, case=case.name, kernels=ranked)


def shortened(name: str) -> str:
    for part in ("void ", "at::native::", "(anonymous namespace)::", "unrolled_", "<unnamed>::"):
        name = name.replace(part, "")
    return name[:110]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", type=float, default=145, help="begin nothing after that many seconds")
    parser.add_argument(
        "--compiled", action="store_true", help="only steps that inductor compiles, with and without kernels"
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_process()
    if options.worker is not None:
        work(options.worker)
        return
    results = Results(options.out, options.until)
    results.add("device", f"{torch.cuda.get_device_name()}, torch {torch.__version__}", torch=torch.__version__)
    if options.compiled:
        for case in CASES[:3]:
            results.attempt(f"compiled {case.name}", partial(compiled, results, case), options.until)
        return
    results.attempt("compile", partial(compile_all, results), 60)
    results.attempt("tests", partial(test, results), 60)
    for case in CASES[:2]:
        step = partial(steps, results, case, profiled=True)
        results.attempt(f"steps of {case.name}", step, 130)
    for precision in ("tf32", "bf16"):
        for shape in (MIXTURE, CAPACITY, WIDE):
            results.attempt(f"product {shape} {precision}", partial(product, results, shape, precision), 130)
    for shape in (MIXTURE, CAPACITY):
        results.attempt(f"router {shape}", partial(routers, results, shape), 140)
    for case in CASES[2:]:
        step = partial(steps, results, case, profiled=case.precision != "fp32" and case.runs > 1)
        results.attempt(f"steps of {case.name}", step, 150)
    for case in CASES[:2]:
        results.attempt(f"AdamW {case.name}", partial(optimizer, results, case), 150)
    for shape in (MIXTURE, CAPACITY, WIDE):
        results.attempt(f"product {shape} fp32", partial(product, results, shape, "fp32"), 150)
    for shape in SHAPES["cuda"]:
        if shape not in (MIXTURE, CAPACITY, WIDE):
            for precision in PRECISIONS:
                results.attempt(f"product {shape} {precision}", partial(default, results, shape, precision), 150)
    print(f"done after {results.seconds:.0f} s")


def default(results: Results, shape: tuple[int, ...], precision: Precision) -> None:
    found = measure(shape, precision, DEVICE, {"kernels": routed_experts})
    line = f"{precision} {shape}: kernels {shown(found['kernels_ms'])}, router {shown(found['router_ms'])}"
    results.add("product", line, shape=shape, precision=precision, **found)


if __name__ == "__main__":
    main()
