"""Prices: fitted to timings, kept for the machine that they hold for, and measured on this one."""

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mue_check.cost import timing
from mue_check.cost.calibration import (
    Calibration,
    Timing,
    calibration_path,
    fit_prices,
    kept_calibration,
    read_calibration,
    save_calibration,
)
from mue_check.cost.timing import Sample, calibrate, machine_of, require_sound
from mue_check.cost.work import PRICED, Work
from mue_check.errors import SpecError, TimingError

MACHINE = {"kind": "cpu", "device": "a paper machine", "torch": "0", "code": "0"}
PAPER = Calibration(machine=MACHINE, prices=dict.fromkeys(PRICED, 1e-3), error=1.0, stacks=0)


def timings(noise: float = 0.0) -> tuple[list[Timing], dict[str, float]]:
    """Timings of a device with known prices, some of them 0."""
    rng = np.random.default_rng(0)
    prices = {name: float(10 ** rng.uniform(-6, -4)) if i % 3 else 0.0 for i, name in enumerate(PRICED)}
    found = []
    for i in range(30):
        work = Work(**{f.name: float(10 ** rng.uniform(0, 3)) for f in fields(Work)})
        seconds = sum(amount * price for amount, price in zip(work.priced, prices.values(), strict=True))
        found.append(Timing(label=str(i), work=work, seconds=seconds * math.exp(noise * rng.standard_normal())))
    return found, prices


def test_known_prices_are_found() -> None:
    found, prices = timings()
    fitted = fit_prices(found, MACHINE)
    assert fitted.error == pytest.approx(1.0, abs=1e-6)
    for each in found:
        assert fitted.seconds(each.work) == pytest.approx(each.seconds)
    for name, price in prices.items():
        assert fitted.prices[name] == pytest.approx(price, abs=1e-9)


def test_prices_are_never_negative_and_the_error_says_how_far_off_they_are() -> None:
    found, _ = timings(noise=0.3)
    fitted = fit_prices(found, MACHINE)
    assert min(fitted.prices.values()) >= 0
    assert 1.1 < fitted.error < 2


def test_a_calibration_is_kept_for_its_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept_calibration(MACHINE) is None
    save_calibration(PAPER, calibration_path(MACHINE))
    assert kept_calibration(MACHINE) == PAPER
    assert kept_calibration({**MACHINE, "code": "1"}) is None
    calibration_path(MACHINE).write_text("{}")
    assert kept_calibration(MACHINE) is None


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    for path, value in ((tmp_path / "a.json", "no JSON"), (tmp_path / "b.json", '{"prices": {}}')):
        path.write_text(value)
        with pytest.raises(SpecError, match=f"{path.name}.* is not a calibration of this version"):
            read_calibration(path)
    older = replace(PAPER, prices={"flop": 1.0})
    save_calibration(older, tmp_path / "c.json")
    with pytest.raises(SpecError, match="is not a calibration of this version"):
        read_calibration(tmp_path / "c.json")


def test_this_machine_can_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        timing, "CPU_SAMPLES", (Sample("d=32,L=1,H=32", 2, 16, 5), Sample("d=32,L=3,8e2a,h=8", 2, 16, 5))
    )
    monkeypatch.setattr(timing, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(timing, "STEADY", math.inf)  # one step is too short a round to say whether a machine is busy
    monkeypatch.setattr(timing, "require_sound", lambda calibration, timings: None)  # two stacks are too few
    seen: list[tuple[int, int]] = []
    found = calibrate("cpu", progress=lambda done, of: seen.append((done, of)))
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert found.machine == machine_of("cpu")
    assert found.stacks == 2
    assert found.machine["precision"] == "fp32"
    assert found.seconds(Work(calls=2, flop=1e6, activations=1e5, parameters=1e4)) > 0


def test_a_calibration_is_made_in_the_precision_that_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, left = [], timings()[0]

    def time_nothing(sample: Sample, device: torch.device, precision: str) -> tuple[Timing, float]:
        seen.append(precision)
        return left.pop(), 1.0

    monkeypatch.setattr(timing, "_time", time_nothing)
    found = calibrate("cpu", "bf16")
    assert set(seen) == {"bf16"}
    assert found.machine == machine_of("cpu", "bf16") != machine_of("cpu")


@pytest.mark.parametrize(("spreads", "busy"), [((1.1, 9.0, 1.2), False), ((1.1, 1.8, 2.5), True)])
def test_a_busy_device_is_not_calibrated(
    monkeypatch: pytest.MonkeyPatch, spreads: tuple[float, ...], busy: bool
) -> None:
    """One stack that was disturbed does not matter; most of them do."""
    left, found = list(spreads), timings()[0]
    monkeypatch.setattr(timing, "CPU_SAMPLES", timing.CPU_SAMPLES[: len(left)])
    monkeypatch.setattr(timing, "_time", lambda *which: (found.pop(), left.pop()))
    if busy:
        with pytest.raises(TimingError, match=r"cpu is busy: .* take 1.8 times as long"):
            calibrate("cpu")
    else:
        assert calibrate("cpu").stacks == 3


def test_the_spread_of_a_stack_is_that_of_its_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 2.0, *(moment for start in range(3, 8) for moment in (start, start + 0.1 * start))])
    monkeypatch.setattr(timing, "_now", lambda device: next(clock))
    found, spread = timing._time(Sample("d=32,L=1,H=32", 2, 16, 1), torch.device("cpu"), "fp32")
    assert spread == pytest.approx(7 / 3)
    assert found.seconds == pytest.approx(0.5)


def test_a_fit_that_cannot_be_right_is_refused() -> None:
    found, _ = timings()
    good = fit_prices(found, MACHINE)
    require_sound(good, found)
    free = replace(good, prices={name: price if name == "flop" else 0.0 for name, price in good.prices.items()})
    with pytest.raises(TimingError, match="would take 0 ms"):
        require_sound(free, found)
    tripled = [replace(each, seconds=3 * each.seconds) for each in found]
    with pytest.raises(TimingError, match=r"miss by a factor of 3\.0"):
        require_sound(good, tripled)
