"""Collect the suites as pytest does, and ask every test's question of an imagined study."""

import contextlib
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mue_check.cost.simulated import ImaginedStore, ImaginedStudy, Unforeseen, Wanted
from mue_check.cost.spreads import measured_spreads
from mue_check.errors import MueCheckError, SpecError, StoreError
from mue_check.pytest_plugin import settings_of
from mue_check.questions.case import Case
from mue_check.questions.comparison import Comparison
from mue_check.questions.question import Finding
from mue_check.suite.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One test: its node id, the axis and the question that it belongs to, and what it wants beyond those before it.

    ``drifts`` are the drifts that it would judge.
    """

    test: str
    axis: str
    question: str
    wanted: Wanted
    drifts: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A run of the suites: its options as checked, and its tests in their order."""

    settings: Settings
    asked: tuple[Asked, ...]


def collect(arguments: Sequence[str]) -> Collected:
    """What ``pytest ARGUMENTS`` would ask. SpecError with pytest's own words where the arguments are wrong."""
    asker, said, wrong = _Asker(), io.StringIO(), io.StringIO()
    # no rewriting of asserts: modules that are loaded already would be warned of
    silent = ("--collect-only", "-qq", "-p", "no:cacheprovider", "--assert=plain")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        code = pytest.main([*arguments, *silent], plugins=[asker])
    if asker.error is not None:
        raise asker.error
    if asker.settings is None or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        lines = [*wrong.getvalue().splitlines(), *said.getvalue().splitlines()]
        raise SpecError(next((line.removeprefix("ERROR: ") for line in lines if line), f"pytest ended with {code}"))
    return Collected(settings=asker.settings, asked=tuple(asker.asked))


@dataclass
class _Asker:
    """The pytest plugin of one collection."""

    settings: Settings | None = None
    asked: list[Asked] = field(default_factory=list)
    error: BaseException | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        settings = settings_of(session.config)
        store = ImaginedStore(settings.root, measured_spreads())
        try:
            for item in session.items:
                assert isinstance(item, pytest.Function)
                self.asked.append(_ask(item, settings, store))
        except BaseException as error:  # pytest would bury it in its own words
            self.error = error
        self.settings = settings


def _ask(item: pytest.Function, settings: Settings, store: ImaginedStore) -> Asked:
    params = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    case = next((value for value in params.values() if isinstance(value, Case)), None)
    answers: list[Finding] = []
    if case is not None:
        study = ImaginedStudy.of(settings.study(case.corpus, case.rule, item.nodeid), store)
        given = {**params, "study": study, "expect": answers.append}
        wanted = inspect.signature(item.function).parameters
        try:
            item.function(**{name: given[name] for name in wanted})
        except StoreError:
            raise
        except (Unforeseen, pytest.skip.Exception, pytest.fail.Exception, MueCheckError):
            pass  # how the question ends is no matter: its cells are known
    marker = item.get_closest_marker("axis")
    axis = case.ladder.axis if case else marker.args[0] if marker else "router"
    name = item.originalname.removeprefix("test_")
    module = item.path.stem.removeprefix("test_")
    question = name if module in (axis, "router") else f"{module}: {name}"
    drifts = tuple(answer.comparison for answer in answers if answer.comparison.kind == "drift")
    return Asked(test=item.nodeid, axis=axis, question=question, wanted=store.take(), drifts=drifts)
