"""Measured spreads of optima and drifts over seeds, in octaves: what a plan imagines its losses with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MARKOV, TEXT = "markov", "text"
OWN, OTHER = "complete_mue", "other"


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Of the packed studies in reports/ (bench/plan_spreads.py), pooled over rules and targets.

    ``drift_sd`` is the standard deviation of the drift over seeds, by ladder (``ladder:knob`` for other knobs than
    the learning rate) and by kind of corpus; ``power_sd`` the one that ``judge.power`` goes by; ``drifts`` the mean
    drifts of all targets, under the rule and under others; ``offset_rms`` how far the reference's optimum lies from
    the tuned value where its search begins.
    """

    made_by: str
    drift_sd: Mapping[str, float]
    power_sd: Mapping[str, float]
    drifts: Mapping[str, Sequence[float]]
    offset_rms: float

    def of_corpus(self, corpus: str) -> list[float]:
        """Of drifts on that corpus, ladder by ladder; of text there is one."""
        if _kind(corpus) == TEXT:
            return [self.drift_sd[TEXT]]
        return [sd for name, sd in self.drift_sd.items() if name not in (MARKOV, TEXT)]

    def for_power(self, ladder: str, knob: str, corpus: str) -> float:
        """Of one ladder where it was measured, else that of the corpus; text is measured as a whole."""
        name = ladder if knob == "lr" else f"{ladder}:{knob}"
        kind = _kind(corpus)
        return self.power_sd.get(name, self.power_sd[kind]) if kind == MARKOV else self.power_sd[kind]


def _kind(corpus: str) -> str:
    return MARKOV if corpus == MARKOV else TEXT


@cache
def measured_spreads() -> Spreads:
    """Those that come with the package."""
    return Spreads(**json.loads(Path(__file__).with_name("spreads.json").read_text()))
