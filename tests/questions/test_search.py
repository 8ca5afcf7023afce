from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mue_check.judge.optimum import Curve, fit_optimum
from mue_check.judge.verdict import Verdict
from mue_check.measure import MEASUREMENTS
from mue_check.mutants.run import get_mutant
from mue_check.questions.controls import ask_null_control, ask_positive_control
from mue_check.questions.drift import ask_drift, judge_stored_drift
from mue_check.records import Store
from mue_check.rules import get_rule
from mue_check.study.comparison import load_comparisons
from mue_check.study.folder import Study
from mue_check.study.search import LossSearch, curve_of, grid_of
from tests.studies import LADDER, study_at

TARGET = LADDER.targets[0]


class Bowl:
    """A measurement that knows its answer: a parabola around an optimum that depends on the arm."""

    def __init__(self, optimum, *, noise: float = 0.0, diverges_above: float = 99.0) -> None:
        self.optimum, self.noise, self.diverges_above, self.runs = optimum, noise, diverges_above, 0

    def __call__(self, cell, corpus):
        columns: dict[str, list[float]] = {"seed": [], "value": [], "initial": [], "loss": []}
        for seed in cell.seeds:
            spread = np.random.default_rng([seed, cell.model.width]).normal() * self.noise
            for lr in cell.values:
                x = np.log2(lr)
                loss = 2 + 0.001 * seed + 0.03 * (x - self.optimum(cell) - spread) ** 2
                row = (seed, lr, 1e6, np.nan if x > self.diverges_above else float(loss))
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
                self.runs += 1
        return columns


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_at(tmp_path)


def use(monkeypatch: pytest.MonkeyPatch, bowl: Bowl) -> Bowl:
    monkeypatch.setitem(MEASUREMENTS, "loss_grid", replace(MEASUREMENTS["loss_grid"], measure=bowl))
    return bowl


def found(study: Study, replicates: int = 4) -> Curve:
    """The curve of the reference around its optimum."""
    grid = grid_of("lr", study.task(LADDER).grid_step)
    search = LossSearch(study.arm(LADDER, LADDER.reference), study.store, grid)
    return search.refine(search.follow(search.locate(-6.5)), replicates)


@pytest.mark.parametrize("optimum", [-6.4, -3.1, -9.2, -11.9, -1.2])
def test_it_finds_the_optimum_wherever_it_is(study: Study, monkeypatch, optimum: float) -> None:
    use(monkeypatch, Bowl(lambda cell: optimum))
    curve = found(study)
    fit = fit_optimum(curve)
    assert fit.resolved
    assert list(fit.by_seed.values()) == pytest.approx([optimum] * 4)
    assert len(curve.values) >= 5


def test_points_are_shared_between_passes(study: Study, monkeypatch) -> None:
    bowl = use(monkeypatch, Bowl(lambda cell: -6.1))
    found(study)
    # coarse, fine, one more to centre it, a far one that no coarse point is close to, three seeds more
    assert bowl.runs == 5 + 2 + 1 + 1 + 3 * 5
    found(study)
    assert bowl.runs == 24
    found(study, 6)
    assert bowl.runs == 24 + 2 * 5


@pytest.mark.parametrize("far", [-4.5, 4.5])
def test_a_deeper_minimum_far_away_is_found(study: Study, monkeypatch, far: float) -> None:
    """The target has a minimum where the reference has its own, and a deeper one elsewhere."""

    class TwoBowls(Bowl):
        def __call__(self, cell, corpus):
            columns = super().__call__(cell, corpus)
            if cell.model.width == 64:
                second = Bowl(lambda cell: self.optimum(cell) + far, noise=self.noise)(cell, corpus)["loss"]
                columns["loss"] = [min(a, b - 0.05) for a, b in zip(columns["loss"], second, strict=True)]
            return columns

    use(monkeypatch, TwoBowls(lambda cell: -6.2, noise=0.02))
    answer = ask_drift(study, LADDER, TARGET)
    assert answer.verdict is Verdict.FAIL
    assert answer.drift.interval.mean == pytest.approx(far, abs=0.1)


def test_divergence_beside_the_optimum(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0, diverges_above=-5.4))
    fit = fit_optimum(found(study))
    assert fit.resolved
    assert list(fit.by_seed.values()) == pytest.approx([-6.0] * 4)


def test_a_curve_without_minimum_ends_unresolved(study: Study, monkeypatch) -> None:
    bowl = use(monkeypatch, Bowl(lambda cell: -90.0))
    answer = ask_drift(study, LADDER, TARGET)
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "the loss is lowest at the lowest value tried" in answer.measured
    assert bowl.runs < 200


def test_a_right_rule_passes_and_a_drifting_one_fails(study: Study, monkeypatch) -> None:
    def standard_drifts(cell) -> float:
        scaled = any(f.lr != 1 for f in cell.prescription.factors.values()) or cell.model.width == 32
        return -6.2 if scaled else -7.3

    use(monkeypatch, Bowl(standard_drifts, noise=0.02))
    assert ask_drift(study, LADDER, TARGET).verdict is Verdict.PASS
    answer = ask_positive_control(study.with_rule(get_rule("standard")), LADDER, TARGET)
    assert answer.verdict is Verdict.FAIL
    assert answer.comparison.expected == "FAIL"
    assert answer.drift.interval.mean == pytest.approx(-1.1, abs=0.1)


def test_a_wide_tolerance_does_not_blind_the_controls(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.2 if cell.model.width == 32 else -7.2, noise=0.02))
    wide = replace(study, tolerance=3.0)
    assert ask_drift(wide, LADDER, TARGET).verdict is Verdict.PASS
    control = ask_positive_control(wide.with_rule(get_rule("standard")), LADDER, TARGET)
    assert control.verdict is Verdict.FAIL
    assert control.comparison.tolerance == study.tier.tolerance


def test_a_wide_grid_needs_no_search(study: Study, monkeypatch) -> None:
    """As in tier gpu: all values of four seeds at once, then those of four more."""
    tasks = {key: replace(task, grid_reach=4) for key, task in study.tier.tasks.items()}
    study = replace(study, tier=replace(study.tier, tasks=tasks, seed_step=4))
    bowl = use(monkeypatch, Bowl(lambda cell: -5.6, noise=0.01))
    assert ask_drift(study, LADDER, TARGET).verdict is Verdict.PASS
    assert bowl.runs == 2 * 4 * 9
    noisy, other = use(monkeypatch, Bowl(lambda cell: -6.0, noise=0.5)), replace(study, root=study.root / "noisy")
    other.store.prepare()
    assert ask_drift(other, LADDER, TARGET).comparison.looks == (4, 8, 12)
    assert noisy.runs % (2 * 4) == 0


def test_seeds_are_added_while_the_answer_is_open(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0 + 0.5 * (cell.model.width == 64), noise=0.3))
    answer = ask_drift(study, LADDER, TARGET)
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.drift.interval.n == study.tier.max_seeds
    tight = use(monkeypatch, Bowl(lambda cell: -6.0, noise=0.0))
    other = replace(study, root=study.root / "tight")
    other.store.prepare()
    assert ask_drift(other, LADDER, TARGET).drift.interval.n == study.tier.seeds
    # the target is looked for where the reference's optimum is, and one replicate looks around at four far values
    assert tight.runs == 24 + 20 + 4


def test_the_looks_are_fixed_in_advance_and_stored(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0, noise=0.05))
    answer = ask_drift(study, LADDER, TARGET)
    assert answer.comparison.looks == tuple(range(4, 13))
    assert answer.drift.interval.level == 0.0125
    assert "95 % over looks 4..12" in answer.measured
    tier = replace(study.tier, seeds=6, max_seeds=6)
    other = replace(study, root=study.root / "fixed", tier=tier)
    other.store.prepare()
    fixed = ask_drift(other, LADDER, TARGET)
    assert fixed.comparison.looks == (6,)
    assert fixed.drift.interval.level == 0.05


def test_other_looks_after_the_first_are_remembered(study: Study, monkeypatch) -> None:
    """Raising the cap after an INCONCLUSIVE spoils the 95 %; asking the same again does not."""
    use(monkeypatch, Bowl(lambda cell: -6.0 + 0.5 * (cell.model.width == 64), noise=0.3))
    short = replace(study, tier=replace(study.tier, max_seeds=6))
    assert ask_drift(short, LADDER, TARGET).comparison.earlier_looks == ()
    assert ask_drift(short, LADDER, TARGET).comparison.earlier_looks == ()
    raised = ask_drift(study, LADDER, TARGET)
    assert raised.comparison.looks == tuple(range(4, 13))
    assert raised.comparison.earlier_looks == ((4, 5, 6),)
    assert "less than 95 %" in raised.measured
    assert ask_drift(short, LADDER, TARGET).comparison.earlier_looks == (tuple(range(4, 13)),)


def test_the_null_control_uses_other_seeds(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0, noise=0.05))
    answer = ask_null_control(study, LADDER)
    assert answer.verdict is Verdict.PASS
    drifts = list(answer.drift.by_seed.values())
    assert len(drifts) == 4
    assert min(map(abs, drifts)) > 0


def test_records_alone_give_the_same_answer(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0 + 0.2 * (cell.model.width == 64), noise=0.05))
    answers = [ask_drift(study, LADDER, TARGET), ask_null_control(study, LADDER)]
    stored = {comparison.name: comparison for comparison in load_comparisons(study.root)}
    for answer in answers:
        comparison = stored[answer.comparison.name]
        assert comparison == answer.comparison
        assert judge_stored_drift(Store(study.root), comparison).drift == answer.drift


def test_an_approximate_law_has_its_residual(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0 + 0.8 * (cell.model.width == 64), noise=0.02))
    exact = ask_drift(study, LADDER, TARGET)
    assert exact.verdict is Verdict.FAIL
    loose = replace(LADDER, targets=(replace(TARGET, residual=1.0),))
    answer = ask_drift(study, loose, loose.targets[0])
    assert answer.verdict is Verdict.RESIDUAL
    assert answer.comparison.expected == "RESIDUAL"
    assert judge_stored_drift(Store(study.root), answer.comparison).drift == answer.drift


@pytest.mark.parametrize(("rule", "residual"), [("complete_mue", -1.0), ("complete_mue_literal", 1.0)])
def test_weight_decay_may_lie_between_the_published_forms(
    study: Study, monkeypatch, rule: str, residual: float
) -> None:
    use(monkeypatch, Bowl(lambda cell: -2.0 + 0.7 * residual * (cell.model.width == 64), noise=0.02))
    answer = ask_drift(study.with_rule(get_rule(rule)), LADDER, TARGET, knob="weight_decay")
    assert answer.comparison.knob == "weight_decay"
    assert answer.comparison.residual == residual
    assert answer.verdict is Verdict.RESIDUAL
    assert answer.drift.interval.mean == pytest.approx(0.7 * residual, abs=0.1)


def test_a_mutant_is_asked_under_its_own_name(study: Study, monkeypatch) -> None:
    use(monkeypatch, Bowl(lambda cell: -6.0, noise=0.02))
    right = ask_drift(study, LADDER, TARGET)
    mutant = ask_drift(study, LADDER, TARGET, mutate=get_mutant("hidden_lr_unscaled"))
    assert mutant.comparison.rule == "hidden_lr_unscaled"
    assert mutant.comparison.name != right.comparison.name
    assert mutant.comparison.sides[0].cells == right.comparison.sides[0].cells
    assert not set(mutant.comparison.sides[1].cells) & set(right.comparison.sides[1].cells)


def test_an_initial_loss_that_is_not_a_number_is_not_passed_over_for_another() -> None:
    table = pd.DataFrame({"seed": [0, 0, 1, 1], "value": [0.1, 0.2] * 2, "initial": 3.0, "loss": 2.0})
    assert not curve_of([table]).diverged.any()
    table.loc[2, "initial"] = np.nan
    curve = curve_of([table])
    assert curve.initial[0] == 3.0
    assert curve.diverged.tolist() == [[False, False], [True, True]]
