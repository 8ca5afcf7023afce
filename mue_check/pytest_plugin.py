"""The pytest plugin: options, fixtures and verdicts of the suites.

It is loaded by ``mue_check suite``, and by the conftest.py at the root of a checkout, also for its tests. So it imports
nothing heavy at the top and does nothing until ``suites/conftest.py`` calls ``activate``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import MueCheckError
from mue_check.questions.case import Case, TargetCase
from mue_check.suite import cluster, rerun
from mue_check.suite.cases import MARKER, ROUTER_CHECK, fixture_cases, router_checks
from mue_check.suite.ending import Ending
from mue_check.suite.gpus import give_gpus
from mue_check.suite.progress import Forecast, LiveResults, Progress, shows_progress
from mue_check.suite.router_option import users_router
from mue_check.suite.settings import RUN, Settings, add_options, read_settings
from mue_check.suite.workers import hand_out_one_by_one, keep_apart
from mue_check.user_code import one_line

if TYPE_CHECKING:
    from xdist.workermanage import WorkerController

    from mue_check.questions.question import Finding
    from mue_check.study.folder import Study

__all__ = ["Case", "Expect", "TargetCase", "activate"]

_SETTINGS = pytest.StashKey[Settings]()


def settings_of(config: pytest.Config) -> Settings:
    """The checked options of a run of the suites."""
    return config.stash[_SETTINGS]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``pytest suites/``."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Request workers for the options that need them, before xdist reads its own options."""
    try:
        cluster.start(config)
        give_gpus(config)
        if router := users_router(config):
            keep_apart(config, router)
    except MueCheckError as error:
        raise pytest.UsageError(one_line(str(error))) from None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("gpus", None):
        rerun.register(config)


def activate(config: pytest.Config) -> None:
    """Check the options and make the study folder. The suites' conftest calls this in every process."""
    if _SETTINGS in config.stash:
        return
    try:
        config.stash[_SETTINGS] = read_settings(config)
        cluster.join(config)
    except MueCheckError as error:
        raise pytest.UsageError(one_line(str(error))) from None
    rerun.register(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(LiveResults(config), "mue_check-live-results")
        config.pluginmanager.register(Ending(config, config.stash[_SETTINGS]), "mue_check-ending")
    hand_out_one_by_one(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """Tell a worker which run it belongs to."""
    if settings := node.config.stash.get(_SETTINGS, None):
        node.workerinput[RUN] = settings.run


def pytest_sessionstart(session: pytest.Session) -> None:
    """Display progress, now that it is known whether there is a terminal."""
    config = session.config
    if _SETTINGS in config.stash and shows_progress(config):
        forecast = Forecast(config.invocation_params.args)
        progress = Progress(config, config.stash[_SETTINGS].root, forecast)
        config.pluginmanager.register(progress, "mue_check-progress")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The cluster, and notices about the user's router."""
    settings = config.stash.get(_SETTINGS, None)
    notices = [f"mue_check: {notice}" for notice in settings.notices] if settings else []
    return [*cluster.header(config), *notices]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of its fixture."""
    settings = metafunc.config.stash.get(_SETTINGS, None)
    if ROUTER_CHECK in metafunc.fixturenames:
        try:
            checks = [] if settings is None else router_checks(settings, metafunc.config)
        except MueCheckError as error:
            raise pytest.UsageError(one_line(str(error))) from None
        metafunc.parametrize(ROUTER_CHECK, checks)
    if settings is None:
        return
    marker = metafunc.definition.get_closest_marker("axis")
    for fixture, cases in fixture_cases(metafunc.fixturenames, settings, marker):
        metafunc.parametrize(fixture, cases, ids=[case.label for case in cases])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort tests longest first, and deselect axes that were not requested."""
    settings = config.stash.get(_SETTINGS, None)
    if settings is None:
        return
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        marker = item.get_closest_marker("axis")
        requested = marker is None or marker.args[0] in settings.axes
        # pytest makes one item for an empty list of cases
        (kept if requested and "NOTSET" not in item.name else deselected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = sorted(kept, key=_work, reverse=True)


def _work(item: pytest.Item) -> float:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    cases = [case for case in params.values() if isinstance(case, Case)]
    return cases[0].work if cases else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a test that would end the run: the measured code may call ``pytest.exit``, even with exit code 0."""
    try:
        return (yield)
    except pytest.exit.Exception as error:
        if _SETTINGS not in pyfuncitem.config.stash:
            raise
        pytest.fail(f"pytest.exit was called in a test: {error}")


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """The checked options of this run."""
    return settings_of(request.config)


@pytest.fixture
def study(settings: Settings, request: pytest.FixtureRequest) -> Study:
    """The study of the test's corpus and rule."""
    case = next(value for value in request.node.callspec.params.values() if isinstance(value, Case))
    return settings.study(case.corpus, case.rule, request.node.nodeid)


Expect = Callable[["Finding"], None]


@pytest.fixture
def expect(settings: Settings, record_property: Callable[[str, object], None]) -> Expect:
    """Check a verdict against the expected one, and fail with everything that was measured if they differ."""
    from mue_check.judge.verdict import meets

    def check(finding: Finding) -> None:
        for notice in settings.late_notices():
            record_property("notice", notice)
        comparison, verdict = finding.comparison, finding.verdict
        expected = " as expected" if comparison.is_control and verdict == comparison.expected else ""
        result = "measured" if verdict is None else f"{verdict}{expected}"
        record_property(comparison.name, f"{result}: {finding.measured.removeprefix(f'{verdict}: ')}")
        if not comparison.expected or (verdict is not None and meets(verdict, comparison.expected)):
            return
        models = "; ".join(f"{side.label}: {side.model}" for side in comparison.sides)
        text = "\n".join(
            [
                f"{verdict} where {comparison.expected} was expected: {comparison.name}",
                f"measured: {finding.measured}",
                f"tolerance: +-{comparison.tolerance:g}",
                f"rule {comparison.rule}, corpus {comparison.corpus}, tier {comparison.tier}; {models}",
                f"again: {comparison.command}",
            ]
        )
        if verdict == "INCONCLUSIVE" and settings.allow_inconclusive and not comparison.is_control:
            pytest.xfail(text)
        pytest.fail(text, pytrace=False)

    return check
