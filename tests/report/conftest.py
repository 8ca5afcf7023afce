"""Studies made by hand: exact parabolas whose optimum is known, and no training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from mue_check.catalog import summarize
from mue_check.judge.laws import COORDINATE_STEPS
from mue_check.overview.report import report_of
from mue_check.records import Cell, Columns, Environment, Store
from mue_check.report.markdown import render_markdown
from mue_check.rules import HyperParameters, Knob, get_rule
from mue_check.spec import Dense, ModelSpec, Scenario, TrainSpec
from mue_check.study.asked import record_question
from mue_check.study.comparison import Side, save_comparison
from tests.studies import comparison_of

TRAIN = TrainSpec(steps=100, batch=16)
SEEDS = 4
XS = tuple(-9 + 0.5 * i for i in range(13))
INITIAL = 4.3
CENTER = -6.5
ACTIVATIONS = ("block0.attention_branch", "block0.ffn_branch", "block0.residual", "logits")


def model(width: int) -> ModelSpec:
    return ModelSpec(width=width, depth=2, feed_forward=Dense(hidden=width))


@dataclass(frozen=True)
class Made:
    """A study being made."""

    root: Path
    corpus: str = "markov"
    rule: str = "complete_mue"
    router: str = "sigmoid_norm"
    run: str = "2026-11-01T10:00:00.000000Z"
    knob: Knob = "lr"
    steps: int = TRAIN.steps
    environment: Environment | None = None

    @property
    def train(self) -> TrainSpec:
        return replace(TRAIN, steps=self.steps)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def put(self, measurement: str, columns: Columns, *, width: int = 32, salt: str = "", cost: float = 1.0) -> str:
        """Store a cell that ``salt`` tells apart, and return its key. One value where the columns name none."""
        columns = {"value": [0.01] * len(columns["seed"]), **columns}
        prescription = get_rule("complete_mue").prescribe(
            Scenario.of(model(32), TRAIN), Scenario.of(model(width), self.train)
        )
        cell = Cell(
            measurement=measurement,
            model=model(width),
            prescription=prescription,
            base=HyperParameters(eps=1e-8 + 1e-20 * crc32(salt.encode())),
            train=self.train,
            corpus=self.corpus,
            corpus_fingerprint=self.corpus,
            values=tuple(map(float, dict.fromkeys(columns["value"]))),
            seeds=tuple(map(int, dict.fromkeys(columns["seed"]))),
            knob=self.knob,
        )
        self.store.put(cell, columns, core_seconds=cost, environment=self.environment)
        return cell.key

    def side(
        self,
        width: int,
        drift: float = 0.0,
        *,
        diverges_from: float = math.inf,
        salt: str = "",
        label: str = "",
        spread: float = 0.02,
    ) -> Side:
        """Seed s has its optimum at CENTER + drift, +- a spread for a target that drifts.

        Such a target gains 0.05 nats over the reference."""
        keys = []
        for seed in range(SEEDS):
            at = CENTER + drift + (spread * (-1) ** seed if drift else 0.0)
            floor = 3.6 - (0.05 if drift else 0.0) + 0.01 * seed
            losses = [floor + 0.02 * (x - at) ** 2 for x in XS]
            columns: Columns = {
                "seed": [seed] * len(XS),
                "value": [2.0**x for x in XS],
                "initial": [INITIAL] * len(XS),
                "loss": [math.nan if x >= diverges_from else loss for x, loss in zip(XS, losses, strict=True)],
            }
            keys.append(
                self.put("loss_grid", columns, width=width, salt=f"{drift}{diverges_from}{salt}{spread}", cost=2.5)
            )
        return self.side_of(width, keys, label)

    def early(self, width: int, factor: float) -> Side:
        steps = range(20)
        columns: Columns = {
            "seed": [s for s in range(SEEDS) for _ in steps],
            "step": [t for _ in range(SEEDS) for t in steps],
            "loss": [(4 - 0.05 * t) * factor * (1 + 1e-3 * s * t) for s in range(SEEDS) for t in steps],
        }
        return self.side_of(width, [self.put("early_curve", columns, width=width, salt=f"{factor}")])

    def coordinates(
        self, width: int, scale: float = 1.0, *, names: Sequence[str] = ACTIVATIONS, label: str = "", size: int = 0
    ) -> Side:
        rows = [(s, t, name) for s in range(SEEDS) for t in COORDINATE_STEPS for name in names]
        values = [scale * (1 + 0.01 * s) for s, _, _ in rows]
        columns: Columns = {
            "seed": [s for s, _, _ in rows],
            "step": [t for _, t, _ in rows],
            "coordinate": [name for _, _, name in rows],
            "rms": values,
            "change": values,
        }
        key = self.put("coordinates", columns, width=width, salt=f"{scale}{names}{label}")
        side = self.side_of(width, [key], label)
        return Side(label=side.label, size=size or width, model=side.model, cells=side.cells)

    def learning(self, width: int, speed: float, *, worst: float = 4.0, label: str = "") -> Side:
        """Loss falls by a half with every doubling of the steps; seeds differ by a constant factor of the steps."""
        steps = [2**i for i in range(1, 9)]
        columns: Columns = {
            "seed": [s for s in range(SEEDS) for _ in steps],
            "step": [t for _ in range(SEEDS) for t in steps],
            "loss": [worst - 0.25 * math.log2(speed * t * (1 + 0.01 * s)) for s in range(SEEDS) for t in steps],
        }
        return self.side_of(width, [self.put("learning_curve", columns, width=width, salt=f"{speed}{worst}")], label)

    def final(self, width: int, loss: float) -> Side:
        """Losses at one value; seeds differ more than in their changes from model to model."""
        columns: Columns = {
            "seed": list(range(SEEDS)),
            "initial": [INITIAL] * SEEDS,
            "loss": [loss + 0.1 * s - 0.15 + 1e-4 * width * (-1) ** s for s in range(SEEDS)],
        }
        return self.side_of(width, [self.put("loss_grid", columns, width=width, salt=f"{loss}")])

    def load(self, label: str, loads: Sequence[float]) -> Side:
        """Two layers that route alike."""
        rows = [(s, layer, e) for s in range(SEEDS) for layer in range(2) for e in range(len(loads))]
        columns: Columns = {
            "seed": [s for s, _, _ in rows],
            "layer": [layer for _, layer, _ in rows],
            "expert": [e for _, _, e in rows],
            "load": [loads[e] for _, _, e in rows],
            "weight_sum": [1.0] * len(rows),
            "variance_factor": [1.25] * len(rows),
        }
        return self.side_of(16, [self.put("routing", columns, width=16, salt=f"{label}{loads}{self.router}")], label)

    def side_of(self, width: int, keys: Sequence[str], label: str = "") -> Side:
        return Side(label=label or f"d{width}", size=width, model=f"{model(width)},{self.train}", cells=tuple(keys))

    def ask(
        self,
        *sides: Side,
        kind: str = "drift",
        axis: str = "width",
        ladder: str = "",
        answered: bool = True,
        **asked: Any,
    ) -> None:
        """Ask a question, with further fields of its comparison."""
        names = [kind, axis, ladder, sides[-1].label, self.knob, self.corpus, self.rule, self.router]
        comparison = comparison_of(
            *sides,
            kind=kind,
            name="-".join("".join(c for c in name if c.isalnum() or c in "_+") for name in names if name),
            axis=axis,
            ladder=ladder or ("width" if axis == "control" else axis),
            command=f"pytest suites/ -k {sides[-1].label}",
            **{each: getattr(self, each) for each in ("corpus", "rule", "router", "knob")},
            **asked,
        )
        record_question(self.root, replace(comparison, sides=()), self.run)
        if answered:
            save_comparison(self.root, comparison)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A study to be made."""
    return Made(tmp_path / "study")


def make_full(root: Path, corpus: str = "markov") -> Made:
    """A study of drifts that pass and fail, a control, laws and early curves."""
    made = Made(root, corpus)
    made.store.prepare()
    reference = made.side(32)
    made.ask(reference, made.side(64, 0.25))
    made.ask(reference, made.side(128, 1.25))
    made.ask(reference, made.side(128, -2.0), axis="control", expected="FAIL")
    made.ask(made.early(32, 1.0), made.early(64, 0.99), kind="early_curve")
    made.ask(*(made.coordinates(width) for width in (32, 64, 128)), kind="coordinates", axis="heldout")
    return made


class Shown:
    """The report of a study without drawing its figures: its sections, the names of its figures, and its Markdown."""

    def __init__(self, root: Path) -> None:
        self.report = report_of(summarize(root))
        self.anchors = [section.anchor for section in self.report.sections]
        self.figures = {picture.name for picture in self.report.pictures}
        self.text = render_markdown(self.report)
