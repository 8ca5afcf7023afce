"""The Triton kernels on a GPU: their tests, whole steps with and without them, products, and a page of numbers.

    python bench/triton_kernels.py OUT [--until SECONDS] [--compiled | --tables]

About 100 s on an H100; nothing is begun after --until. Every result is written to OUT/kernels.json at once; the
products go to OUT/expert_product.json (bench/expert_product.py). A part that fails or finds no time does not stop the
others. --compiled measures instead steps that inductor compiles, with and without kernels, in a minute. --tables
measures nothing: it writes OUT/kernels.md, the tables of all OUT/kernels*.json, next to the time of
sequential training if OUT/bench.json has it.
"""

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench.expert_product import SHAPES, measure, repeated
from mue_check.bench.cases import CUDA_CAPACITY, CUDA_MIXTURE, CUDA_SHORT, BenchCase
from mue_check.bench.setup import BenchSetup
from mue_check.bench.table import table
from mue_check.bench.timing import clock
from mue_check.execute.process import prepare_process
from mue_check.models.kernels import VARIABLE
from mue_check.models.routed_experts import routed_experts
from mue_check.precision import PRECISIONS
from mue_check.spec import Dense
from mue_check.training import Stack, training_step
from mue_check.training.compiling import VARIABLE as COMPILED
from mue_check.training.products import set_products

DEVICE = torch.device("cuda")
KERNELS = {"old": "", "new": None}
"""Without kernels, and as chosen by shape."""
PAGES = [replace(case, precision=p) for case in (CUDA_MIXTURE, CUDA_CAPACITY) for p in ("tf32", "bf16")]
CASES = [
    *PAGES[2:],
    *(replace(CUDA_CAPACITY.dense, precision=p) for p in ("tf32", "bf16")),
    replace(CUDA_MIXTURE, precision="tf32", runs=1),
    *PAGES[:2],
    replace(CUDA_SHORT, precision="tf32"),
    replace(CUDA_MIXTURE, precision="fp32"),
    replace(CUDA_SHORT, precision="bf16"),
    replace(CUDA_SHORT, precision="fp32"),
]
WORKERS, ROUNDS, UNTIL = 8, 3, 92
"""Processes that compile; rounds of timing; seconds after which nothing is begun."""


class Results:
    """What has been found, written to a file after every addition."""

    def __init__(self, out: Path, until: float) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.until, self.began = out, until, time.monotonic()
        self.parts: dict[str, list[object]] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def add(self, part: str, line: str, **found: object) -> None:
        self.parts.setdefault(part, []).append(found)
        (self.out / "kernels.json").write_text(json.dumps(self.parts, indent=1) + "\n")
        print(f"[{self.seconds:4.0f}] {line}", flush=True)

    def attempt(self, name: str, part: Callable[[], None]) -> None:
        """Run a part if there is time, and go on if it fails."""
        if self.seconds > self.until:
            self.add("skipped", f"{name}: no time left", name=name)
            return
        try:
            part()
        except Exception as error:
            traceback.print_exc(limit=4)
            self.add("failed", f"{name}: {type(error).__name__}: {error}"[:300], name=name, error=str(error))
        gc.collect()
        torch.cuda.empty_cache()


def compile_and_test(results: Results) -> None:
    """At the same time. Triton keeps on disk what each process compiles."""
    log = results.out / "tests.log"
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "8", "tests/gpu/test_kernels.py"]
    script = [sys.executable, __file__, str(results.out), "--worker"]
    with log.open("w") as file, (results.out / "workers.log").open("w") as other:
        tests = subprocess.Popen(pytest, stdout=file, stderr=file)
        workers = [subprocess.Popen([*script, str(i)], stdout=other, stderr=other) for i in range(WORKERS)]
        for process in (tests, *workers):
            try:
                process.wait(timeout=max(1, 48 - results.seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    lines = log.read_text().splitlines() or ["no output"]
    print("\n".join(line[:200] for line in lines if line.startswith(("E  ", "FAILED", "ERROR")))[:2500])
    codes = {worker.returncode for worker in workers}
    results.add("tests", f"tests: exit {tests.returncode}: {lines[-1]}; workers: {codes}", code=tests.returncode)


def work(mine: int) -> None:
    """Compile one share of the products: the number of runs makes no difference."""
    for i, shape in enumerate(SHAPES["cuda"]):
        for j, precision in enumerate(PRECISIONS):
            if (3 * i + j) % WORKERS == mine:
                measure((1, *shape[1:]), precision, DEVICE, {"kernels": routed_experts})


def built(case: BenchCase, names: str | None, backend: str = "") -> Stack:
    os.environ.pop(VARIABLE, None)
    if names is not None:
        os.environ[VARIABLE] = names
    os.environ[COMPILED] = backend
    set_products(case.precision, DEVICE)
    # a CPU draws the numbers of each seed once, which takes seconds
    return BenchSetup(case, DEVICE).stack([run % 2 for run in range(case.runs)])


def label(case: BenchCase) -> str:
    return f"{case.model} {case.precision} M={case.tokens} R={case.runs}"


def steps(results: Results, case: BenchCase) -> None:
    """Whole captured steps, interleaved; the optimizer alone; and the page of numbers."""
    stacks: dict[str, Stack] = {}
    logs = {}
    for name, names in KERNELS.items():
        stacks[name] = built(case, names)
        stacks[name].advance(8)
        logs[name] = stacks[name].log[:6].clone()
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for _ in range(ROUNDS):
        for name, stack in stacks.items():
            times[name].append(clock(partial(stack.advance, 8), DEVICE) / 8 * 1e3)
    ms = {name: statistics.median(t) for name, t in times.items()}
    apart = float((logs["new"] - logs["old"]).abs().max())
    line = f"{label(case)}: {ms['old']:.2f} -> {ms['new']:.2f} ms a step, losses apart {apart:.1g}"
    results.add("steps", line, case=case.name, rounds=times, ms=ms, apart=apart)
    if case in PAGES:
        counter = torch.ones(1, dtype=torch.int64, device=DEVICE)
        repeats = {name: repeated(partial(stack.optimizer.step, counter), DEVICE)[1] for name, stack in stacks.items()}
        adamw = {n: 1e3 * statistics.median(clock(call, DEVICE) for _ in range(9)) for n, call in repeats.items()}
        line = f"  AdamW: {adamw['old']:.3f} -> {adamw['new']:.3f} ms"
        results.add("adamw", line, case=case.name, numbers=stacks["new"].state.flat.numel(), **adamw)
        del stacks["old"], repeats
        page(results, case, stacks["new"])


def page(results: Results, case: BenchCase, stack: Stack) -> None:
    """Launches, milliseconds, bytes and share of the ceilings of each kernel, in one eager step."""
    os.environ.pop(VARIABLE, None)
    training_step(stack)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        training_step(stack)
        torch.cuda.synchronize()
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            found.setdefault(event.name, []).append(event.device_time_total / 1e3)
    total, launches = sum(map(sum, found.values())), sum(map(len, found.values()))
    results.add("page", f"  {total:.1f} ms in {launches} launches", case=case.name, ms=total, launches=launches)
    bandwidth, flops = ceilings(case)
    amounts = work_of(case, stack.state.flat.numel(), stack.state.parameters["unembedding"].shape[2])
    for name in sorted(amounts.keys() & found.keys(), key=lambda name: -sum(found[name])):
        ms, (size, flop) = sum(found[name]), amounts[name]
        shares = size / ms / 1e-3 / bandwidth, flop / ms / 1e-3 / flops
        line = f"    {name:20} {len(found[name]):2d} launches {ms:6.3f} ms {size / 1e9:5.2f} GB"
        line += f", {shares[0]:.0%} of the bandwidth of a copy, {shares[1]:.0%} of the rate of a large product"
        results.add("kernels", line, case=case.name, kernel=name, launches=len(found[name]), ms=ms, bytes=size,
                    flop=flop, of_bandwidth=shares[0], of_products=shares[1])  # fmt: skip


def ceilings(case: BenchCase) -> tuple[float, float]:
    """Bytes and floating point operations per second: of a copy of 1 GiB, and of a product of 8192."""
    big = torch.empty(2**28, device=DEVICE)
    other = torch.empty_like(big)
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16 if case.precision == "bf16" else torch.float32)
    copying, product = (
        min(clock(call, DEVICE) for _ in range(6)) for call in (partial(other.copy_, big), partial(torch.mm, a, a))
    )
    return 2 * 2**30 / copying, 2 * 8192**3 / product


def work_of(case: BenchCase, numbers: int, vocab: int) -> dict[str, tuple[float, float]]:
    """Bytes that each kernel has to move in a step, if each program's reads come from memory once, and its flop."""
    ffn, width, depth = case.spec.feed_forward, case.spec.width, case.spec.depth
    assert not isinstance(ffn, Dense)
    size = 2 if case.precision == "bf16" else 4
    tokens = case.runs * case.tokens
    assigned, scores = tokens * ffn.activated, tokens * ffn.total
    matrix = case.runs * width * ffn.total * ffn.hidden * size
    outer, inner = assigned * width * size, assigned * ffn.hidden * size
    flop = 2.0 * assigned * width * ffn.hidden
    layer = {
        "_hidden": (outer + 2 * matrix + inner, 2 * flop),
        "_to_tokens": (2 * outer + 3 * matrix + 3 * inner, 3 * flop),
        "_hidden_backward": (2 * outer + 3 * matrix + 3 * inner, 3 * flop),
        "_weight_gradients": (2 * outer + 3 * matrix + 3 * inner, 3 * flop),
        "_count": (8.0 * assigned, 0.0),
        "_place": (12.0 * assigned, 0.0),
        "_select": (4.0 * scores + 12 * assigned, 0.0),
        "_select_backward": (16.0 * assigned + 4 * scores, 0.0),
        "_attention": (4.0 * tokens * width * size, 0.0),
        "_attention_backward": (7.0 * tokens * width * size, 0.0),
    }
    logits, norms = tokens * vocab * size, (2 * depth + 1) * 4.0 * tokens * width * size
    once = {
        "_adamw": 7 * 4.0 * numbers,
        "_add_norm": norms,
        "_add_norm_backward": norms,
        "_cross_entropy": logits + 16.0 * tokens,
        "_cross_entropy_backward": 2 * logits + 12.0 * tokens,
    }
    return {
        **{name: (b, 0.0) for name, b in once.items()},
        **{name: (depth * b, depth * f) for name, (b, f) in layer.items()},
    }


def compiled(results: Results, case: BenchCase) -> None:
    """Loss and optimizer by inductor, around the kernels and without them."""
    for name, names in KERNELS.items():
        torch.compiler.reset()
        began = results.seconds
        stack = built(case, names, "inductor")
        stack.advance(8)
        torch.cuda.synchronize()
        start = results.seconds - began
        ms = 1e3 * statistics.median(clock(partial(stack.advance, 8), DEVICE) / 8 for _ in range(ROUNDS))
        line = f"compiled {label(case)}: {name} {ms:.2f} ms a step, {start:.0f} s to start"
        results.add("compiled steps", line, case=case.name, kernels=name, ms=ms, start=start)
        del stack
        gc.collect()


def tables(out: Path) -> str:
    """Of every file of results: steps, compiled steps, the optimizer and the kernels of one step."""
    lines = [
        "# Triton kernels: times on a GPU",
        "",
        "Milliseconds; old: without kernels, new: with them. GB: what the programs of a kernel read and write. Where",
        "the cache serves some of it, the share of a copy's bandwidth can exceed 100%. Sequential: the fastest way to",
        "train run after run, measured on another visit (bench.json).",
        "",
    ]
    alone = sequential(out / "bench.json")
    for path in sorted(out.glob("kernels*.json")):
        parts = json.loads(path.read_text())
        lines += [f"## {path.name}, torch {parts['device'][0]['torch']}", ""]
        steps = [
            (s["case"], *(f"{s['ms'][n]:.2f}" for n in KERNELS), f"{s['ms']['old'] / s['ms']['new']:.2f}")
            for s in parts.get("steps", [])
        ]
        against = [
            (s["case"], f"{alone[s['case']]:.0f}", f"{alone[s['case']] / s['ms']['new']:.1f}")
            for s in parts.get("steps", [])
            if s["case"] in alone
        ]
        compiled = [
            (s["case"], s["kernels"], f"{s['ms']:.2f}", f"{s['start']:.0f}") for s in parts.get("compiled steps", [])
        ]
        optimizer = [
            (a["case"], f"{a['numbers'] / 1e6:.0f}", f"{a['old']:.2f}", f"{a['new']:.2f}")
            for a in parts.get("adamw", [])
        ]
        kernels = [
            (k["case"], k["kernel"].strip("_"), str(k["launches"]), f"{k['ms']:.2f}", f"{k['bytes'] / 1e9:.2f}",
             f"{k['of_bandwidth']:.0%}", f"{k['of_products']:.0%}")
            for k in parts.get("kernels", [])
        ]  # fmt: skip
        for header, rows in (
            (("step", "old", "new", "times as fast"), steps),
            (("step of all runs", "sequential", "new is times as fast"), against),
            (("compiled step", "kernels", "ms", "seconds to start"), compiled),
            (("AdamW", "million numbers", "old", "new"), optimizer),
            (("step", "kernel", "launches", "ms", "GB", "of a copy's bandwidth", "of a product's rate"), kernels),
        ):
            lines += [*table(header, rows), ""] if rows else []
        lines += [f"Not measured, out of time: {skipped['name']}." for skipped in parts.get("skipped", [])]
        lines += [""] if parts.get("skipped") else []
    return "\n".join(lines).rstrip() + "\n"


def sequential(path: Path) -> dict[str, float]:
    """Milliseconds of one step of all runs, one after the other, by case."""
    found: dict[str, float] = {}
    for row in json.loads(path.read_text())["steps"] if path.exists() else []:
        case = row["case"]
        name = f"{case['model']}, {case['batch'] * case['context']} tokens, R={case['runs']}, {case['precision']}"
        if row["way"] in ("alone", "plain", "plain batched"):
            found[name] = min(found.get(name, math.inf), 1e3 * row["seconds"]["median"] * case["runs"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--until", type=float, default=UNTIL)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    prepare_process()
    if options.tables:
        (options.out / "kernels.md").write_text(tables(options.out))
    elif options.worker is None:
        run(Results(options.out, options.until), compiled_only=options.compiled)
    else:
        work(options.worker)


def run(results: Results, *, compiled_only: bool) -> None:
    """All parts, the most important first."""
    results.add("device", f"{torch.cuda.get_device_name()}, torch {torch.__version__}", torch=torch.__version__)
    if compiled_only:
        for case in (PAGES[0], PAGES[1], PAGES[3]):
            results.attempt(f"compiled {label(case)}", partial(compiled, results, case))
        return
    results.attempt("tests", partial(compile_and_test, results))
    products = ["bench/expert_product.py", "--device", "cuda", "--json", str(results.out / "expert_product.json")]
    for case in CASES:
        results.attempt(f"steps of {label(case)}", partial(steps, results, case))
    results.attempt("products", partial(subprocess.run, [sys.executable, *products], timeout=40))
    (results.out / "kernels.md").write_text(tables(results.out))
    print(f"done after {results.seconds:.0f} s")


if __name__ == "__main__":
    main()
