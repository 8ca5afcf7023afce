"""Time a few small stacks on a device, for a calibration."""

import contextlib
import hashlib
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import mue_check
from mue_check.cost.calibration import Calibration, Progress, Timing, fit_prices
from mue_check.cost.work import product_of, step_work
from mue_check.data import load_corpus
from mue_check.errors import TimingError
from mue_check.execute.machine import device_name
from mue_check.execute.process import prepare_process
from mue_check.precision import Precision
from mue_check.rules import HyperParameters, get_rule
from mue_check.spec import Scenario, TrainSpec
from mue_check.spec_text import parse_scenario
from mue_check.training import Stack

CORPUS = "markov"
STEADY = 1.5
"""Slowest over quickest round of a stack, median over stacks, above which the device counts as busy."""
CLOSE = 2.0
"""Factor by which a fit may miss a stack that it has seen, median over stacks."""
WARM_UP, ROUNDS, ROUND_SECONDS = 3, 5, 0.12
VALUES = 5
"""Learning rates of a seed, as in a sweep."""
TIMED_PACKAGES = ("training", "models")
"""Packages whose code is what is timed: another version of them needs another calibration."""


@dataclass(frozen=True)
class Sample:
    """A stack to time: a model, its sequences and their context, and how many runs."""

    model: str
    batch: int
    context: int
    runs: int


CPU_SAMPLES = (
    Sample("d=32,L=2,H=32", 16, 16, 5),
    Sample("d=32,L=2,H=32", 16, 16, 20),
    Sample("d=32,L=2,H=32", 4, 16, 10),
    Sample("d=32,L=8,H=32", 16, 16, 10),
    Sample("d=64,L=2,H=64", 16, 32, 10),
    Sample("d=128,L=2,H=128", 16, 16, 5),
    Sample("d=128,L=2,H=128", 16, 16, 15),
    Sample("d=32,16e2a,L=2,h=32", 16, 16, 5),
    Sample("d=32,16e2a,L=2,h=32", 16, 16, 20),
    Sample("d=32,16e8a,L=2,h=32", 16, 16, 10),
    Sample("d=32,16e16a,L=2,h=8", 16, 16, 10),
    Sample("d=32,16e4a1s,L=4,h=8", 16, 16, 15),
    Sample("d=64,8e2a1s,L=2,h=64", 16, 16, 10),
    Sample("d=32,256e2a,L=2,h=8", 16, 16, 5),
    Sample("d=32,256e2a,L=2,h=8", 16, 16, 15),
    Sample("d=32,16e2a,L=2,h=16,load=zipf:1", 16, 16, 10),
)
GPU_SAMPLES = (
    Sample("d=128,L=4,H=128", 64, 64, 5),
    Sample("d=128,L=4,H=128", 64, 64, 20),
    Sample("d=128,L=4,H=128", 8, 32, 10),
    Sample("d=128,L=16,H=128", 64, 64, 5),
    Sample("d=512,L=4,H=512", 64, 64, 5),
    Sample("d=512,L=4,H=512", 64, 64, 15),
    Sample("d=128,16e2a,L=4,h=128", 64, 64, 5),
    Sample("d=128,16e8a,L=4,h=128", 64, 64, 10),
    Sample("d=128,16e16a,L=4,h=32", 64, 64, 10),
    Sample("d=128,16e4a1s,L=8,h=32", 64, 64, 5),
    Sample("d=256,8e2a1s,L=4,h=256", 64, 64, 5),
    Sample("d=128,256e2a,L=4,h=32", 64, 64, 2),
    Sample("d=128,16e2a,L=4,h=64,load=zipf:1", 64, 64, 5),
)


def machine_of(device: str, precision: Precision = "fp32") -> Mapping[str, str]:
    """What a calibration is valid for: the device, the precision of products, torch, and the timed code."""
    package = Path(mue_check.__file__).parent
    sources = [path for name in TIMED_PACKAGES for path in sorted((package / name).glob("*.py"))]
    code = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    return {
        "kind": device,
        "precision": precision,
        "device": device_name(device),
        "torch": torch.__version__,
        "code": code,
    }


def calibrate(device: str, precision: Precision = "fp32", progress: Progress = lambda done, of: None) -> Calibration:
    """Time the samples of a device and fit: on a CPU core-seconds of one thread, on a GPU its seconds.

    Raises TimingError where the device is busy or the fit cannot be believed.
    """
    prepare_process()
    samples = CPU_SAMPLES if device == "cpu" else GPU_SAMPLES
    timings: list[Timing] = []
    spreads: list[float] = []
    for at, sample in enumerate(samples):
        progress(at, len(samples))
        with contextlib.suppress(torch.OutOfMemoryError):  # the others say enough of a small GPU
            found, spread = _time(sample, torch.device(device), precision)
            timings.append(found)
            spreads.append(spread)
    progress(len(samples), len(samples))
    if (spread := statistics.median(spreads)) > STEADY:
        raise TimingError(
            f"{device} is busy: some rounds of the same steps take {spread:.1f} times as long as others; "
            "try again when it is idle"
        )
    calibration = fit_prices(timings, machine_of(device, precision))
    require_sound(calibration, timings)
    return calibration


def require_sound(calibration: Calibration, timings: Sequence[Timing]) -> None:
    """TimingError where a step costs nothing, or where the prices miss what they were fitted to."""
    if calibration.overhead <= 0:
        raise TimingError("no price fits the timings: a step of one layer would take 0 ms; try again on an idle device")
    missed = [abs(math.log(max(calibration.seconds(t.work), 1e-12) / t.seconds)) for t in timings]
    if (factor := math.exp(statistics.median(missed))) > CLOSE:
        raise TimingError(
            f"no prices fit the timings: they miss by a factor of {factor:.1f}; try again on an idle device"
        )


def _time(sample: Sample, device: torch.device, precision: Precision) -> tuple[Timing, float]:
    """A step of a stack, as the median over ROUNDS, and the ratio of the slowest to the quickest round."""
    model, corpus = parse_scenario(sample.model).model, load_corpus(CORPUS)
    train = TrainSpec(steps=1000, batch=sample.batch, context=sample.context)
    scenario = Scenario.of(model, train)
    prescription = get_rule("complete_mue").prescribe(scenario, scenario)
    seeds = [run // VALUES for run in range(sample.runs)]

    stack = Stack(
        model,
        prescription,
        HyperParameters(lr=2.0**-8, init_std=0.05),
        train,
        corpus,
        lrs=[2.0**-8] * sample.runs,
        seeds=seeds,
        device=device,
        precision=precision,
    )
    product = product_of(model, train.tokens_per_step, device.type)
    work = step_work(model, train, corpus, runs=sample.runs, product=product)
    stack.advance(WARM_UP)
    began = _now(device)
    stack.advance(1)
    steps = max(1, min(60, round(ROUND_SECONDS / (_now(device) - began))))
    rounds = []
    for _ in range(ROUNDS):
        began = _now(device)
        stack.advance(steps)
        rounds.append((_now(device) - began) / steps)
    return Timing(label=str(sample), work=work, seconds=statistics.median(rounds)), max(rounds) / min(rounds)


def _now(device: torch.device) -> float:
    """CPU seconds of this process on a CPU, so that other processes do not count; elapsed seconds on a GPU."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()
