"""Conclusions from rows: bars against the fastest way that trains run after run, and exponents of growth."""

from dataclasses import replace

import pytest

from mue_check.bench.cases import CUDA_CAPACITY, CUDA_MIXTURE, BenchCase, make_plan
from mue_check.bench.ceilings import needed_flops
from mue_check.bench.conclusions import compare_with_bars, find_growth
from mue_check.bench.results import BarRow, LatencyRow, StepRow
from mue_check.bench.timing import Spread, ratios

ONE = Spread.of([1.0])


def rows(case: BenchCase, **times: float) -> list[StepRow]:
    return [
        StepRow(case=case, way=way.replace("_", " "), seconds=Spread.of([value]), times=Spread.of([value]))
        for way, value in times.items()
    ]


def bar_of(case: BenchCase, steps: list[StepRow], latency: list[LatencyRow]) -> BarRow:
    return next(bar for bar in compare_with_bars(steps, latency) if bar.shape == case.name)


@pytest.mark.parametrize(("alone", "reached"), [(11.0, True), (9.0, False)])
def test_the_fastest_sequential_way_decides(alone: float, reached: bool) -> None:
    found = bar_of(CUDA_MIXTURE, rows(CUDA_MIXTURE, captured=1, alone=alone, plain=40, plain_batched=12, vmap=2), [])
    assert found.measured == Spread.of([alone])
    assert found.reached is reached


def test_the_same_shape_without_a_graph_is_not_that_bar() -> None:
    assert bar_of(CUDA_MIXTURE, rows(CUDA_MIXTURE, eager=1, plain=40), []).measured is None


@pytest.mark.parametrize(("ratio", "reached"), [(1.19, True), (1.21, False)])
def test_latency_of_capacity(ratio: float, reached: bool) -> None:
    row = LatencyRow(grows="capacity", case=CUDA_CAPACITY, way="captured", ratio=Spread.of([ratio]))
    assert bar_of(CUDA_CAPACITY, [], [replace(row, way="eager", ratio=ONE), row]).reached is reached


def test_growth_is_of_the_whole_step() -> None:
    case = BenchCase(model="d=32,H=32", batch=8, context=32, runs=1)
    swept = [row for runs in (1, 4, 16) for row in rows(replace(case, runs=runs), eager=1 / runs**0.5, plain=7)]
    swept += rows(replace(case, model="d=64,H=64"), eager=8)  # two widths are no growth
    (growth,) = find_growth(swept, [])
    assert (growth.grows, growth.way, growth.sizes) == ("R", "eager", (1, 4, 16))
    assert growth.seconds == pytest.approx((1, 2, 4))
    assert growth.exponent == pytest.approx(0.5)


def test_growth_with_experts() -> None:
    mixtures = [replace(CUDA_CAPACITY, model=f"d=128,L=4,{n}e8a,h=16") for n in (8, 32, 128)]
    found = [
        LatencyRow(grows="capacity", case=case, way="captured", mixture=Spread.of([2.0**i]))
        for i, case in enumerate(mixtures)
    ]
    (growth,) = find_growth([], found)
    assert (growth.grows, growth.sizes) == ("N", (8, 32, 128))
    assert growth.exponent == pytest.approx(0.5)


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([2.0, 30.0, 4.0], [1.0, 10.0, 2.0]) == Spread(median=2.0, low=2.0, high=3.0)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_case_of_a_plan_is_a_model(device: str) -> None:
    plan = make_plan(device, ("fp32",))
    for case in plan.cases("steps") + plan.cases("latency"):
        assert case.spec.expansion == case.dense.spec.expansion
        assert needed_flops(case) >= needed_flops(case.dense) > 6 * case.tokens * case.dense.spec.parameters
