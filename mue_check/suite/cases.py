"""What each suite test is asked about: corpora, ladders, targets and rules, from its marker and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.cost.flops import relative_work
from mue_check.suite.settings import Settings

if TYPE_CHECKING:
    from mue_check.axes import Ladder, Question, Rung
    from mue_check.rules import Rule
    from mue_check.sigma0.ladders import LoadUse

MARKER = (
    "axis(name, question=drift|scales|speed, corpora=N, ladder=NAME, targets=N, least=X): what a "
    "suite's test is about; on the first N corpora, one ladder and its first N targets, or those X times its reference"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one suite test is about: a corpus, a ladder and, for the rules beside, another rule."""

    corpus: str
    ladder: Ladder
    rule: Rule | None = None

    @property
    def label(self) -> str:
        """The test's id."""
        return "-".join([Path(self.corpus).name, self.ladder.name, *([self.rule.name] if self.rule else [])])

    @property
    def work(self) -> float:
        """Roughly how long it takes, for the order of tests: longest first."""
        if "noise" in self.ladder.asks:  # every rung is trained to the end
            return sum(map(_work, self.ladder.targets))
        return 0.01 * max(map(_work, self.ladder.rungs))


@dataclass(frozen=True, kw_only=True)
class TargetCase(Case):
    """The same for one target of the ladder."""

    target: Rung

    @property
    def label(self) -> str:
        """The test's id."""
        rule = [self.rule.name] if self.rule else []
        return "-".join([Path(self.corpus).name, self.ladder.name, self.target.label, *rule])

    @property
    def work(self) -> float:
        """Roughly how long it takes."""
        return _work(self.target)


def _work(rung: Rung) -> float:
    return relative_work(rung.model) * rung.batch * rung.steps


def _ladder_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    return [Case(corpus=corpus, ladder=ladder) for corpus, ladder in _asked(settings, marker, "scales")]


def _target_cases(settings: Settings, marker: pytest.Mark | None) -> list[TargetCase]:
    wanted = marker.kwargs if marker else {}
    return [
        TargetCase(corpus=corpus, ladder=ladder, target=target)
        for corpus, ladder in _asked(settings, marker, "drift")
        for target in ladder.targets[: wanted.get("targets")]
        if target.size >= wanted.get("least", 1) * ladder.reference.size
    ]


def _early_cases(settings: Settings, marker: pytest.Mark | None) -> list[TargetCase]:
    # another batch or another number of steps has no curve to lie beside the reference's, step by step
    return [case for case in _target_cases(settings, marker) if "scales" in case.ladder.asks]


def _noise_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    return [Case(corpus=corpus, ladder=ladder) for corpus, ladder in _noise_ladders(settings, marker)]


def _switched_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    """The control, and the usual mixture for comparison: one of each router, on the first corpus."""
    found: dict[str, Case] = {}
    for corpus, ladder in _noise_ladders(settings, marker):
        if (router := ladder.steered_router) in ("content_blind", "sigmoid_norm"):
            found.setdefault(router, Case(corpus=corpus, ladder=ladder))
    return list(found.values())


def _noise_ladders(settings: Settings, marker: pytest.Mark | None) -> Iterator[tuple[str, Ladder]]:
    """All on the first corpus; of the others those of the rule's own routing under steered loads."""
    if marker is None or marker.args[0] not in settings.axes:
        return
    for at, corpus in enumerate(settings.corpora):
        for ladder in settings.ladders(marker.args[0], corpus, "noise"):
            if at == 0 or ladder.steered_router == "sigmoid_norm":
                yield corpus, ladder


def _load_cases(settings: Settings, marker: pytest.Mark | None, use: LoadUse) -> list[TargetCase]:
    from mue_check.sigma0.ladders import load_use

    if marker is None or marker.args[0] not in settings.axes:
        return []
    corpus = settings.corpora[0]
    return [
        TargetCase(corpus=corpus, ladder=ladder, target=target)
        for ladder in settings.ladders(marker.args[0], corpus)
        for target in ladder.targets
        if load_use(ladder.name) == use
    ]


def _shift_cases(settings: Settings, marker: pytest.Mark | None) -> list[TargetCase]:
    """Every arm of a fit; on another corpus the loads whose noise is measured there for gamma anyway."""
    from mue_check.sigma0.laboratory import LABORATORIES
    from mue_check.sigma0.ladders import LOADS

    cases = _load_cases(settings, marker, use="fit")
    loads = LABORATORIES[settings.tier.name].noise_loads
    known = [c for c in cases if c.ladder.name == LOADS and c.target.load in loads]
    return cases + [replace(case, corpus=corpus) for corpus in settings.corpora[1:] for case in known]


def _any_cases(settings: Settings, marker: pytest.Mark | None) -> list[TargetCase]:
    return [
        TargetCase(corpus=settings.corpora[0], ladder=ladder, target=target)
        for axis in settings.axes
        for ladder in settings.ladders(axis, settings.corpora[0])
        for target in ladder.targets
        if not target.load_scaling  # the causal probe leaves the rule on purpose
    ]


def _rule_cases(settings: Settings, marker: pytest.Mark | None) -> list[TargetCase]:
    from mue_check.sigma0.ladders import SIGMA0

    # the laboratory asks how one mixture answers to its load, which no rule says anything of
    cases = [case for case in _any_cases(settings, marker) if case.ladder.axis != SIGMA0]
    return [replace(case, rule=rule) for case in cases for rule in settings.beside]


def _rule_ladder_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    corpus = settings.corpora[0]
    return [
        Case(corpus=corpus, ladder=ladder, rule=rule)
        for axis in settings.axes
        for ladder in settings.ladders(axis, corpus, "scales")
        for rule in settings.beside
    ]


def _asked(settings: Settings, marker: pytest.Mark | None, question: Question) -> Iterator[tuple[str, Ladder]]:
    """Corpora and ladders of a test's ``axis`` marker, among those that the command line asks for."""
    if marker is None or marker.args[0] not in settings.axes:
        return
    wanted = marker.kwargs
    for at, corpus in enumerate(settings.corpora[: wanted.get("corpora")]):
        ladders = settings.ladders(marker.args[0], corpus, wanted.get("question", question))
        # a second corpus confirms the axis's first ladder; all of them on all corpora would take hours
        for ladder in ladders if at == 0 else ladders[:1]:
            if wanted.get("ladder") in (None, ladder.name):
                yield corpus, ladder


MAKERS: Mapping[str, Callable[[Settings, pytest.Mark | None], Sequence[Case]]] = {
    "ladder_case": _ladder_cases,
    "target_case": _target_cases,
    "early_case": _early_cases,
    "any_case": _any_cases,
    "noise_case": _noise_cases,
    "switched_case": _switched_cases,
    "shift_case": _shift_cases,
    "load_case": partial(_load_cases, use="fit"),
    "heldout_load_case": partial(_load_cases, use="heldout"),
    "scaled_load_case": partial(_load_cases, use="probe"),
    "rule_case": _rule_cases,
    "rule_ladder_case": _rule_ladder_cases,
}
"""By fixture: one case per corpus and ladder of scales; per corpus, ladder and target; the same where both train alike;
per target of every axis; of the sigma_0 laboratory per mixture, per arm of a fit, per load held out of it and per arm
of the causal probe; and per rule of ``--beside``."""
