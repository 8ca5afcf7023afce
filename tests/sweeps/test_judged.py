"""The verdicts of ``mue_check judge``: seeds, matched cells, single curves, laws and what is written."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mue_check.cli import main
from mue_check.judge.drift import judge_drift
from mue_check.judge.optimum import Curve
from mue_check.sweeps.columns import Choice
from mue_check.sweeps.judged import judge_sweep
from mue_check.sweeps.sweep import make_sweep
from tests.sweeps.made_up import RATES, WIDTHS, Capture, judge, loss_of, runs, tidy_csv

SEEDS = range(6)


def in_cells(drift: float, *, spread: float = 0.0, tokens: int = 6) -> pd.DataFrame:
    """One seed in each of several cells, whose drifts per doubling differ by ``spread``."""
    made = [
        runs(drift + spread * (at - (tokens - 1) / 2), widths=WIDTHS[:2]).assign(tokens=10**9 * 2**at)
        for at in range(tokens)
    ]
    return pd.concat(made, ignore_index=True).drop(columns="seed")


def curve(table: pd.DataFrame, width: int) -> Curve:
    losses = table[table.width == width].pivot_table(index="seed", columns="lr", values="loss").to_numpy()
    return Curve(
        values=np.array(RATES), seeds=tuple(range(len(losses))), losses=losses, initial=np.full(len(losses), 100.0)
    )


def test_a_table_with_seeds_is_judged_as_the_suites_judge(tmp_path: Path, capsys: Capture) -> None:
    table = runs(0.05, seeds=SEEDS, noise=1e-3)
    code, found = judge(capsys, tidy_csv(table, tmp_path))
    for arm in found["arms"][1:]:
        ours = judge_drift(curve(table, 64), curve(table, arm["size"]), 0.5, whole=True)
        assert [arm["drift"][name] for name in ("mean", "low", "high")] == pytest.approx(
            [ours.interval.mean, ours.interval.low, ours.interval.high], abs=1e-6
        )
        assert arm["verdict"] == ours.verdict == "PASS"
        assert arm["regret"] == pytest.approx(ours.regret)
    assert code == 0
    assert found["exponent"]["mean"] == pytest.approx(0.05, abs=0.05)
    assert found["exponent"]["n"] == len(SEEDS)


@pytest.mark.parametrize("shift", [0, 10], ids=["paired", "unpaired"])
def test_a_wall_that_is_steeper_in_one_arm_is_no_drift(shift: int, tmp_path: Path, capsys: Capture) -> None:
    """The optimum stays, and the curve as a whole moves by an octave: neither is said to be the answer."""
    table = runs(0.0, seeds=SEEDS, noise=1e-3, widths=WIDTHS[:2])
    off = np.log2(table.lr) + 9
    steeper = np.where(off > 0, 0.01 * off**2 + 0.01 * off**3, -0.008 * off**2)
    table["loss"] += np.where(table.width == 128, steeper, 0.0)
    table["seed"] += shift * (table.width == 128)
    arm = judge(capsys, tidy_csv(table, tmp_path))[1]["arms"][1]
    assert arm["verdict"] == "INCONCLUSIVE"
    assert arm["drift"]["low"] < -1
    assert arm["drift"]["high"] > -0.5
    assert "curves have different shapes" in arm["note"]


def test_seeds_pair_by_their_names(tmp_path: Path, capsys: Capture) -> None:
    """Seeds of different names have nothing in common, which makes the interval wider than that of pairs."""
    table = runs(0.05, seeds=SEEDS, widths=(64, 128))
    offset = table.seed.map(lambda seed: (seed - 2.5) * 0.1)  # of the optimum, the same in both widths
    table["loss"] = [
        loss_of(lr * 2**-off, width, 0.05) for lr, width, off in zip(table.lr, table.width, offset, strict=True)
    ]
    pairs = judge(capsys, tidy_csv(table, tmp_path))[1]
    apart = judge(capsys, tidy_csv(table.assign(seed=table.seed + 10 * table.width), tmp_path))[1]
    width = [found["arms"][1]["drift"]["high"] - found["arms"][1]["drift"]["low"] for found in (pairs, apart)]
    assert width[1] > 1.1 * width[0]
    assert not any("no seed is in every arm" in trap for trap in pairs["traps"])
    assert any("no seed is in every arm" in trap for trap in apart["traps"])


@pytest.mark.parametrize(("drift", "code"), [(0.0, 0), (0.5, 3), (1.0, 1)])
def test_matched_cells_are_replicates(drift: float, code: int, tmp_path: Path, capsys: Capture) -> None:
    # a drift at the edge of the tolerance stays open
    got, found = judge(capsys, tidy_csv(in_cells(drift, spread=0.02), tmp_path))
    (arm,) = found["arms"][1:]
    assert got == code
    assert arm["drift"]["n"] == 6
    # the cells' drifts have the standard deviation 0.0374, and t is 2.57
    if drift != 0.5:  # between the rates of the grid the fit has a small error of its own
        half = 2.571 * 0.0374 / np.sqrt(6)
        assert arm["drift"]["high"] - arm["drift"]["mean"] == pytest.approx(half, rel=0.1)
    assert found["exponent"]["low"] < drift < found["exponent"]["high"]


def test_a_wall_that_is_steeper_in_one_arm_of_cells_is_not_hidden(tmp_path: Path, capsys: Capture) -> None:
    """The parabolas' drift is 0, and that of the optimum half an octave."""
    table = in_cells(0.5, spread=0.02)
    off = np.log2(table.lr) + 8.5
    table["loss"] += np.where(table.width == 128, np.where(off > 0, 0.01 * off**2 + 0.01 * off**3, -0.008 * off**2), 0)
    arm = judge(capsys, tidy_csv(table, tmp_path))[1]["arms"][1]
    assert abs(arm["drift"]["mean"]) < 0.35
    assert arm["verdict"] == "INCONCLUSIVE"
    assert arm["drift"]["high"] > 0.5
    assert "curves have different shapes" in arm["note"]


def test_the_choice_of_window_and_smoothing_widens_the_interval(tmp_path: Path, capsys: Capture) -> None:
    table = in_cells(0.0)
    # the raw loss says that the optimum moves by 0.4 octave
    table["smooth loss"] = table.loss
    table["loss"] = in_cells(0.4).loss
    raw = judge(capsys, tidy_csv(table.drop(columns="smooth loss"), tmp_path))[1]["arms"][1]["drift"]
    both = judge(capsys, tidy_csv(table, tmp_path))[1]["arms"][1]["drift"]
    assert raw["high"] - raw["low"] < 0.1
    assert both["mean"] == pytest.approx(0, abs=0.02)
    # two of four variants lie at 0 and two at 0.4
    assert both["high"] == pytest.approx(1.96 * 0.2, abs=0.03)


@pytest.mark.parametrize(("drift", "verdict"), [(0.0, "INCONCLUSIVE"), (1.5, "FAIL")])
def test_single_curves_may_fail_but_not_pass(drift: float, verdict: str, tmp_path: Path, capsys: Capture) -> None:
    found = judge(capsys, tidy_csv(runs(drift, noise=1e-3), tmp_path))[1]
    assert [arm["verdict"] for arm in found["arms"]] == [None, verdict, verdict]
    assert found["arms"][1]["drift"]["low"] < drift < found["arms"][1]["drift"]["high"]
    assert any("one seed a point" in trap for trap in found["traps"])


def test_intervals_of_single_curves_cover() -> None:
    covered, rng = 0, np.random.default_rng(0)
    for _ in range(40):
        table = runs(0.3)
        table["loss"] += 2e-3 * rng.normal(size=len(table))
        found = judge_sweep(make_sweep(table, Choice()), 0.5).exponent
        covered += found.n == 0 or found.low <= 0.3 <= found.high
    assert covered >= 36


@pytest.mark.parametrize("cells", [2, 3])
def test_seeds_of_a_few_cells_do_not_stand_for_more_cells(cells: int) -> None:
    """The drift differs between cells far more than between the seeds of one."""
    covered, rng = 0, np.random.default_rng(1)
    for _ in range(10):
        made = [
            runs(0.3 * rng.normal(), widths=WIDTHS[:2], seeds=range(4)).assign(tokens=10**9 * 2**at)
            for at in range(cells)
        ]
        table = pd.concat(made, ignore_index=True)
        table["loss"] += 2e-3 * rng.normal(size=len(table))
        found = judge_sweep(make_sweep(table, Choice()), 0.5)
        covered += all(x.low <= 0 <= x.high for x in (found.arms[1].drift, found.exponent))
    assert covered >= 8


def test_cells_that_agree_may_pass_by_their_seeds(tmp_path: Path, capsys: Capture) -> None:
    table = pd.concat(
        [runs(0.0, widths=WIDTHS[:2], seeds=range(4), noise=1e-3).assign(tokens=tokens) for tokens in (1e9, 2e9)]
    )
    code, found = judge(capsys, tidy_csv(table, tmp_path))
    assert (code, found["arms"][1]["verdict"]) == (0, "PASS")
    assert any("2 matched cells of several seeds: seeds of one cell do not tell" in trap for trap in found["traps"])
    code, found = judge(capsys, tidy_csv(table[table.seed < 3], tmp_path))
    assert (code, found["arms"][1]["verdict"]) == (3, "INCONCLUSIVE")
    assert "3 of the 4 seeds or cells that a PASS needs" in found["arms"][1]["note"]


def test_a_law_is_taken_off(tmp_path: Path, capsys: Capture) -> None:
    path = tidy_csv(in_cells(1.0, spread=0.02), tmp_path)
    code, found = judge(capsys, path, "--law", "1")
    assert code == 0
    assert found["arms"][1]["drift"]["mean"] == pytest.approx(0, abs=0.05)
    assert found["exponent"]["mean"] == pytest.approx(1, abs=0.05)
    assert found["arms"][1]["log2_optimum"]["mean"] == pytest.approx(-8, abs=0.1)


def test_a_law_is_taken_off_seeds_too(tmp_path: Path, capsys: Capture) -> None:
    path = tidy_csv(runs(1.0, seeds=SEEDS, noise=1e-3), tmp_path)
    code, found = judge(capsys, path, "--law", "1")
    assert code == 0
    assert found["exponent"]["mean"] == pytest.approx(1, abs=0.05)
    assert found["arms"][1]["log2_optimum"]["mean"] == pytest.approx(-8, abs=0.1)


def test_the_reference_can_be_chosen(tmp_path: Path, capsys: Capture) -> None:
    found = judge(capsys, tidy_csv(runs(1.0), tmp_path), "--reference", "256")[1]
    assert [arm["drift"]["mean"] for arm in found["arms"][:2]] == pytest.approx([-2, -1], abs=0.02)


def test_an_arm_that_always_diverges_fails(tmp_path: Path, capsys: Capture) -> None:
    table = in_cells(0.0)
    table.loc[table.width == 128, "loss"] = np.inf
    code, found = judge(capsys, tidy_csv(table, tmp_path))
    assert (code, found["arms"][1]["verdict"]) == (1, "FAIL")


def holes(table: pd.DataFrame) -> pd.DataFrame:
    """Every rate lacks a seed, and no seed lacks more than two rates."""
    seed_of_rate = {rate: at % len(SEEDS) for at, rate in enumerate(RATES)}
    return table[table.seed != table.lr.map(seed_of_rate)]


def crashes(table: pd.DataFrame) -> pd.DataFrame:
    """As holes, and one seed crashed everywhere."""
    lost = table.index.difference(holes(table).index)
    return table.assign(loss=table.loss.where(~table.index.isin(lost) & (table.seed != 5), np.inf))


@pytest.mark.parametrize(
    "change", [holes, crashes, lambda table: table.assign(seed=range(len(table)))], ids=["holes", "crashes", "seeds"]
)
def test_what_is_missing_is_no_divergence(
    change: Callable[[pd.DataFrame], pd.DataFrame], tmp_path: Path, capsys: Capture
) -> None:
    """No rate has every seed, or every run has a seed of its own; the optimum stays, and the verdict is PASS."""
    table = runs(0.0, seeds=SEEDS, noise=1e-3, widths=WIDTHS[:2]).sort_values(["width", "lr", "seed"])
    code, found = judge(capsys, tidy_csv(change(table), tmp_path))
    assert (code, found["arms"][1]["verdict"]) == (0, "PASS"), found


@pytest.mark.parametrize(
    ("labels", "sizes"),
    [
        (("dense", "moe", "8e2a"), [None, None, None]),
        (("8e2a", "16e2a", "64e2a"), [8, 16, 64]),
        (("8e1a", "16e2a", "64e2a"), [None, None, None]),
        (("350M", "1.3B", "7B"), [350e6, 1.3e9, 7e9]),
        (("d64", "d128", "d256"), [64, 128, 256]),
        (("1 expert", "8 experts", "16 experts"), [None, None, None]),
    ],
)
def test_arms_have_the_sizes_of_their_labels(
    labels: tuple[str, ...], sizes: list[float | None], tmp_path: Path, capsys: Capture
) -> None:
    table = runs(0.0)
    table["model"] = table.pop("width").map(dict(zip(WIDTHS, labels, strict=True)))
    assert [arm["size"] for arm in judge(capsys, tidy_csv(table, tmp_path))[1]["arms"]] == sizes


def test_one_arm_has_an_optimum_and_no_verdict(tmp_path: Path, capsys: Capture) -> None:
    code = main(["judge", str(tidy_csv(runs(0.0, widths=[64]), tmp_path))])
    assert code == 3
    assert "there is one arm, and nothing to compare it with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "ladder", "exponents"),
    [
        ({"width": "batch_size"}, "batch_at_fixed_tokens", {0.5, 0.0}),
        ({"width": "batch_size", "tokens": "steps"}, "batch_at_fixed_steps", {0.0}),
        ({"width": "tokens", "tokens": "batch_size"}, "duration_at_fixed_batch", {-0.5, 0.0}),
        ({}, "width", {-1.0, 0.0}),
        ({"width": "depth"}, "depth", {0.0}),
    ],
)
def test_the_exponents_of_the_rules_stand_beside_it(
    columns: dict[str, str], ladder: str, exponents: set[float], tmp_path: Path, capsys: Capture
) -> None:
    arm = columns.get("width", "width")
    found = judge(capsys, tidy_csv(in_cells(0.3).rename(columns=columns), tmp_path), "--arm", arm)[1]
    ours, *others = found["exponents"]
    assert (ours["axis"], ours["n"]) == (ladder, 6)
    assert {row["mean"] for row in others if row["source"] == "rules"} == exponents


def test_rules_say_nothing_of_another_value_than_the_rate(tmp_path: Path, capsys: Capture) -> None:
    table = in_cells(0.3).rename(columns={"lr": "weight_decay"})
    found = judge(capsys, tidy_csv(table, tmp_path), "--x", "weight_decay", "--arm", "width")[1]
    assert [row["what"] for row in found["exponents"]] == ["optimum of 'weight_decay'"]


def test_files_are_written(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    code = main(["judge", str(tidy_csv(in_cells(1.0), tmp_path)), "--out", str(out)])
    printed = capsys.readouterr().out
    assert code == 1
    assert "columns  x 'lr', loss 'loss', arm 'width', pair 'tokens', seed none" in printed
    assert f"report: {out / 'report.html'}" in printed
    page, text = ((out / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    for part in ("Exponent of the optimal learning rate", "How the table was read", "every rule but standard"):
        assert part in page
        assert part in text or part == "complete_mue"
    assert json.loads((out / "judge.json").read_text(encoding="utf-8"))["verdict"] == "FAIL"
    assert {path.name for path in (out / "figures").iterdir()} >= {"sweep.svg", "exponents.svg"}
    assert not (tmp_path / "latest").exists()
