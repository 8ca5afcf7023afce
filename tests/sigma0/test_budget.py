"""``mue_check budget``, through the command line, with a calibration whose line is known."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mue_check.cli import main
from mue_check.errors import CalibrationError
from mue_check.judge.interval import t_interval
from mue_check.sigma0.budget import make_budget
from mue_check.sigma0.calibration import DriftCalibration, Gamma, read_calibration
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.kappa import KappaPoint, fit_kappa
from mue_check.spec import Experts

GAMMA, KAPPA = 0.1, -0.7
Budget = Callable[..., tuple[int, str, str]]


def calibration(*, noise: float = 0.02, origin: bool = True) -> DriftCalibration:
    """kappa is exactly -0.7 up to what the errors of the points allow."""
    points = [
        KappaPoint(label=str(x), ladder=ladder, shift=x, shift_se=0.02, drift=KAPPA * x + e * noise, drift_se=noise)
        for ladder, e in (("batch", 1), ("load", -1))
        for x in (-1.5, -1.0, -0.5, 0.5)
    ]
    return DriftCalibration(
        schema=1,
        made_by="a test",
        setting="dense d = 32, Markov text, 200 steps",
        gamma={"learned": Gamma(mean=GAMMA, se=0.01, df=5), "content_blind": Gamma(mean=0.51, se=0.01, df=5)},
        kappa=fit_kappa(points, origin=origin),
        range={
            "shortfall_bits": (0.0, 1.5),
            "experts": (4.0, 64.0),
            "activated": (1.0, 8.0),
            "tokens_per_expert": (4.0, 2000.0),
            "batch": (256.0, 4096.0),
        },
    )


@pytest.fixture
def budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Budget:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(calibration().to_json(), allow_nan=False))

    def ask(load: str, *arguments: str, spec: str = "4e1a", batch: str = "2048") -> tuple[int, str, str]:
        line = ["budget", "--load", load, "--spec", spec, f"--batch={batch}", "--calibration", str(path), *arguments]
        try:
            code = main(line)
        except SystemExit as left:
            code = int(str(left.code))
        return code, *capsys.readouterr()

    return ask


def test_an_even_load_moves_nothing(budget: Budget) -> None:
    code, out, _ = budget("1,1,1,1", "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "PASS"
    assert (found["forecast"]["drift"]["low"], found["forecast"]["drift"]["high"]) == (0, 0)
    assert found["learning_rate_factor"] == {"mean": 1, "low": 1, "high": 1}
    assert found["warnings"] == []
    assert found["dense_shift"]["mean"] == pytest.approx(-GAMMA * math.log2(1 / 4))


def test_the_numbers_are_gamma_times_kappa_times_the_shortfall(budget: Budget) -> None:
    """1/2, 1/4, 1/8, 1/8: the four are 1 bit over, even, and 1 bit short each."""
    code, out, _ = budget("4,2,1,1", "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["imbalance"]["shortfall_bits"] == pytest.approx(0.25)
    assert found["busiest"] == {"expert": 0, "tokens": 1024}
    assert (found["median"], found["rarest"]) == (384, {"expert": 2, "tokens": 256})
    shift, drift, bound = found["forecast"]["shift"], found["forecast"]["drift"], found["bound"]
    assert shift["mean"] == pytest.approx(GAMMA * 0.25)
    assert shift["high"] - shift["mean"] == pytest.approx(2.5706 * 0.01 * 0.25, rel=1e-3)
    assert drift["mean"] == pytest.approx(KAPPA * GAMMA * 0.25, abs=0.005)
    assert drift["low"] < drift["mean"] < drift["high"]
    assert bound["shift"]["mean"] == bound["shift"]["high"] == 0.125
    assert bound["drift"]["mean"] == pytest.approx(-0.0875, abs=0.005)
    assert found["dense_shift"]["mean"] == pytest.approx(GAMMA * (2 + 0.25))
    assert found["learning_rate_factor"]["mean"] == pytest.approx(2 ** drift["mean"])


def test_a_load_file_and_words_to_act_on(budget: Budget, tmp_path: Path) -> None:
    path = tmp_path / "load.csv"
    path.write_text("\n".join(["500", "300", "100", "100"]))
    code, out, err = budget(str(path))
    assert (code, err) == (0, "")
    assert "keep the tuned learning rate: its drift lies within +-0.5 octave" in out
    assert "busiest 1024 (expert 0)" in out
    assert "calibration  dense d = 32, Markov text, 200 steps" in out
    assert "warning" not in out
    assert "without tokens" not in out


def test_dead_and_starving_experts_are_named(budget: Budget) -> None:
    code, out, _ = budget("8000,4000,4000,4,0,0,0,0", spec="8e2a", batch="1024")
    assert code == 0
    assert "below 1 token per step: expert 3\n" in out
    assert "without tokens: experts 4, 5, 6, 7\n" in out
    assert "4 without tokens" in out
    assert "tokens per step of an expert: 0.5119 lies outside the measured 4 to 2000" in out


def test_the_dead_leave_more_to_the_others_and_that_is_no_even_load(budget: Budget) -> None:
    _, out, _ = budget("3,1,0,0", "--format", "json")
    found = json.loads(out)
    assert found["imbalance"]["shortfall_bits"] < 0
    drift = found["forecast"]["drift"]
    assert drift["low"] < drift["mean"] < drift["high"]
    assert drift["mean"] == pytest.approx(KAPPA * GAMMA * found["imbalance"]["shortfall_bits"], abs=0.005)


def test_each_range_that_is_left_is_a_warning(budget: Budget) -> None:
    load = ",".join(["1"] * 127 + ["18"])
    _, out, _ = budget(load, "--format", "json", spec="d=64,L=2,128e1a1s,h=32", batch="8192")
    warnings = json.loads(out)["warnings"]
    assert [w.split(":")[0] for w in warnings] == ["N experts", "batch (tokens per step)"]
    _, out, _ = budget("97,1,1,1", "--format", "json")
    warnings = json.loads(out)["warnings"]
    assert warnings[0].startswith("imbalance (bits that a typical expert is short): 2.99")
    _, out, _ = budget("1,1,1,1", "--format", "json", spec="d=64,L=2,4e4a,h=32", batch="8")
    assert len(json.loads(out)["warnings"]) == 1


def test_a_wide_interval_asks_for_a_sweep_and_a_sure_drift_moves_the_rate(budget: Budget) -> None:
    code, out, _ = budget("97,1,1,1", "--tolerance", "0.21")
    assert code == 0
    assert "not decided within +-0.21 octave: sweep 5 learning rates around 0.865 times the tuned one" in out
    code, out, _ = budget("97,1,1,1", "--tolerance", "0.05", "--format=json")
    found = json.loads(out)
    assert code == 0
    assert found["verdict"] == "FAIL"
    assert found["extrapolated"] == ["shortfall_bits"]
    assert len(found["sweep"]) == 5
    assert found["forecast"]["drift"]["high"] < -0.05
    assert found["advice"].startswith("the optimum moves: multiply the tuned learning rate by 0.865 [")
    assert "lies outside the calibration: before a long run sweep 5 learning rates" in found["advice"]


def test_content_blind_routing_has_its_own_gamma(budget: Budget) -> None:
    _, out, _ = budget("4,2,1,1", "--format", "json", spec="d=64,L=2,4e1a,h=64,router=content_blind")
    found = json.loads(out)
    assert found["routing"] == "content_blind"
    assert found["forecast"]["shift"]["mean"] == pytest.approx(0.51 * 0.25)


def test_the_interval_of_a_true_drift_covers() -> None:
    """gamma known from 5 seeds, kappa from 8 arms of two ladders, and an arm that scatters as those did."""
    rng, load, tau = np.random.default_rng(0), np.array([0.9, 0.05, 0.03, 0.02]), 0.1
    bits = Imbalance.of(load).shortfall_bits
    hits = []
    for _ in range(40):
        gamma = Gamma.of(t_interval(list(0.3 + 0.05 * rng.normal(size=5))))
        points = []
        for ladder in ("batch", "load"):
            shared = 0.07 * rng.normal()
            for shift in rng.uniform(-1.5, 0.5, 4):
                drift = KAPPA * shift + tau * rng.normal() + 0.07 * rng.normal() - shared
                points.append(
                    KappaPoint(label="", ladder=ladder, shift=shift, shift_se=0, drift=drift, drift_se=0.07 * 2**0.5)
                )
        made = replace(calibration(), gamma={"learned": gamma}, kappa=fit_kappa(points, origin=True))
        found = make_budget(load, Experts(total=4, activated=1, hidden=1), 2048, made).forecast.drift
        hits.append(found.low <= KAPPA * 0.3 * bits + tau * rng.normal() <= found.high)
    assert np.mean(hits) >= 0.9


@pytest.mark.parametrize(
    ("load", "spec", "batch", "says"),
    [
        ("1,-2,1,1", "4e1a", "2048", "expert 1 the load -2"),
        ("0,0,0,0", "4e1a", "2048", "zero for every expert"),
        ("3,1,1,1", "4e4a", "2048", "expert 0 has the share 0.5 of all assignments"),
        ("3,1,1,1", "4e4a", "2048", "largest feasible share is 1/a = 0.25"),
        ("1,1,1,1", "4e1a", "0", "batch=0"),
        ("1,1,1,1", "4e1a", "nan", "invalid int value: 'nan'"),
        ("1,1,1,1", "d=64,L=2,H=64", "2048", "has no experts"),
        ("1,1,1,1", "dense", "2048", "'dense' is not a notation of experts"),
        ("1,1,1,1", "4e8a", "2048", "at most N=4"),
        ("1,1,1,1", "4e1a", "64 --tolerance=nan", "must be above 0 and at most 2 octaves"),
        ("1,1,1,1", "4e1a", "64 --tolerance=2.1", "must be above 0 and at most 2 octaves"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(budget: Budget, load: str, spec: str, batch: str, says: str) -> None:
    batch, *more = batch.split(" ")
    code, out, err = budget(load, *more, spec=spec, batch=batch)
    assert (code, out) == (2, "")
    assert says in err
    assert err.startswith("mue_check budget: ")
    assert err.count("\n") == 1


def changed(part: str = "kappa", **fields: object) -> str:
    """A calibration with other fields in its kappa, or in another part."""
    stored: dict[str, Any] = calibration().to_json()
    return json.dumps({**stored, part: {**stored[part], **fields}})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "it is not JSON"),
        (changed().replace('"schema": 1', '"schema": 2'), "calibration.schema is 2: 1 is needed"),
        ("{}", "calibration lacks 'schema'"),
        (changed().replace('"mean"', '"median"', 1), "calibration.gamma.learned has an unknown field 'median'"),
        (changed(tau=-1.0), "kappa has tau -1: at least 0 is needed"),
        (changed(df=0), "kappa has df 0: at least 1 is needed"),
        (changed(kappa=3), "calibration.kappa.kappa is 3: an interval with mean, low, high and n is needed"),
        (changed().replace('"shift_se": 0.02', '"shift_se": -1'), "point '-1.5' has shift_se -1"),
        (changed().replace('"learned"', '"other"'), "calibration.gamma lacks 'learned'"),
        (changed().replace('"se": 0.01', '"se": -1'), "gamma has se -1 and df"),
        (changed("gamma", learned={"mean": 0.1, "se": 1e300, "df": 5}), "it has a number above 1e+12"),
        (changed(covariance=[[0.0, 0.0], [0.0, -0.5]]), "no errors have that"),
    ],
)
def test_an_invalid_calibration_is_refused_in_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "invalid.json"
    path.write_text(text)
    line = ["budget", "--load", "1,1", "--spec", "2e1a", "--batch", "64", "--calibration", str(path)]
    assert main(line) == 2
    err = capsys.readouterr().err
    assert says in err
    assert "invalid.json' is not a calibration: " in err
    assert err.count("\n") == 1


def test_calibrations_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        read_calibration(tmp_path / "none.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(CalibrationError, match="is not text"):
        read_calibration(tmp_path / "binary")
    monkeypatch.setattr("mue_check.sigma0.calibration.PACKAGED", "none.json")
    with pytest.raises(CalibrationError, match="pass one with --calibration FILE"):
        read_calibration()


def test_a_calibration_reads_back_what_was_written() -> None:
    made = calibration(origin=False)
    kappa = replace(made.kappa, ladders={**made.kappa.ladders, "short": t_interval([])})
    made = replace(made, kappa=kappa)
    again = DriftCalibration.from_json(json.dumps(made.to_json(), allow_nan=False))
    assert (again.gamma, again.range, again.kappa.points) == (made.gamma, made.range, made.kappa.points)
    assert again.kappa.predict(-0.3, 0.1, 0.1) == made.kappa.predict(-0.3, 0.1, 0.1)
    assert again.kappa.ladders["load"] == made.kappa.ladders["load"]
    assert math.isinf(again.kappa.ladders["short"].high)


def test_a_calibration_that_says_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wide.json").write_text(changed("gamma", learned={"mean": 0.1, "se": 1e9, "df": 5}))
    given = ["--load", "4,2,1,1", "--spec", "4e1a", "--batch", "4096", "--calibration", str(tmp_path / "wide.json")]
    assert main(["budget", *given]) == 2
    assert "octaves, which says nothing" in capsys.readouterr().err
