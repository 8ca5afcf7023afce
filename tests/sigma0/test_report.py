"""The section on sigma_0, of a study whose gammas, shifts and drifts are known."""

import json
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mue_check.report.drift_tables import drift_table
from mue_check.sigma0.report import findings
from mue_check.sigma0.report.gamma_tables import gamma_table, part_table
from mue_check.sigma0.report.residual_tables import residual_fit_table, residual_groups
from mue_check.sigma0.report.shift_tables import (
    forecast_table,
    forecast_text,
    kappa_table,
    probe_table,
    shift_drift_table,
)

from mue_check.cli import main
from mue_check.errors import CalibrationError
from mue_check.judge.verdict import Verdict
from mue_check.questions.comparison import Side
from mue_check.report import Summary, summarize, verdict_lines, write_report
from mue_check.report.table import Table
from mue_check.sigma0.imbalance import Imbalance
from mue_check.sigma0.ladders import load_label, probed_load
from mue_check.spec import parse_load

Make = Callable[..., Any]
EXPERTS, TOKENS, SEEDS = 16, 512, 4
GAMMA = {"sigmoid_norm": 0.2, "content_blind": 0.5}
KAPPA = -0.5
LOADS = ("zipf:0.5", "zipf:1", "zipf:1.5", "hot:2:0.6", "hot:1:0.4")
BLIND = ("zipf:1", "zipf:1.5")
SHARED = {"attention_qkv": 2.0, "router": 1.0, "token_embedding": 4.0, "unembedding": 1.0}
FIGURES = {"sigma0-noise", "sigma0-gamma", "sigma0-residual", "sigma0-kappa", "sigma0-forecast"}


def shares(load: str) -> np.ndarray:
    return np.array(parse_load(load, experts=EXPERTS))


def shift_of(load: str, router: str = "sigmoid_norm") -> float:
    return GAMMA[router] * Imbalance.of(shares(load)).shortfall_bits


def noise_side(made: Any, load: str, router: str = "sigmoid_norm", *, under: Sequence[str] = ()) -> Side:
    """sigma = 4 tokens^-gamma of every expert, with a hundredth of scatter; ``under``: loads at frozen weights."""
    rng = np.random.default_rng(zlib.crc32(f"{load}{router}{under}".encode()))
    rows: dict[str, list[Any]] = {
        name: [] for name in ("seed", "step", "load", "layer", "kind", "expert", "tokens", "noise", "signal")
    }
    for seed in range(SEEDS):
        for other in under or ("",):
            tokens = TOKENS * shares(other or load)
            experts = [
                (0, f"expert_{m}", e, n, 16 * n ** (-2 * GAMMA[router]))
                for m in ("up", "down")
                for e, n in enumerate(tokens)
            ]
            parts = [(0, kind, -1, float(TOKENS), sigma2) for kind, sigma2 in SHARED.items()]
            for layer, kind, expert, n, sigma2 in (*experts, *parts):
                signal = float(np.exp(rng.normal(0, 0.01)))
                values = (seed, 10, other, layer, kind, expert, float(n), float(sigma2), signal)
                for name, value in zip(rows, values, strict=True):
                    rows[name].append(value)
    rows |= {"adam_noise": rows["noise"], "adam_signal": rows["signal"]}
    key = made.put("gradient_noise", rows, salt=f"{load}{router}{under}")
    return Side(label=load_label(load), size=2, model=spec(load, router), cells=(key,))


def spec(load: str, router: str = "sigmoid_norm") -> str:
    return f"d=32,L=2,{EXPERTS}e2a,h=16,router={router},load={load},B=256,T=200"


def drift_sides(made: Any, load: str, drift: float, router: str = "sigmoid_norm", label: str = "") -> tuple[Side, Side]:
    reference = replace(made.side(32), label="uniform", model=spec("uniform", router))
    return reference, replace(made.side(64, drift), label=label or load_label(load), model=spec(load, router))


def ask_arm(made: Any, ladder: str, load: str, router: str = "sigmoid_norm", expected: str = "RESIDUAL") -> None:
    asked = {"axis": "sigma0", "ladder": ladder}
    sides = noise_side(made, "uniform", router), noise_side(made, load, router)
    made.ask(*sides, kind="sigma0", expected=expected, **asked)
    made.ask(*drift_sides(made, load, KAPPA * shift_of(load, router), router), expected="", **asked)


def ask_all(made: Any, heldout: dict[str, float]) -> None:
    for router in GAMMA:
        asked = {"kind": "gamma", "ladder": f"noise-d32-16e2a-{router}"}
        made.ask(*(noise_side(made, load, router) for load in ("uniform", *BLIND)), axis="sigma0", expected="", **asked)
        control = router == "content_blind"
        axis, expected = ("control", "PASS") if control else ("sigma0", "")
        made.ask(noise_side(made, "uniform", router, under=("uniform", *BLIND)), axis=axis, expected=expected, **asked)
    for load in LOADS:
        ask_arm(made, "load", load)
    for load in BLIND:
        ask_arm(made, "load_content_blind", load, "content_blind", "")
    for load, off in heldout.items():
        sides = drift_sides(made, load, KAPPA * shift_of(load) + off)
        made.ask(*sides, axis="sigma0", ladder="load_heldout", expected="")
        made.ask(*sides, kind="forecast", axis="sigma0", ladder="load_heldout")
    for label, drift in (("zipf-1-scaled-0_5", -0.1), ("zipf-1-scaled-1", -0.3)):
        sides = drift_sides(made, "zipf:1", drift, label=label)
        made.ask(*sides, axis="sigma0", ladder="load_scaled", expected="")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Path:
    root = tmp_path_factory.mktemp("studies") / "lab"
    made = make(root)
    made.store.prepare()
    made.ask(made.side(32), made.side(64, 0.1))
    ask_all(made, {"zipf:0.75": 0.0, "zipf:1.25": 0.0})
    write_report(root)
    return root


@pytest.fixture(scope="module")
def summary(study: Path) -> Summary:
    return summarize(study)


def columns(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row.cells, strict=True)) for row in table.rows]


def test_known_gammas_shifts_and_drifts_are_recovered(summary: Summary) -> None:
    for g in summary.gammas:
        assert g.gammas.pooled.gamma.mean == pytest.approx(GAMMA[g.experts.router], abs=0.01)
    for s in summary.shifts:
        router = "content_blind" if s.routing == "content_blind" else "sigmoid_norm"
        load = s.comparison.sides[-1].label
        assert s.shift.shift.mean == pytest.approx(s.shift.theory * GAMMA[router] / 0.5, abs=0.02), load
        assert s.drift is not None
        assert s.imbalance is not None
    assert summary.kappas is not None
    assert summary.kappas.budget.kappa.mean == pytest.approx(KAPPA, abs=0.05)
    assert summary.calibration is not None
    assert summary.calibration.gamma["learned"].mean == pytest.approx(0.2, abs=0.01)


def test_laws_are_counted_and_findings_are_not(summary: Summary) -> None:
    counts = {kind: len(pairs) for kind, pairs in summary.verdicts.items()}
    assert counts == {"drift": 1, "shift of sigma_0": len(LOADS), "forecast": 2, "control": 1}
    assert summary.as_expected
    (gamma,) = (g for g in summary.gammas if g.comparison.is_control)
    assert gamma.switched
    assert gamma.gammas.verdict is Verdict.PASS


def test_the_main_table_and_the_overview_stay_with_the_axes(study: Path, summary: Summary) -> None:
    assert [d.comparison.ladder for d in summary.targets] == ["width"]
    assert len(drift_table(summary).rows) == 1
    assert not (study / "figures" / "overview.png").exists()
    assert len(summary.sigma0_drifts) == len(LOADS) + len(BLIND) + 4


def test_tables_of_gamma_and_of_the_parts(summary: Summary) -> None:
    rows = columns(gamma_table(summary))
    assert len(rows) == 4
    assert [row["verdict"] for row in rows].count("PASS") == 1
    assert not gamma_table(summary, natural=True).rows
    row = columns(part_table(summary))[0]
    # sigma is the root of noise over signal
    assert row["attention"] == "0.50"
    assert row["embeddings"] == "1.00"
    assert "simple noise scale, tokens" in row


def test_the_residual_is_explained_by_the_shortfall(summary: Summary) -> None:
    learned, blind = residual_groups(summary)
    assert learned.best is not None
    assert learned.best.measure == "shortfall (bits)"
    assert learned.quoted is not None
    assert learned.quoted.slope.mean == pytest.approx(0.2 - 0.5, abs=0.02)
    # two loads are no line
    assert blind.quoted is None
    rows = columns(residual_fit_table(summary))
    assert [row["routing"] for row in rows] == ["learned"] * 4 + ["content-blind"] * 4


def test_tables_of_drift_kappa_forecast_and_probe(summary: Summary) -> None:
    uses = [row["in the budget's fit"] for row in columns(shift_drift_table(summary))]
    assert [uses.count(use) for use in ("yes", "held out")] == [len(LOADS) + len(BLIND), 2]
    lines = [row["line"] for row in columns(kappa_table(summary))]
    assert [line for line in lines if ":" not in line] == ["loads, through 0 (the budget's)", "loads", "every ladder"]
    assert "loads: load content blind alone" in lines
    assert [row["inside"] for row in columns(forecast_table(summary))] == ["yes", "yes"]
    assert forecast_text(summary).startswith("forecasts: 2 of 2 inside, median width 0.")
    (probe,) = columns(probe_table(summary))
    assert probe["load"] == "zipf-1"
    assert probe["strength 0.5 [95 %]"].startswith("-0.10 [")
    assert probe["1 against 0, by seed [95 %]"].startswith(f"{-0.3 - KAPPA * shift_of('zipf:1'):+.2f} [")


def test_page_markdown_and_terminal_have_the_section(study: Path, summary: Summary) -> None:
    page = (study / "report.html").read_text()
    assert 'id="sigma0"' in page
    assert 'href="#sigma0"' in page
    assert "--calibration STUDY/sigma0_calibration.json" in unescape(page)
    text = (study / "report.md").read_text()
    assert "## sigma" in text
    assert "Causal probe" in text
    names = {path.stem for path in (study / "figures").glob("*.png")}
    assert names >= FIGURES
    assert "curves-load-markov-complete_mue" in names
    assert len(re.findall("^sigma_0: ", "\n".join(verdict_lines(summary)), re.MULTILINE)) >= 6


def test_the_calibration_makes_a_budget(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = study / "sigma0_calibration.json"
    assert json.loads(written.read_text())["made_by"].startswith("pytest suites/")
    load = ",".join(map(str, shares("zipf:1")))
    asked = ["budget", "--calibration", str(written), "--load", load, "--spec", f"{EXPERTS}e2a", "--batch", "256"]
    assert main(asked) == 0
    assert "LR optimum" in capsys.readouterr().out


def test_writing_twice_gives_the_same_bytes(study: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(study.rglob("*")) if path.is_file()}

    before = content()
    write_report(study)
    assert content() == before


def test_a_forecast_that_fails_fails_the_study(tmp_path: Path, make: Make) -> None:
    made = make(tmp_path / "study")
    ask_all(made, {"zipf:0.75": 0.8})
    found = summarize(made.root)
    assert found.verdicts["forecast"] == ((Verdict.FAIL, "PASS"),)
    assert found.verdict is Verdict.FAIL


def test_a_forecast_without_a_calibration_is_open_and_says_so(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_comes() -> None:
        raise CalibrationError("none")

    monkeypatch.setattr(findings, "read_calibration", none_comes)
    made = make(tmp_path / "study")
    made.ask(*drift_sides(made, "zipf:1", 0.1), kind="forecast", axis="sigma0", ladder="load_heldout")
    summary = summarize(made.root)
    assert summary.calibration is None
    assert summary.verdict is Verdict.INCONCLUSIVE
    page = write_report(made.root, summary).read_text()
    assert "not foretold" in page
    assert "no calibration" in page
    assert not (made.root / "sigma0_calibration.json").exists()
    assert verdict_lines(summary)[0].startswith("sigma_0: forecasts: none judged")


def test_a_missing_cell_is_one_line_and_exit_2(tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path / "study")
    side = noise_side(made, "zipf:1")
    made.ask(noise_side(made, "uniform"), replace(side, cells=("0" * 20,)), kind="sigma0", axis="sigma0", ladder="load")
    assert main(["report", str(made.root)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "cannot judge 'sigma0-sigma0-load" in said


def test_noise_that_is_no_table_is_one_line_and_names_the_question(
    tmp_path: Path, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(tmp_path / "study")
    side = noise_side(made, "zipf:1")
    made.ask(side, replace(side, cells=side.cells * 2), kind="sigma0", axis="sigma0", ladder="load")
    made.ask(replace(side, model="nonsense"), kind="gamma", axis="sigma0", ladder="noise", expected="")
    assert main(["report", str(made.root)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_study_without_sigma0_is_as_it_was(tmp_path: Path, make_full: Make) -> None:
    root = tmp_path / "study"
    make_full(root)
    summary = summarize(root)
    page = write_report(root, summary).read_text()
    assert not summary.has_sigma0
    assert "sigma0" not in page
    assert "sigma" not in (root / "report.md").read_text()
    assert not (root / "sigma0_calibration.json").exists()
    assert not any("sigma" in line for line in verdict_lines(summary))


@pytest.mark.parametrize(
    ("label", "probe"),
    [("zipf-1-scaled-0_5", ("zipf-1", 0.5)), ("zipf-1_5-scaled-1", ("zipf-1_5", 1.0)), ("zipf-1", ("zipf-1", 0.0))],
)
def test_labels_of_the_probe(label: str, probe: tuple[str, float]) -> None:
    assert probed_load(label) == probe
