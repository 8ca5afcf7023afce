"""Cases: what one suite test is about, and how a test's marker and the command line select them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the pytest plugin imports this module in every pytest run of every user
    from mue_check.axes import Ladder, Rung
    from mue_check.axes.ladder import LadderUse
    from mue_check.rules import Knob, Rule
    from mue_check.tiers import Tier


@dataclass(frozen=True, kw_only=True)
class Case:
    """A corpus and a ladder; ``rule`` is set if the case is about another rule than that of ``--rule``."""

    corpus: str
    ladder: Ladder
    rule: Rule | None = None

    @property
    def label(self) -> str:
        """The test's id."""
        return "-".join([Path(self.corpus).name, self.ladder.name, *([self.rule.name] if self.rule else [])])

    @property
    def work(self) -> float:
        """Roughly how long it takes, for the order of tests: the longest goes first."""
        if self.ladder.uses & {"noise", "tune_once"}:  # every rung is trained to the end
            return sum(rung.work for rung in self.ladder.targets)
        return 0.01 * max(rung.work for rung in self.ladder.rungs)


@dataclass(frozen=True, kw_only=True)
class TargetCase(Case):
    """One target of the ladder, and the value whose drift is measured."""

    target: Rung
    knob: Knob = "lr"

    @property
    def label(self) -> str:
        """The test's id."""
        knob = [self.knob] if self.knob != "lr" else []
        rule = [self.rule.name] if self.rule else []
        return "-".join([Path(self.corpus).name, self.ladder.name, self.target.label, *knob, *rule])

    @property
    def work(self) -> float:
        """Roughly how long it takes."""
        return self.target.work


class Options(Protocol):
    """What cases need to know of the command line."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The selected axes."""

    @property
    def corpora(self) -> tuple[str, ...]:
        """The corpora, the first of them for every ladder."""

    @property
    def beside(self) -> tuple[Rule, ...]:
        """Other rules to measure."""

    @property
    def tier(self) -> Tier:
        """The tier."""

    @property
    def knob(self) -> Knob | None:
        """The value to sweep on every ladder; None for those of each ladder."""

    def ladders(self, axis: str, corpus: str, question: LadderUse = "drift") -> tuple[Ladder, ...]:
        """The ladders of an axis that serve a question."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The ``axis`` marker of a test: which corpora, ladders and targets it is about. None means all of them.

    The tiers ``not_in`` do not ask it.
    """

    axis: str = ""
    question: LadderUse | None = None
    corpora: int | None = None
    ladder: str | None = None
    targets: int | None = None
    least: float = 1
    not_in: tuple[str, ...] = ()

    def is_selected(self, options: Options) -> bool:
        """Whether the command line selects the axis, and the tier asks this."""
        return self.axis in options.axes and options.tier.name not in self.not_in


def selected_ladders(options: Options, scope: Scope, question: LadderUse) -> Iterator[tuple[str, Ladder]]:
    """(corpus, ladder) of the scope, among those that the command line selects."""
    if not scope.is_selected(options):
        return
    for at, corpus in enumerate(options.corpora[: scope.corpora]):
        ladders = options.ladders(scope.axis, corpus, scope.question or question)
        if at > 0:  # a second corpus confirms the first target of the first ladder; all of it would take hours
            ladders = tuple(replace(ladder, targets=ladder.targets[:1]) for ladder in ladders[:1])
        for ladder in ladders:
            if scope.ladder in (None, ladder.name):
                yield corpus_for(options, corpus, ladder), ladder


def corpus_for(options: Options, corpus: str, ladder: Ladder) -> str:
    """The corpus on which a ladder is measured: its task's own source, if it has one.

    Another table of that source, as in ``--corpus pairs:1``, stays.
    """
    own = options.tier.task(corpus, ladder.regime).corpus
    return corpus if own is None or corpus.partition(":")[0] == own else own


def knobs_of(options: Options, ladder: Ladder) -> tuple[Knob, ...]:
    """The values to sweep along a ladder: its own, or the one of the command line."""
    return ladder.knobs if options.knob is None else (options.knob,)


def ladder_cases(options: Options, scope: Scope) -> list[Case]:
    """One case for each corpus and ladder of activation scales."""
    return [Case(corpus=corpus, ladder=ladder) for corpus, ladder in selected_ladders(options, scope, "scales")]


def target_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """One case for each corpus, ladder and target."""
    return [
        TargetCase(corpus=corpus, ladder=ladder, target=target, knob=knob)
        for corpus, ladder in selected_ladders(options, scope, "drift")
        for target in ladder.targets[: scope.targets]
        if target.size >= scope.least * ladder.reference.size
        for knob in knobs_of(options, ladder)
    ]


def any_target_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """One case for each target of every axis, on the first corpus."""
    return [
        TargetCase(corpus=corpus_for(options, options.corpora[0], ladder), ladder=ladder, target=target)
        for axis in options.axes
        for ladder in options.ladders(axis, options.corpora[0])
        for target in ladder.targets
        if not target.load_scaling  # the causal probe leaves the rule on purpose
    ]


def rule_cases(options: Options, scope: Scope) -> list[TargetCase]:
    """Every target under each rule of ``--beside``, except steered loads, which no rule covers."""
    cases = [case for case in any_target_cases(options, scope) if not case.target.load]
    return [
        replace(case, rule=rule, knob=knob)
        for case in cases
        for knob in knobs_of(options, case.ladder)
        for rule in options.beside
    ]


def rule_ladder_cases(options: Options, scope: Scope) -> list[Case]:
    """Every ladder of activation scales under each rule of ``--beside``, on the first corpus."""
    return [
        Case(corpus=options.corpora[0], ladder=ladder, rule=rule)
        for axis in options.axes
        for ladder in options.ladders(axis, options.corpora[0], "scales")
        for rule in options.beside
    ]
