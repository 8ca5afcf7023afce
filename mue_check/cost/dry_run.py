"""Dry-run the suites: collect their tests with pytest, and ask every test's question of a simulated study."""

import contextlib
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mue_check.cost.simulated import NewCells, NotSimulated, SimulatedStore, SimulatedStudy, measured_spreads
from mue_check.errors import MueCheckError, SpecError, StoreError
from mue_check.pytest_plugin import settings_of
from mue_check.questions.case import Case
from mue_check.questions.question import Finding
from mue_check.study.comparison import Comparison
from mue_check.suite.folder import pytest_arguments
from mue_check.suite.settings import Settings


@dataclass(frozen=True, kw_only=True)
class DryTest:
    """One test: its node id, axis and question, the cells that no earlier test needs, and the drifts it would judge."""

    test: str
    axis: str
    question: str
    new: NewCells
    drifts: tuple[Comparison, ...]


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """A run of the suites: its checked options, and its tests in order."""

    settings: Settings
    tests: tuple[DryTest, ...]


def dry_run(arguments: Sequence[str], suites: Path | None = None) -> DryRun:
    """Dry-run ``mue_check suite ARGUMENTS``, or other ``suites`` than its own.

    SpecError with pytest's message if the arguments are wrong.
    """
    plugin, output, errors = _DryRunPlugin(), io.StringIO(), io.StringIO()
    # asserts are not rewritten: pytest would warn about modules that are imported already
    silent = ("--collect-only", "-qq", "--assert=plain")
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = pytest.main([*pytest_arguments(arguments, suites), *silent], plugins=[plugin])
    if plugin.error is not None:
        raise plugin.error
    if plugin.settings is None or code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        lines = [*errors.getvalue().splitlines(), *output.getvalue().splitlines()]
        raise SpecError(next((line.removeprefix("ERROR: ") for line in lines if line), f"pytest ended with {code}"))
    return DryRun(settings=plugin.settings, tests=tuple(plugin.tests))


@dataclass
class _DryRunPlugin:
    """The pytest plugin of one collection."""

    settings: Settings | None = None
    tests: list[DryTest] = field(default_factory=list)
    error: BaseException | None = None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        settings = settings_of(session.config)
        store = SimulatedStore(settings.root, measured_spreads())
        try:
            for item in session.items:
                assert isinstance(item, pytest.Function)
                self.tests.append(_dry_test(item, settings, store))
        except BaseException as error:  # pytest would replace it with its own message
            self.error = error
        self.settings = settings


def _dry_test(item: pytest.Function, settings: Settings, store: SimulatedStore) -> DryTest:
    params = dict(item.callspec.params) if hasattr(item, "callspec") else {}
    case = next((value for value in params.values() if isinstance(value, Case)), None)
    answers: list[Finding] = []
    if case is not None:
        study = SimulatedStudy.of(settings.study(case.corpus, case.rule, item.nodeid), store)
        values = {**params, "study": study, "expect": answers.append}
        try:
            item.function(**{name: values[name] for name in inspect.signature(item.function).parameters})
        except StoreError:
            raise
        except (NotSimulated, pytest.skip.Exception, pytest.fail.Exception, MueCheckError):
            pass  # its cells are known, however the question ends
    marker = item.get_closest_marker("axis")
    axis = case.ladder.axis if case else marker.args[0] if marker else "router"
    name = item.originalname.removeprefix("test_")
    module = item.path.stem.removeprefix("test_")
    return DryTest(
        test=item.nodeid,
        axis=axis,
        question=name if module in (axis, "router") else f"{module}: {name}",
        new=store.take_new(),
        drifts=tuple(answer.comparison for answer in answers if answer.comparison.kind == "drift"),
    )
