"""The laboratory's questions end to end: small trainings, and a world whose gamma and kappa are known."""

from dataclasses import replace
from pathlib import Path

import pytest

from mue_check.judge.verdict import Verdict
from mue_check.measure import MEASUREMENTS
from mue_check.measure import gradient_noise as noise_module
from mue_check.questions.comparison import load_comparisons
from mue_check.questions.stored import judge_stored_drift, judge_stored_gammas, judge_stored_shift
from mue_check.questions.study import Study
from mue_check.records import Cell, Store
from mue_check.rules import get_rule
from mue_check.sigma0.calibrate import _unseen, calibrate, kappa_points
from mue_check.sigma0.calibration import Calibration, Gamma
from mue_check.sigma0.ladders import HELDOUT_LOADS, SCALED_LOADS, load_use
from mue_check.sigma0.questions import ask_forecast, ask_gamma, ask_shift, ask_sigma0_drift
from mue_check.spec import TrainSpec
from mue_check.tiers import Tier
from tests.study import sigma0_world as world


def study_at(root: Path, tier: Tier) -> Study:
    study = Study(
        root=root, tier=tier, corpus="markov", rule=get_rule("complete_mue"), tolerance=tier.tolerance, command="x"
    )
    study.store.prepare()
    return study


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """Real trainings of six steps and 32 batches of noise."""
    tier = world.small_tier(noise_seeds=3, max_noise_seeds=3)
    task = tier.task("markov")
    train = TrainSpec(steps=6, batch=2, context=8)
    monkeypatch.setattr(noise_module, "TOKENS", 32 * train.tokens_per_step)
    sizes = replace(tier.sizes, width=16, depth=1, noise_mixtures=("8e2a,h=8", "8e2a,h=8,router=content_blind"))
    return study_at(
        tmp_path / "tiny", replace(tier, sizes=sizes, tasks={("text", "sharp"): replace(task, train=train)})
    )


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The world of ``sigma0_world``: nothing is trained."""
    monkeypatch.setitem(
        MEASUREMENTS, "gradient_noise", replace(MEASUREMENTS["gradient_noise"], measure=world.gradient_noise)
    )
    monkeypatch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=world.loss_grid))
    return study_at(tmp_path / "known", world.small_tier())


def nothing_may_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cell: Cell, corpus: object) -> None:
        pytest.fail(f"{cell} is measured again")

    for name in ("gradient_noise", "loss_grid"):
        monkeypatch.setitem(MEASUREMENTS, name, replace(MEASUREMENTS[name], measure=refuse))


@pytest.mark.parametrize("switched", [False, True])
@pytest.mark.parametrize("router", ["sigmoid_norm", "content_blind"])
def test_gamma_is_asked_once_and_judged_again(
    tiny: Study, monkeypatch: pytest.MonkeyPatch, router: str, switched: bool
) -> None:
    ladder = next(x for x in tiny.tier.ladders("sigma0", "noise") if x.steered_router == router)
    answer = ask_gamma(tiny, ladder, switched=switched)
    nothing_may_train(monkeypatch)
    assert repr(ask_gamma(tiny, ladder, switched=switched)) == repr(answer)
    (stored,) = load_comparisons(tiny.root)
    assert stored == answer.comparison
    assert repr(judge_stored_gammas(Store(tiny.root), stored)) == repr(answer.result)
    assert len(answer.result.matrices) == 3
    assert set(answer.result.noise_scale) == ({"uniform", "zipf:1"} if switched else {"uniform", "zipf-1"})
    control = switched and router == "content_blind"
    assert stored.is_control == control
    assert stored.expected == ("PASS" if control else "")
    assert (answer.verdict is None) != control
    assert [side.label for side in stored.sides] == (["uniform"] if switched else ["uniform", "zipf-1"])


def test_seeds_are_added_while_gamma_is_not_known(tiny: Study) -> None:
    ladder = next(x for x in tiny.tier.ladders("sigma0", "noise") if x.steered_router == "sigmoid_norm")
    more = replace(tiny, tier=replace(tiny.tier, max_noise_seeds=6))
    few, many = ask_gamma(tiny, ladder), ask_gamma(more, ladder)
    assert [len(side.cells) for side in few.comparison.sides] == [1, 1]
    assert [len(side.cells) for side in many.comparison.sides] == [2, 2]
    assert [set(Store(tiny.root).rows(key)["seed"]) for key in many.comparison.sides[0].cells] == [{0, 1, 2}, {3, 4, 5}]
    # whose weights stand still under other loads is no estimate to be made sharper
    assert [len(s.cells) for s in ask_gamma(more, ladder, switched=True).comparison.sides] == [1]


def test_gamma_of_both_kinds_are_two_questions(tiny: Study) -> None:
    ladder = tiny.tier.ladders("sigma0", "noise")[0]
    names = {ask_gamma(tiny, ladder, switched=switched).comparison.name for switched in (False, True)}
    assert len(names) == len(load_comparisons(tiny.root)) == 2


def test_a_shift_is_asked_once_and_judged_again(tiny: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    ladders = {ladder.name: ladder for ladder in tiny.tier.ladders("sigma0")}
    answers = [ask_shift(tiny, ladders[name], ladders[name].targets[0]) for name in ("load", "sigma0_activated")]
    nothing_may_train(monkeypatch)
    again = [ask_shift(tiny, ladders[name], ladders[name].targets[0]) for name in ("load", "sigma0_activated")]
    assert repr(again) == repr(answers)
    stored = {c.name: c for c in load_comparisons(tiny.root)}
    for answer in answers:
        assert stored[answer.comparison.name] == answer.comparison
        assert repr(judge_stored_shift(Store(tiny.root), answer.comparison)) == repr(answer.result)
    law, finding = answers
    assert (law.comparison.expected, finding.comparison.expected) == ("RESIDUAL", "")
    assert law.verdict is not None
    assert finding.verdict is None
    # noise is looked at half way and at the end
    assert set(Store(tiny.root).rows(law.comparison.sides[0].cells[0])["step"]) == {3, 6}


def test_the_known_gammas_come_back(known: Study) -> None:
    ladders = known.tier.ladders("sigma0", "noise")
    for ladder in ladders:
        truth = world.GAMMA.get(str(ladder.steered_router), world.LEARNED)
        for switched in (False, True):
            answer = ask_gamma(known, ladder, switched=switched)
            assert answer.result.pooled.gamma.mean == pytest.approx(truth, abs=0.01), ladder.name
            assert answer.verdict is (Verdict.PASS if switched and truth == 0.5 else None)


def test_the_control_is_hurt_by_an_estimator_that_is_wrong(known: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(world.GAMMA, "content_blind", 0.25)
    ladder = next(x for x in known.tier.ladders("sigma0", "noise") if x.steered_router == "content_blind")
    answer = ask_gamma(known, ladder, switched=True)
    assert answer.verdict is Verdict.FAIL
    assert answer.comparison.expected == "PASS"


def test_a_shift_of_learned_routing_is_bounded(known: Study) -> None:
    ladder = world.targets(known.tier.ladders("sigma0"), "load")
    for target in ladder.targets:
        answer = ask_shift(known, ladder, target)
        assert answer.verdict in (Verdict.PASS, Verdict.RESIDUAL)
        assert answer.result.residual.mean < 0 < answer.result.theory
        assert answer.result.shift.mean == pytest.approx(answer.result.theory * world.LEARNED / 0.5, abs=0.02)


def ask_all(study: Study) -> None:
    """What suites/test_sigma0.py asks, and shifts of the loads that are held out."""
    for ladder in study.tier.ladders("sigma0", "noise"):
        ask_gamma(study, ladder)
    for ladder in study.tier.ladders("sigma0"):
        for target in ladder.targets:
            ask_sigma0_drift(study, ladder, target)
            if load_use(ladder.name) != "probe":
                ask_shift(study, ladder, target)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that has asked everything of the known world; not to be asked more."""
    study = study_at(tmp_path_factory.mktemp("asked"), world.small_tier())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            MEASUREMENTS, "gradient_noise", replace(MEASUREMENTS["gradient_noise"], measure=world.gradient_noise)
        )
        patch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=world.loss_grid))
        ask_all(study)
    return study


@pytest.fixture(scope="module")
def calibration(asked: Study) -> Calibration:
    found = calibrate(asked.store, load_comparisons(asked.root), "a command")
    assert found is not None
    return found


def test_a_study_gives_a_calibration(calibration: Calibration) -> None:
    found = calibration
    assert found.kappa.kappa.mean == pytest.approx(world.KAPPA, abs=0.15)
    assert found.kappa.kappa.low <= world.KAPPA <= found.kappa.kappa.high
    assert found.kappa.origin
    assert found.gamma["learned"].mean == pytest.approx(world.LEARNED, abs=0.01)
    assert found.gamma["content_blind"].mean == pytest.approx(0.5, abs=0.01)
    # of the loads, along which nothing else changes
    assert found.ranges["experts"] == (16.0, 16.0)
    assert found.ranges["activated"] == (2.0, 2.0)
    assert found.ranges["batch"] == (256.0, 256.0)
    assert found.ranges["shortfall_bits"][0] == pytest.approx(0)
    assert found.ranges["shortfall_bits"][1] > 0.5
    assert {p.ladder for p in found.kappa.points} == {"load", "load_content_blind"}
    assert found.made_by == "a command"
    assert found.setting == "small models, width 32, trained 200 steps; gamma on markov"
    assert Calibration.from_json(found.to_json()) == found


def test_each_arm_that_a_fit_may_see_is_a_point(asked: Study) -> None:
    points = kappa_points(asked.store, load_comparisons(asked.root))
    assert {(p.ladder, p.label) for p in points} == {
        *(("load", f"zipf-{exponent}") for exponent in ("0_5", "1", "1_5")),
        ("load_content_blind", "zipf-1"),
        *(("sigma0_batch", f"x{k}") for k in (2, 4)),
        ("sigma0_activated", "16e4a"),
        ("sigma0_capacity", "32e2a"),
    }
    assert len(points) == 8
    for point in points:
        assert point.drift == pytest.approx(world.KAPPA * point.shift, abs=0.1), point


def test_what_is_held_out_and_what_is_probed_stay_out(asked: Study, calibration: Calibration) -> None:
    """Both are three octaves astray here, and would show."""
    every = load_comparisons(asked.root)
    for name, label in ((HELDOUT_LOADS, "zipf-0_75"), (SCALED_LOADS, "zipf-1-scaled-1")):
        (drift,) = [c for c in every if c.kind == "drift" and (c.ladder, c.sides[-1].label) == (name, label)]
        assert judge_stored_drift(asked.store, drift)[2].interval.mean > 2
    assert [c for c in every if c.kind == "sigma0" and c.ladder == HELDOUT_LOADS]
    seen = [c for c in every if c.ladder not in (HELDOUT_LOADS, SCALED_LOADS)]
    assert calibration == calibrate(asked.store, seen, "a command")


@pytest.mark.parametrize("lacking", ["content_blind", "sigmoid_norm", "drift"])
def test_a_study_that_lacks_something_gives_none(asked: Study, lacking: str) -> None:
    every = load_comparisons(asked.root)
    kept = [c for c in every if c.kind != lacking and not (c.kind == "gamma" and c.ladder.endswith(lacking))]
    assert len(kept) < len(every)
    assert calibrate(asked.store, kept, "x") is None


def test_another_routings_study_says_nothing_of_the_rules_own(asked: Study) -> None:
    every = load_comparisons(asked.root)
    assert calibrate(asked.store, [replace(c, router="moge") for c in every], "x") is None
    assert calibrate(asked.store, [], "x") is None


def test_a_forecast_is_held_against_loads_that_no_fit_saw(
    asked: Study, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_may_train(monkeypatch)
    ladder = world.targets(asked.tier.ladders("sigma0"), HELDOUT_LOADS)
    astray, right = (ask_forecast(asked, ladder, target, calibration) for target in ladder.targets)
    assert (astray.verdict, right.verdict) == (Verdict.FAIL, Verdict.PASS)
    for answer in (astray, right):
        assert answer.comparison.kind == "forecast"
        assert answer.comparison.expected == "PASS"
        assert answer.result.forecast.mean == pytest.approx(0, abs=0.3)
        assert answer.measured.startswith("foretold ")
    unresolved = replace(right.result, drift=replace(right.result.drift, reason="x"))
    assert unresolved.verdict is Verdict.INCONCLUSIVE


def test_a_drift_for_a_fit_has_its_own_number_of_seeds(known: Study) -> None:
    ladder = world.targets(known.tier.ladders("sigma0"), "load")
    answer = ask_sigma0_drift(known, ladder, ladder.targets[0])
    assert answer.result.interval.n == known.tier.sigma0_seeds == 4
    assert answer.comparison.expected == ""
    more = replace(known, tier=replace(known.tier, sigma0_seeds=6))
    assert ask_sigma0_drift(more, ladder, ladder.targets[0]).result.interval.n == 6


def test_the_gamma_of_a_mixture_yet_unseen_holds_the_scatter_of_those_seen() -> None:
    one = Gamma(mean=0.1, se=0.01, df=7)
    assert _unseen([one]) == one
    several = _unseen([one, Gamma(mean=0.2, se=0.01, df=7), Gamma(mean=0.3, se=0.01, df=7)])
    assert several.mean == pytest.approx(0.2)
    assert several.se == pytest.approx(0.1 * (4 / 3) ** 0.5)
    assert several.df == 2
