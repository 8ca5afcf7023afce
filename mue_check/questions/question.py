"""The protocol of a kind of question: how it judges the records, and what it adds to a report.

A kind of question is one file of this package (or of a package above it), listed in ``mue_check.catalog``. It has
* a function ``ask_...(study, ...)`` that records the question, measures the cells it needs, saves the answer as a
  ``Comparison`` and returns its finding,
* a ``Finding``, the result of judging one comparison,
* a ``JudgedKind``, whose ``judge`` makes that finding from the store. Suites and ``mue_check report`` both call it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from mue_check.errors import MueCheckError, StoreError
from mue_check.judge.verdict import Verdict
from mue_check.questions.case import Case, Options, Scope
from mue_check.records import Store
from mue_check.report.section import Section
from mue_check.study.arm import AnyArm
from mue_check.study.comparison import Comparison, Side
from mue_check.study.evidence import require_evidence
from mue_check.study.folder import AxisPoint, Folder

if TYPE_CHECKING:
    from mue_check.questions.summary import Summary


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one question: the ``measured`` numbers as text, and a verdict, None if nothing is judged.

    Subclasses add the judge's own result and what their figures need.
    """

    comparison: Comparison
    verdict: Verdict | None
    measured: str = ""

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts that a report counts: one, unless the question judges several laws."""
        return () if self.verdict is None else (self.verdict,)

    @property
    def side(self) -> Side:
        """The target: the last side of the comparison."""
        return self.comparison.sides[-1]


F = TypeVar("F", bound=Finding)
F_co = TypeVar("F_co", bound=Finding, covariant=True)
Expect = Callable[[Finding], None]
"""The fixture of the suites that checks a finding against the verdict that its question expects."""
CaseMaker = Callable[[Options, Scope], Sequence[Case]]


@dataclass(frozen=True)
class Findings:
    """Findings of several kinds."""

    found: tuple[Finding, ...] = ()

    def of(self, kind: type[F]) -> tuple[F, ...]:
        """Those of one type, in the order of their comparisons."""
        return tuple(finding for finding in self.found if isinstance(finding, kind))


class QuestionKind:
    """A kind of question, as a report and the suites see it. By default it finds and reports nothing."""

    label: str
    """Its name in the counts of a report."""
    cases: ClassVar[Mapping[str, CaseMaker]] = {}
    """By the name of a pytest fixture, the cases of the suites' tests, for fixtures that this kind adds."""
    terms: ClassVar[Mapping[str, str]] = {}
    """Terms of its tables, with their definitions."""
    axes: tuple[str, ...] = ()
    """Axes with a separate section in its report. Their drifts are not in the main table of drifts."""

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[Finding, ...]:
        """Judge a study. ``known`` are the findings of the kinds before it in the catalog."""
        return ()

    def sections(self, summary: "Summary") -> Iterator[Section]:
        """Its sections of the report, in their order."""
        yield from ()

    def headlines(self, summary: "Summary") -> Sequence[str]:
        """What it prints on a terminal."""
        return ()

    def files(self, summary: "Summary") -> Mapping[str, Mapping[str, object]]:
        """JSON files next to the report, by name."""
        return {}


class JudgedKind(QuestionKind, ABC, Generic[F_co]):
    """A kind that judges one comparison at a time."""

    kind: str
    """``Comparison.kind`` of its comparisons."""
    measurement: str
    """What the cells of its comparisons measure."""

    @abstractmethod
    def judge(self, store: Store, comparison: Comparison) -> F_co:
        """Judge one comparison from the records alone: no training, no torch."""

    def answer(
        self,
        study: Folder,
        question: Comparison,
        rungs: Sequence[AxisPoint],
        arms: Sequence[AnyArm],
        steps: tuple[int, ...] = (),
        *,
        replicates: int = 0,
    ) -> F_co:
        """Measure the arms at the looks of the question until one is not INCONCLUSIVE, and save the answer.

        A question that is judged once has no looks; ``replicates`` then says how many replicates to measure.
        """
        looks = (replicates,) if replicates else question.looks
        with study.asking(question):
            for sides in study.rounds(self.measurement, rungs, arms, looks, steps):
                found = self.judge(study.store, replace(question, sides=sides))
                if found.verdict is not Verdict.INCONCLUSIVE:
                    break
            study.save(found.comparison)
        return found

    def find(self, store: Store, comparisons: Sequence[Comparison], known: Findings) -> tuple[F_co, ...]:
        """Judge its comparisons. StoreError, one line, names the one whose cells are missing or do not fit."""
        return tuple(self._judge(store, c) for c in comparisons if c.kind == self.kind)

    def _judge(self, store: Store, comparison: Comparison) -> F_co:
        try:
            require_evidence(store, comparison, self.measurement)
            return self.judge(store, comparison)
        except (MueCheckError, KeyError, ValueError, IndexError) as error:
            what = str(error) if isinstance(error, MueCheckError) else f"its cells do not fit the question ({error!r})"
            line = " ".join(what.split())
            raise StoreError(f"cannot judge {comparison.name!r}: {line}; run the study again") from None
