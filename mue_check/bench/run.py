"""The whole bench of a plan: every case is checked, then timed."""

import gc
from collections.abc import Callable, Mapping, Sequence

import torch

from mue_check.bench.bars import compare_with_bars
from mue_check.bench.cases import Case, Plan
from mue_check.bench.ceilings import measure_ceilings, needed_bytes, needed_flops
from mue_check.bench.growth import find_growth
from mue_check.bench.mup_coordinates import measure_coordinates
from mue_check.bench.results import Ceilings, LatencyRow, Result, StepRow
from mue_check.bench.setup import Setup
from mue_check.bench.timing import Spread, ratios, time_ways
from mue_check.bench.way import Way
from mue_check.bench.ways import COMPARED, FUSED, builders, require_agreement
from mue_check.execute.machine import device_name
from mue_check.training.products import set_products

NO_MEMORY = "out of memory"
Say = Callable[[str], None]


def run_bench(plan: Plan, *, command: str = "", say: Say = lambda text: None) -> Result:
    """Measure; Disagreement where two ways do not do the same work. ``say`` is told what is being measured."""
    device = torch.device(plan.device)
    cases = [*plan.sweep, *(mixture for _, mixture in plan.latency)]
    say("ceilings")
    precisions = list(dict.fromkeys(case.precision for case in cases))
    ceilings = measure_ceilings(device, precisions, plan.matmul, plan.copy_mib)
    steps: list[StepRow] = []
    for case in plan.sweep:
        say(case.name)
        steps += measure_case(case, plan, ceilings)
        _give_back(device)
    latency: list[LatencyRow] = []
    for grows, mixture in plan.latency:
        say(f"{mixture.name} against dense")
        latency += measure_latency(grows, mixture, plan)
        _give_back(device)
    say("coordinate check")
    return Result(
        device=plan.device,
        device_name=device_name(plan.device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        command=command,
        ceilings=ceilings,
        steps=tuple(steps),
        latency=tuple(latency),
        coordinates=tuple(measure_coordinates(plan)),
        growth=tuple(find_growth(steps, latency)),
        bars=tuple(compare_with_bars(steps, latency)),
    )


def measure_case(case: Case, plan: Plan, ceilings: Ceilings) -> list[StepRow]:
    """One row for each way; those that do not fit into the device's memory say so."""
    setup = Setup(case, torch.device(plan.device))
    set_products(case.precision, setup.device)
    ways, notes = _agreeing(setup, list(builders(setup)))
    seconds = _timed(ways, plan)
    if not seconds and "vmap" in ways:  # it holds most, beside the others
        del ways["vmap"]
        _give_back(setup.device)
        notes["vmap"] = NO_MEMORY
        seconds = _timed(ways, plan)
    parameters = setup.stack([0]).state.declared
    notes |= dict.fromkeys(ways.keys() - seconds.keys(), NO_MEMORY)
    rows = [StepRow(case=case, way=way, note=note) for way, note in notes.items()]
    fused = next((way for way in FUSED if way in seconds), None)
    for way, taken in seconds.items():
        spread = Spread.of(taken)
        own_flops = needed_flops(case) / spread.median
        rows.append(
            StepRow(
                case=case,
                way=way,
                seconds=spread,
                times=ratios(taken, seconds[fused]) if fused else None,
                share_of_matmul=own_flops / ceilings.flops_per_second[case.precision],
                share_of_bandwidth=needed_bytes(parameters) / spread.median / ceilings.bytes_per_second,
            )
        )
    return rows


def measure_latency(grows: str, mixture: Case, plan: Plan) -> list[LatencyRow]:
    """The fused step of a mixture against the dense one, after both have shown that they train like plain models."""
    device = torch.device(plan.device)
    rows = []
    set_products(mixture.precision, device)
    ways: dict[str, Mapping[str, Way]] = {}
    for label, case, plain in (("dense", mixture.dense, "plain"), ("mixture", mixture, "plain batched")):
        found, _ = _agreeing(Setup(case, device), [*FUSED, plain])
        ways[label] = {way: found[way] for way in FUSED if way in found}
    for way in FUSED if plan.device == "cuda" else ("eager",):
        both = {label: by_way[way] for label, by_way in ways.items() if way in by_way}
        seconds = _timed(both, plan) if len(both) == len(ways) else {}
        if not seconds:
            rows.append(LatencyRow(grows=grows, case=mixture, way=way, note=NO_MEMORY))
            continue
        rows.append(
            LatencyRow(
                grows=grows,
                case=mixture,
                way=way,
                dense=Spread.of(seconds["dense"]),
                mixture=Spread.of(seconds["mixture"]),
                ratio=ratios(seconds["mixture"], seconds["dense"]),
            )
        )
    return rows


def _agreeing(setup: Setup, wanted: Sequence[str]) -> tuple[dict[str, Way], dict[str, str]]:
    """The ways that fit, each after COMPARED steps with the losses of the first; and what keeps the others out."""
    expected: torch.Tensor | None = None
    ways: dict[str, Way] = {}
    notes: dict[str, str] = {}
    for name, build in builders(setup).items():
        if name not in wanted:
            continue
        try:
            way = build()
            way.advance(COMPARED)
        except torch.OutOfMemoryError:
            notes[name] = NO_MEMORY
            continue
        losses = way.losses()[:COMPARED].float()
        if expected is None:
            expected = losses.clone()
        require_agreement(name, losses, expected, setup.case)
        ways[name] = way
    return ways, notes


def _timed(ways: Mapping[str, Way], plan: Plan) -> dict[str, list[float]]:
    """Seconds by way and round; nothing where the ways do not fit side by side."""
    try:
        return time_ways(ways, torch.device(plan.device), plan.rounds, plan.seconds)
    except torch.OutOfMemoryError:
        return {}


def _give_back(device: torch.device) -> None:
    """What a case has held, before the next one."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
