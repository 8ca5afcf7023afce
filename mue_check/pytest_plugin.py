"""The pytest plugin: options, fixtures and verdicts for the suites. Thin, and silent in everybody else's runs.

It is loaded in every pytest run where mue_check is installed, so it imports nothing heavy at the top and
does nothing until ``suites/conftest.py`` calls ``activate``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import MueCheckError
from mue_check.questions.case import Case, TargetCase
from mue_check.suite import cluster, conformance, rerun
from mue_check.suite.cases import MARKER, fixture_cases
from mue_check.suite.gpus import give_gpus
from mue_check.suite.live_results import Teller
from mue_check.suite.progress import Progress, is_wanted
from mue_check.suite.schedule import deal
from mue_check.suite.settings import Settings, add_options, read_settings, trains_nothing

if TYPE_CHECKING:
    from mue_check.questions.question import Finding
    from mue_check.questions.study import Study

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
    """Start workers where an option asks for them: before xdist looks whether there are any."""
    try:
        cluster.start(config)
        give_gpus(config)
    except MueCheckError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("gpus", None):
        rerun.register(config)


def activate(config: pytest.Config) -> None:
    """Check the options and make the study folder; called by the suites' conftest in every process."""
    if _SETTINGS in config.stash:
        return
    try:
        config.stash[_SETTINGS] = read_settings(config)
        cluster.join(config)
    except MueCheckError as error:
        raise pytest.UsageError(str(error)) from None
    rerun.register(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Teller(config), "mue_check-teller")
    # few long tests: an idle worker takes over what a busy one has queued
    if getattr(config.option, "dist", None) == "load":
        config.option.dist = "worksteal"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Show how far the workers are, now that there is a terminal to show it on."""
    config = session.config
    if _SETTINGS in config.stash and is_wanted(config):
        config.pluginmanager.register(Progress(config, config.stash[_SETTINGS].root), "mue_check-progress")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What people must know of their own router before they wait for it."""
    settings = config.stash.get(_SETTINGS, None)
    notices = [f"mue_check: {notice}" for notice in settings.notices] if settings else []
    return [*cluster.header(config), *notices]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per case of the fixture that it asks for."""
    settings = metafunc.config.stash.get(_SETTINGS, None)
    if conformance.FIXTURE in metafunc.fixturenames:
        try:
            checks = [] if settings is None else conformance.router_checks(settings)
        except MueCheckError as error:
            raise pytest.UsageError(str(error)) from None
        metafunc.parametrize(conformance.FIXTURE, checks)
    if settings is None:
        return
    marker = metafunc.definition.get_closest_marker("axis")
    for fixture, cases in fixture_cases(metafunc.fixturenames, settings, marker):
        metafunc.parametrize(fixture, cases, ids=[case.label for case in cases])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest first, dealt out to the workers; axes that were not asked for fall away."""
    settings = config.stash.get(_SETTINGS, None)
    if settings is None:
        return
    wanted: list[pytest.Item] = []
    unwanted: list[pytest.Item] = []
    for item in items:
        marker = item.get_closest_marker("axis")
        asked = marker is None or marker.args[0] in settings.axes
        # pytest makes one item of no case at all
        (wanted if asked and "NOTSET" not in item.name else unwanted).append(item)
    config.hook.pytest_deselected(items=unwanted)
    items[:] = deal(wanted, getattr(config, "workerinput", {}).get("workercount", 1), _work)


def _work(item: pytest.Item) -> float:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    cases = [case for case in params.values() if isinstance(case, Case)]
    return cases[0].work if cases else 0.0


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """The checked options of this run."""
    return settings_of(request.config)


@pytest.fixture
def study(settings: Settings, request: pytest.FixtureRequest) -> Study:
    """The study of the test's corpus under the rule of ``--rule``."""
    case = next(value for value in request.node.callspec.params.values() if isinstance(value, Case))
    return settings.study(case.corpus, case.rule, request.node.nodeid)


Expect = Callable[["Finding"], None]


@pytest.fixture
def expect(settings: Settings, record_property: Callable[[str, object], None]) -> Expect:
    """Hold a verdict against the one that its question expects, and say in full what was measured if they differ."""

    from mue_check.judge.verdict import meets

    def check(finding: Finding) -> None:
        for notice in settings.late_notices():
            record_property("notice", notice)
        comparison, verdict = finding.comparison, finding.verdict
        expected = " as expected" if comparison.is_control and verdict == comparison.expected else ""
        said = "measured" if verdict is None else f"{verdict}{expected}"
        record_property(comparison.name, f"{said}: {finding.measured}")
        if verdict is None or not comparison.expected or meets(verdict, comparison.expected):
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
        if verdict == "INCONCLUSIVE" and settings.allow_inconclusive:
            pytest.xfail(text)
        pytest.fail(text, pytrace=False)

    return check


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Draw the report and print its first table (in the controller alone)."""
    settings = config.stash.get(_SETTINGS, None)
    ran = any(terminalreporter.stats.get(key) for key in ("passed", "failed", "xfailed"))
    if settings is None or hasattr(config, "workerinput") or not ran or trains_nothing(config.args):
        return
    from mue_check.catalog import summarize, write_report
    from mue_check.questions.summary import verdict_lines

    terminalreporter.section("mue_check")
    if config.get_verbosity() < 0:  # then there was no header
        for notice in settings.notices:
            terminalreporter.line(notice)
    try:
        summary = summarize(settings.root)
        for line in verdict_lines(summary):
            terminalreporter.line(line)
        terminalreporter.line(f"report: {write_report(settings.root, summary)}")
    except MueCheckError as error:
        terminalreporter.line(f"no report: {error}")
