"""The pytest plugin: options, fixtures and verdicts for the suites. Thin, and silent in everybody else's runs.

It is loaded in every pytest run where mue_check is installed, so it imports nothing heavy at the top and
does nothing until ``suites/conftest.py`` calls ``activate``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import MueCheckError

if TYPE_CHECKING:
    from mue_check.axes import Ladder, Question, Rung
    from mue_check.rules import Rule
    from mue_check.study.answer import Answer
    from mue_check.study.setting import Study
    from mue_check.tiers import Tier


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of one run of the suites, checked."""

    tier: Tier
    axes: tuple[str, ...]
    corpora: tuple[str, ...]
    rule: Rule
    root: Path
    tolerance: float
    allow_inconclusive: bool
    router: str
    balance: str
    heldout: str | None
    beside: tuple[Rule, ...]
    command: str

    @property
    def routing(self) -> str:
        """How the mixtures route, as ``--router`` spells it without ``builtin:``."""
        return self.router + (f"+{self.balance}" if self.balance != "none" else "")

    def ladders(self, axis: str, corpus: str, question: Question = "drift") -> tuple[Ladder, ...]:
        """The tier's ladders of an axis with the routing and the composite target that were asked for."""
        from mue_check.axes import heldout_ladder
        from mue_check.spec import Scenario, parse_scenario

        ladders = self.tier.ladders(axis, question)
        if axis == "heldout" and self.heldout is not None:
            ladder = ladders[0]
            reference = Scenario.of(ladder.reference.model, self.tier.task(corpus, ladder.regime).train)
            ladders = (heldout_ladder(reference, parse_scenario(self.heldout, default=reference)),)
        routed = (ladder.with_routing(self.router, self.balance) for ladder in ladders)
        return tuple(ladder for ladder in routed if ladder.targets)


_SETTINGS = pytest.StashKey[Settings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of ``pytest suites/``."""
    group = parser.getgroup("mue_check", "transfer suites of mue_check (pytest suites/)")
    group.addoption("--tier", default="smoke", help="how large and how long: smoke (default), cpu, gpu, full")
    group.addoption("--axes", metavar="A,B", help="only these axes, e.g. width,activated_experts (default: all)")
    group.addoption(
        "--corpus", metavar="NAME|FILE.bin", help="markov, docstrings or a token file (default: the tier's)"
    )
    group.addoption("--rule", default="complete_mue", help="transfer rule under test (default: complete_mue)")
    group.addoption(
        "--router",
        metavar="builtin:NAME[+BALANCE]",
        help="routing variant in every mixture, e.g. builtin:deepseek_v3+selection_bias (default: the rule's own)",
    )
    group.addoption("--heldout", metavar="SPEC", help="the composite target of suites/test_heldout.py")
    group.addoption(
        "--beside", metavar="RULES", help="measure these rules too, e.g. standard,mup: nothing is expected of them"
    )
    group.addoption("--study", metavar="DIR", help="folder of records and report (default: reports/<tier>)")
    group.addoption("--tolerance", type=float, metavar="OCTAVES", help="drift that is harmless (default: the tier's)")
    group.addoption(
        "--allow-inconclusive", action="store_true", help="INCONCLUSIVE is an expected failure instead of a failure"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "axis(name, question=drift|scales|speed, corpora=N, without=CORPORA, ladder=NAME, targets=N): what a suite's "
        "test is about; on the first N corpora, one ladder and its first N targets alone",
    )


def activate(config: pytest.Config) -> None:
    """Check the options and make the study folder; called by the suites' conftest in every process."""
    if _SETTINGS in config.stash:
        return
    try:
        config.stash[_SETTINGS] = _settings(config)
    except MueCheckError as error:
        raise pytest.UsageError(str(error)) from None
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Teller(config), "mue_check-teller")
    # few long tests: an idle worker takes over what a busy one has queued
    if getattr(config.option, "dist", None) == "load":
        config.option.dist = "worksteal"


def _settings(config: pytest.Config) -> Settings:
    from mue_check.axes import parse_axes
    from mue_check.data import CORPORA, load_corpus
    from mue_check.errors import SpecError
    from mue_check.records import Store
    from mue_check.rules import get_rule
    from mue_check.tiers import get_tier

    option = config.getoption
    tier, rule, axes = get_tier(option("tier")), get_rule(option("rule")), parse_axes(option("axes"))
    if tier.device == "cuda" and shutil.which("nvidia-smi") is None:
        raise SpecError(f"--tier {tier.name} needs a CUDA device and this machine has none: use --tier smoke or cpu")
    corpora = tier.corpora
    if (name := option("corpus")) is not None:
        if name.endswith(".bin"):
            name = str(Path(config.invocation_params.dir, name))
            load_corpus(name).require_context(tier.task(name).train.context)
        elif name not in CORPORA:
            raise SpecError(f"unknown corpus {name!r}: allowed are {', '.join(CORPORA)}, or a token file FILE.bin")
        corpora = (name,)
    tolerance = option("tolerance")
    if tolerance is not None and not 0 < tolerance < 100:
        raise SpecError(f"--tolerance {tolerance}: must be above 0 octaves")
    router, balance = _routing(option("router"))
    given = option("study")
    root = Path(config.invocation_params.dir, given) if given else config.rootpath / "reports" / tier.name
    parts = ["pytest suites/", f"--tier {tier.name}"]
    parts += [
        f"--{key} {option(key)}"
        for key in ("corpus", "tolerance", "router", "heldout", "beside")
        if option(key) is not None
    ]
    parts += [f"--rule {rule.name}"] if rule.name != "complete_mue" else []
    parts += [f"--study {given}"] if given else []
    settings = Settings(
        tier=tier,
        axes=axes,
        corpora=corpora,
        rule=rule,
        root=root,
        tolerance=tier.tolerance if tolerance is None else tolerance,
        allow_inconclusive=option("allow_inconclusive"),
        router=router,
        balance=balance,
        heldout=option("heldout"),
        beside=tuple(get_rule(name.strip()) for name in (option("beside") or "").split(",") if name.strip()),
        command=" ".join(parts),
    )
    # a routing or a composite that cannot be built is a usage error
    for corpus in corpora:
        for ladder in (ladder for axis in axes for ladder in settings.ladders(axis, corpus)):
            for rung in ladder.rungs:
                rung.train(tier.task(corpus, ladder.regime).train)
    Store(root).prepare()
    return settings


def _routing(text: str | None) -> tuple[str, str]:
    """Router and balance of ``builtin:NAME[+BALANCE]``."""
    from mue_check.errors import SpecError
    from mue_check.routers import BALANCES, ROUTERS, get_router

    if text is None:
        return "sigmoid_norm", "none"
    kind, _, rest = text.partition(":")
    name, _, balance = rest.partition("+")
    if kind != "builtin":
        raise SpecError(f"--router {text!r}: write builtin:NAME with NAME one of {', '.join(ROUTERS)}")
    if balance and balance not in BALANCES:
        raise SpecError(f"--router {text!r}: unknown balance {balance!r}, allowed are {', '.join(BALANCES)}")
    return get_router(name).name, balance or "none"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one suite test is about: a corpus, a ladder and, where it has them, a target on it and another rule."""

    corpus: str
    ladder: Ladder
    target: Rung | None = None
    rule: Rule | None = None

    @property
    def label(self) -> str:
        """The test's id."""
        target, rule = [self.target.label] if self.target else [], [self.rule.name] if self.rule else []
        return "-".join([Path(self.corpus).name, self.ladder.name, *target, *rule])

    @property
    def work(self) -> float:
        """Roughly how long it takes, for the order of tests: longest first."""
        rungs = [self.target] if self.target else self.ladder.rungs
        work = max((r.model.active_parameters + r.model.parameters / 3) * r.batch * r.steps for r in rungs)
        return work * (1.0 if self.target else 0.01)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per corpus and ladder of scales (``ladder_case``), per corpus, ladder and target (``target_case``), or
    per rule of ``--beside`` and every target (``rule_case``) or ladder of scales (``rule_ladder_case``)."""
    makers = {
        "ladder_case": _ladder_cases,
        "target_case": _target_cases,
        "rule_case": _rule_cases,
        "rule_ladder_case": _rule_ladder_cases,
    }
    settings = metafunc.config.stash.get(_SETTINGS, None)
    for fixture, make in makers.items():
        if fixture in metafunc.fixturenames:
            cases = [] if settings is None else make(settings, metafunc.definition.get_closest_marker("axis"))
            metafunc.parametrize(fixture, cases, ids=[case.label for case in cases])


def _ladder_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    return [Case(corpus=corpus, ladder=ladder) for corpus, ladder in _asked(settings, marker, "scales")]


def _target_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    first = marker.kwargs.get("targets") if marker else None
    return [
        Case(corpus=corpus, ladder=ladder, target=target)
        for corpus, ladder in _asked(settings, marker, "drift")
        for target in ladder.targets[:first]
    ]


def _rule_cases(settings: Settings, marker: pytest.Mark | None) -> list[Case]:
    corpus = settings.corpora[0]
    return [
        Case(corpus=corpus, ladder=ladder, target=target, rule=rule)
        for axis in settings.axes
        for ladder in settings.ladders(axis, corpus)
        for target in ladder.targets
        for rule in settings.beside
    ]


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
    corpora = [name for name in settings.corpora if name not in wanted.get("without", ())]
    for corpus in corpora[: wanted.get("corpora")]:
        for ladder in settings.ladders(marker.args[0], corpus, wanted.get("question", question)):
            if wanted.get("ladder") in (None, ladder.name):
                yield corpus, ladder


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest first, dealt out to the workers like cards; axes that were not asked for fall away."""
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
    wanted.sort(key=_work, reverse=True)
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    # xdist gives each worker a block of neighbours to begin with
    items[:] = [item for first in range(workers) for item in wanted[first::workers]]


def _work(item: pytest.Item) -> float:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    cases = [case for case in params.values() if isinstance(case, Case)]
    return cases[0].work if cases else 0.0


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """The checked options of this run."""
    return request.config.stash[_SETTINGS]


@pytest.fixture
def study(settings: Settings, request: pytest.FixtureRequest) -> Study:
    """The study of the test's corpus under the rule of ``--rule``."""
    from mue_check.study.setting import Study

    case = next(value for value in request.node.callspec.params.values() if isinstance(value, Case))
    return Study(
        root=settings.root,
        tier=settings.tier,
        corpus=case.corpus,
        rule=case.rule or settings.rule,
        tolerance=settings.tolerance,
        command=f"{settings.command} -k '{request.node.originalname} and {case.label}'",
        routing=settings.routing,
    )


Expect = Callable[["Answer[object]"], None]


@pytest.fixture
def expect(settings: Settings, record_property: Callable[[str, object], None]) -> Expect:
    """Hold a verdict against the one that its question expects, and say in full what was measured if they differ."""

    from mue_check.judge.verdict import meets

    def check(answer: Answer[object]) -> None:
        comparison, verdict = answer.comparison, answer.verdict
        expected = " as expected" if comparison.is_control and verdict == comparison.expected else ""
        said = "measured" if verdict is None else f"{verdict}{expected}"
        record_property(comparison.name, f"{said}: {answer.measured}")
        if verdict is None or not comparison.expected or meets(verdict, comparison.expected):
            return
        models = "; ".join(f"{side.label}: {side.model}" for side in comparison.sides)
        text = "\n".join(
            [
                f"{verdict} where {comparison.expected} was expected: {comparison.name}",
                f"measured: {answer.measured}",
                f"tolerance: +-{comparison.tolerance:g}",
                f"rule {comparison.rule}, corpus {comparison.corpus}, tier {comparison.tier}; {models}",
                f"again: {comparison.command}",
            ]
        )
        if verdict == "INCONCLUSIVE" and settings.allow_inconclusive:
            pytest.xfail(text)
        pytest.fail(text, pytrace=False)

    return check


class Teller:
    """Says each answer as it comes, in place of a dot: the suites run for minutes. Silent with -q, gives way to -v."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def answers(self, report: pytest.TestReport | pytest.CollectReport) -> list[str]:
        """A line for each question that this finished test answered; of several laws the first stands for all."""
        if not isinstance(report, pytest.TestReport) or report.when != "call" or self.config.get_verbosity() != 0:
            return []
        return [f"{name}: {str(value).splitlines()[0]}" for name, value in report.user_properties]

    def pytest_report_teststatus(self, report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
        """No letter for a test whose answer is printed."""
        return ("passed", "", "") if report.passed and self.answers(report) else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the answers."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is None:
            return
        for line in self.answers(report):
            terminal.ensure_newline()
            terminal.write_line(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Draw the report and print its first table (in the controller alone)."""
    settings = config.stash.get(_SETTINGS, None)
    ran = any(terminalreporter.stats.get(key) for key in ("passed", "failed", "xfailed"))
    if settings is None or hasattr(config, "workerinput") or not ran:
        return
    from mue_check.report import summarize, verdict_lines, write_report

    terminalreporter.section("mue_check")
    try:
        summary = summarize(settings.root)
        for line in verdict_lines(summary):
            terminalreporter.line(line)
        terminalreporter.line(f"report: {write_report(settings.root, summary)}")
    except MueCheckError as error:
        terminalreporter.line(f"no report: {error}")
