"""The laboratory's questions: small trainings, and a world whose gamma and kappa are known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.catalog import QUESTIONS, summarize
from mue_check.judge.verdict import Verdict
from mue_check.measure import MEASUREMENTS
from mue_check.measure import gradient_noise as noise_module
from mue_check.questions.drift import DriftFinding
from mue_check.questions.question import Finding, Findings, JudgedKind
from mue_check.questions.summary import Summary
from mue_check.records import Cell, Store
from mue_check.sigma0.calibrate import _expected_gamma, calibrate, kappa_points
from mue_check.sigma0.calibration import DriftCalibration, Gamma, read_calibration
from mue_check.sigma0.forecast import ForecastFinding, ask_forecast, forecast_verdict
from mue_check.sigma0.gamma import GammaFinding, ask_gamma
from mue_check.sigma0.ladders import HELDOUT_LOADS, LABORATORIES, PROBED_LOADS
from mue_check.sigma0.shift import ShiftFinding, ask_shift, ask_sigma0_drift
from mue_check.spec import TrainSpec
from mue_check.study.comparison import load_comparisons
from mue_check.study.folder import Study
from tests.sigma0 import world


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Real trainings of six steps and 32 batches of noise."""
    lab = replace(world.SMALL, noise_seeds=3, max_noise_seeds=3)
    lab = replace(lab, noise_mixtures=("8e2a,h=8", "8e2a,h=8,router=content_blind"))
    tier = world.tier_of(monkeypatch, lab)
    train = TrainSpec(steps=6, batch=2, context=8)
    monkeypatch.setattr(noise_module, "TOKENS", 32 * train.tokens_per_step)
    task = replace(tier.task("markov"), train=train)
    sizes = replace(tier.sizes, width=16, depth=1)
    return world.study_at(tmp_path / "tiny", replace(tier, sizes=sizes, tasks={("text", "sharp"): task}))


def nothing_may_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cell: Cell, corpus: object) -> None:
        pytest.fail(f"{cell} is measured again")

    for name in ("gradient_noise", "loss_grid"):
        monkeypatch.setitem(MEASUREMENTS, name, replace(MEASUREMENTS[name], measure=refuse))


def is_judged_again(study: Study, finding: Finding, ask: Callable[[], Finding]) -> bool:
    """Whether asking again, and judging the stored comparison, both give the same finding."""
    (stored,) = (c for c in load_comparisons(study.root) if c.name == finding.comparison.name)
    kinds = {kind.kind: kind for kind in QUESTIONS if isinstance(kind, JudgedKind)}
    again = kinds[stored.kind].judge(Store(study.root), stored)
    return stored == finding.comparison and repr(ask()) == repr(again) == repr(finding)


def test_questions_that_raise_are_unanswered(known: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(cell: Cell, corpus: object) -> None:
        raise RuntimeError("the device is gone")

    for name in ("gradient_noise", "loss_grid"):
        monkeypatch.setitem(MEASUREMENTS, name, replace(MEASUREMENTS[name], measure=measure))
    noise, loads = known.tier.ladders("sigma0", "noise")[0], world.ladder_of(known, HELDOUT_LOADS)
    for ask in (
        lambda: ask_gamma(known, noise),
        lambda: ask_shift(known, loads, loads.targets[0]),
        lambda: ask_forecast(known, loads, loads.targets[0], read_calibration()),
    ):
        with pytest.raises(RuntimeError):
            ask()
    summary = summarize(known.root)
    assert sorted(each.comparison.kind for each in summary.unanswered) == ["drift", "forecast", "gamma", "sigma0"]
    assert summary.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("router", ["sigmoid_norm", "content_blind"])
def test_gamma_is_measured_once_and_judged_again(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, router: str, switched: bool
) -> None:
    ladder = world.ladder_of(tiny, router)
    found = ask_gamma(tiny, ladder, switched=switched)
    nothing_may_train(monkeypatch)
    assert is_judged_again(tiny, found, lambda: ask_gamma(tiny, ladder, switched=switched))
    assert len(found.matrices) == 3
    assert {noise.kind for noise in found.noise} >= {"expert_up", "router", "attention_qkv"}
    assert set(found.noise_scale) == ({"uniform", "zipf:1"} if switched else {"uniform", "zipf-1"})
    control = switched and router == "content_blind"
    assert found.comparison.is_control == control
    assert found.comparison.expected == ("PASS" if control else "")
    assert (found.verdict is None) != control
    assert [side.label for side in found.comparison.sides] == (["uniform"] if switched else ["uniform", "zipf-1"])


def test_seeds_are_added_while_gamma_is_not_known(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = world.ladder_of(tiny, "sigmoid_norm")
    few = ask_gamma(tiny, ladder)
    monkeypatch.setitem(LABORATORIES, "small", replace(LABORATORIES["small"], max_noise_seeds=6))
    many = ask_gamma(tiny, ladder)
    assert [len(side.cells) for side in few.comparison.sides] == [1, 1]
    assert [len(side.cells) for side in many.comparison.sides] == [2, 2]
    assert [set(Store(tiny.root).rows(key)["seed"]) for key in many.comparison.sides[0].cells] == [{0, 1, 2}, {3, 4, 5}]
    # frozen weights under other loads keep the tier's number, and are a question of their own
    switched = ask_gamma(tiny, ladder, switched=True)
    assert [len(side.cells) for side in switched.comparison.sides] == [1]
    assert switched.comparison.name != many.comparison.name


def test_a_shift_is_measured_once_and_judged_again(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    ladders = [world.ladder_of(tiny, name) for name in ("load", "sigma0_activated")]
    law, finding = found = [ask_shift(tiny, ladder, ladder.targets[0]) for ladder in ladders]
    nothing_may_train(monkeypatch)
    for ladder, shift in zip(ladders, found, strict=True):
        assert is_judged_again(tiny, shift, lambda ladder=ladder: ask_shift(tiny, ladder, ladder.targets[0]))
    assert (law.comparison.expected, finding.comparison.expected) == ("RESIDUAL", "")
    assert law.verdict is not None
    assert finding.verdict is None
    # noise is measured halfway and at the end
    assert set(Store(tiny.root).rows(law.comparison.sides[0].cells[0])["step"]) == {3, 6}


def test_the_known_gammas_are_recovered(summary: Summary) -> None:
    found = summary.of(GammaFinding)
    assert len(found) == 6
    for g in found:
        truth = world.GAMMA.get(g.experts.router, world.LEARNED)
        assert g.pooled.gamma.mean == pytest.approx(truth, abs=0.01), g.comparison.name
        assert g.verdict is (Verdict.PASS if g.is_switched and truth == 0.5 else None)


def test_a_wrong_estimator_fails_the_control(known: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.GAMMA, "content_blind", 0.25)
    found = ask_gamma(known, world.ladder_of(known, "content_blind"), switched=True)
    assert found.verdict is Verdict.FAIL
    assert found.comparison.expected == "PASS"


def test_shifts_of_learned_routing_are_bounded(summary: Summary) -> None:
    found = [s for s in summary.of(ShiftFinding) if s.comparison.ladder == "load"]
    assert len(found) == 3
    for s in found:
        assert s.verdict in (Verdict.PASS, Verdict.RESIDUAL)
        assert s.shift.residual.mean < 0 < s.shift.theory
        assert s.shift.shift.mean == pytest.approx(s.shift.theory * world.LEARNED / 0.5, abs=0.02)


@pytest.fixture(scope="module")
def calibration(summary: Summary) -> DriftCalibration:
    found = calibrate(summary.findings)
    assert found is not None
    return found


def test_a_study_gives_a_calibration(calibration: DriftCalibration) -> None:
    found = calibration
    assert found.kappa.kappa.mean == pytest.approx(world.KAPPA, abs=0.15)
    assert found.kappa.kappa.low <= world.KAPPA <= found.kappa.kappa.high
    assert found.kappa.origin
    assert found.gamma["learned"].mean == pytest.approx(world.LEARNED, abs=0.01)
    assert found.gamma["content_blind"].mean == pytest.approx(0.5, abs=0.01)
    # only the loads, along which nothing else changes
    assert found.range["experts"] == (16, 16)
    assert found.range["activated"] == (2, 2)
    assert found.range["batch"] == (256, 256)
    assert found.range["shortfall_bits"][0] == pytest.approx(0)
    assert found.range["shortfall_bits"][1] > 0.5
    assert {p.ladder for p in found.kappa.points} == {"load", "load_content_blind"}
    assert found.made_by == "pytest x"
    assert found.setting == "small models, width 32, trained 200 steps; gamma on markov"


def test_every_target_that_a_fit_may_use_is_a_point(summary: Summary) -> None:
    points = kappa_points(summary.findings)
    assert sorted((p.ladder, p.label) for p in points) == sorted(
        [
            *(("load", f"zipf-{exponent}") for exponent in ("0_5", "1", "1_5")),
            ("load_content_blind", "zipf-1"),
            *(("sigma0_batch", f"x{k}") for k in (2, 4)),
            ("sigma0_activated", "16e4a"),
            ("sigma0_capacity", "32e2a"),
        ]
    )
    for point in points:
        assert point.drift == pytest.approx(world.KAPPA * point.shift, abs=0.1), point


def test_held_out_and_probed_loads_are_not_fitted(summary: Summary, calibration: DriftCalibration) -> None:
    """Both are three octaves astray here, and would show."""
    for name, label in ((HELDOUT_LOADS, "zipf-0_75"), (PROBED_LOADS, "zipf-1-scaled-1")):
        (found,) = [d for d in summary.of(DriftFinding) if (d.comparison.ladder, d.side.label) == (name, label)]
        assert found.drift.interval.mean > 2
    assert [s for s in summary.of(ShiftFinding) if s.comparison.ladder == HELDOUT_LOADS]
    fitted = [f for f in summary.findings.found if f.comparison.ladder not in (HELDOUT_LOADS, PROBED_LOADS)]
    assert calibration == calibrate(Findings(tuple(fitted)))


@pytest.mark.parametrize("missing", ["content_blind", "sigmoid_norm", "drift"])
def test_an_incomplete_study_gives_no_calibration(summary: Summary, missing: str) -> None:
    every = summary.findings.found
    kept = [
        f
        for f in every
        if f.comparison.kind != missing and not (f.comparison.kind == "gamma" and f.comparison.ladder.endswith(missing))
    ]
    assert len(kept) < len(every)
    assert calibrate(Findings(tuple(kept))) is None


def test_a_study_of_another_routing_gives_no_calibration(summary: Summary) -> None:
    found = (replace(f, comparison=replace(f.comparison, router="moge")) for f in summary.findings.found)
    assert calibrate(Findings(tuple(found))) is None
    assert calibrate(Findings()) is None


def test_forecasts_for_held_out_loads(summary: Summary) -> None:
    astray, right = summary.of(ForecastFinding)
    assert (astray.verdict, right.verdict) == (Verdict.FAIL, Verdict.PASS)
    for found in (astray, right):
        assert found.comparison.expected == "PASS"
        assert found.predicted is not None
        assert found.predicted.mean == pytest.approx(0, abs=0.3)
        assert found.measured.startswith("predicted ")
    assert forecast_verdict(replace(right.drift, reason="x"), right.predicted) is Verdict.INCONCLUSIVE
    assert forecast_verdict(right.drift, None) is Verdict.INCONCLUSIVE


def test_a_drift_for_a_fit_has_its_own_number_of_seeds(known: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = world.ladder_of(known, "load")
    found = ask_sigma0_drift(known, ladder, ladder.targets[0])
    assert found.drift.interval.n == world.SMALL.drift_seeds == 4
    assert found.comparison.expected == ""
    monkeypatch.setitem(LABORATORIES, "small", replace(world.SMALL, drift_seeds=6))
    limited = replace(known, tier=replace(known.tier, seed_limit=5))
    for study, seeds in ((limited, 5), (known, 6)):
        assert ask_sigma0_drift(study, ladder, ladder.targets[0]).drift.interval.n == seeds


def test_the_gamma_of_another_mixture_contains_the_scatter_of_those_measured() -> None:
    one = Gamma(mean=0.1, se=0.01, df=7)
    assert _expected_gamma([one]) == one
    several = _expected_gamma([one, Gamma(mean=0.2, se=0.01, df=7), Gamma(mean=0.3, se=0.01, df=7)])
    assert several.mean == pytest.approx(0.2)
    assert several.se == pytest.approx(0.1 * (4 / 3) ** 0.5)
    assert several.df == 2
