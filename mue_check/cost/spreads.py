"""Measured spreads of optima and drifts over seeds, in octaves. A plan simulates its losses with them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mue_check.records.files import read_json
from mue_check.records.typed import from_json

MARKOV, TEXT = "markov", "text"
OWN, OTHER = "complete_mue", "other"


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Spreads in the packed studies of reports/ (bench/plan_spreads.py), pooled over rules and targets.

    ``drift_sd`` is the standard deviation of the drift over seeds, by ladder (``ladder:knob`` for knobs other than the
    learning rate) and by kind of corpus, and ``power_sd`` the one that ``judge.power`` uses. ``drifts`` are the mean
    drifts of all targets under the rule and under others. ``offset_rms`` is the distance of the reference's optimum
    from the tuned value, where its search starts.
    """

    made_by: str
    drift_sd: Mapping[str, float]
    power_sd: Mapping[str, float]
    drifts: Mapping[str, Sequence[float]]
    offset_rms: float

    def of_corpus(self, corpus: str) -> list[float]:
        """Standard deviations of drifts on a corpus: one per ladder on the Markov source, a single one on text."""
        if _kind(corpus) == TEXT:
            return [self.drift_sd[TEXT]]
        return [sd for name, sd in self.drift_sd.items() if name not in (MARKOV, TEXT)]

    def for_power(self, ladder: str, knob: str, corpus: str) -> float:
        """The standard deviation of a ladder if it was measured, else that of the corpus."""
        name = ladder if knob == "lr" else f"{ladder}:{knob}"
        kind = _kind(corpus)
        return self.power_sd.get(name, self.power_sd[kind]) if kind == MARKOV else self.power_sd[kind]


def _kind(corpus: str) -> str:
    return MARKOV if corpus == MARKOV else TEXT


@cache
def measured_spreads() -> Spreads:
    """The spreads that come with the package."""
    path = Path(__file__).with_name("spreads.json")
    return from_json(Spreads, read_json(path), str(path))
