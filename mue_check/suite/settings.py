"""The options of ``pytest suites/``, and the checked settings of a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import ClaimError, SpecError, hide_secrets
from mue_check.suite import cluster
from mue_check.suite.folder import is_packaged
from mue_check.suite.gpus import add_gpu_options
from mue_check.suite.trimming import cut, parse_rungs, with_seeds

if TYPE_CHECKING:
    from mue_check.axes import Ladder, LadderUse
    from mue_check.models.user_router.trial import Trial
    from mue_check.questions.study import Study
    from mue_check.routing.claim import RoutingSpec
    from mue_check.routing.factory import Shape
    from mue_check.rules import Knob, Rule
    from mue_check.tiers import Tier


RUN = "mue_check_run"
"""Where a worker's input has the name of its run."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked command line of a run of the suites."""

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
    options: tuple[str, ...]
    program: tuple[str, ...]
    """What runs the suites: pytest, or mue_check where they are part of the installed package."""
    run: str
    """The run's name in the study (``questions.asked.new_run``), the same in all its workers."""
    candidate: str = "builtin:sigmoid_norm"
    """The router whose conformance is checked, named relative to ``folder``."""
    folder: Path = Path()
    claim: RoutingSpec | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    """Checks that are expected to fail, with the reasons."""
    rungs: int | None = None
    """How many targets of each ladder to measure; None for all."""
    knob: Knob | None = None
    """The value to sweep along every ladder; None for each ladder's own."""
    notices: tuple[str, ...] = ()
    """Notices about the user's router."""

    @property
    def routing(self) -> str:
        """The routing of the mixtures, as in ``--router`` without ``builtin:``."""
        return self.router + (f"+{self.balance}" if self.balance != "none" else "")

    def command(self, test: str) -> str:
        """The command that repeats a test, given its node id. It is stored, so it contains no secret."""
        return shlex.join(map(hide_secrets, [*self.program, test, *self.options]))

    def study(self, corpus: str, rule: Rule | None, test: str) -> Study:
        """The study for the test with that node id, under ``rule`` or else the rule of ``--rule``."""
        from mue_check.questions.study import Study

        return Study(
            root=self.root,
            tier=self.tier,
            corpus=corpus,
            rule=rule or self.rule,
            tolerance=self.tolerance,
            command=self.command(test),
            routing=self.routing,
            run=self.run,
        )

    def late_notices(self) -> tuple[str, ...]:
        """Notices about the user's router that came up during training, each once per process."""
        from mue_check.routing.variants import is_users

        if not is_users(self.router):
            return ()
        from mue_check.models.user_router.loaded import loaded_router

        return loaded_router(self.router).new_notices()

    def ladders(self, axis: str, corpus: str, question: LadderUse = "drift") -> tuple[Ladder, ...]:
        """The tier's ladders of an axis, with the routing and composite target of the command line."""
        from mue_check.axes import heldout_ladder
        from mue_check.spec import Scenario, parse_scenario

        ladders = self.tier.ladders(axis, question)
        if axis == "heldout" and self.heldout is not None and ladders:
            reference = Scenario.of(ladders[0].reference.model, self.tier.task(corpus).train)
            ladder = heldout_ladder(reference, parse_scenario(self.heldout, default=reference), own=True)
            ladders = (ladder,) if question in ladder.uses else ()
        routed = (ladder.with_routing(self.router, self.balance) for ladder in ladders)
        return tuple(cut(ladder, self.rungs) for ladder in routed if ladder is not None and question in ladder.uses)


def add_options(parser: pytest.Parser) -> None:
    """The options of ``pytest suites/``."""
    group = parser.getgroup("mue_check", "transfer suites of mue_check (pytest suites/)")
    group.addoption(
        "--tier", help="size of the run: smoke (default), cpu, lab (sigma_0), gpu (default with --gpus), full"
    )
    add_gpu_options(group)
    group.addoption("--axes", metavar="A,B", help="run only these axes, e.g. width,activated_experts (default: all)")
    group.addoption(
        "--corpus", metavar="NAME|FILE.bin", help="markov, pairs, docstrings or a token file (default: the tier's)"
    )
    group.addoption("--rule", default="complete_mue", help="transfer rule under test (default: complete_mue)")
    group.addoption(
        "--router",
        metavar="builtin:NAME[+BALANCE]|MODULE:FACTORY|FILE.py:FACTORY",
        help="routing in every mixture: a variant, e.g. builtin:deepseek_v3+selection_bias, or your own router, "
        "built by factory(d_model, n_experts, top_k) (default: the rule's own)",
    )
    group.addoption("--claim", metavar="FILE.toml", help="what your router claims (default: its routing_spec)")
    group.addoption("--expected", metavar="FILE.toml", help='expected failures of suites/test_router.py: id = "reason"')
    group.addoption("--heldout", metavar="SPEC", help="the composite target of suites/test_heldout.py")
    group.addoption(
        "--beside", metavar="RULES", help="also measure these rules, e.g. standard,mup, without expecting a verdict"
    )
    group.addoption(
        "--knob",
        metavar="KNOB",
        help="sweep this value along every ladder: lr, lr:feed_forward, multiplier:attention, ... (default: each "
        "ladder's own)",
    )
    group.addoption("--seeds", metavar="LOW[:HIGH]", help="seeds per drift, and up to how many while it is open")
    group.addoption("--rungs", metavar="N", help="measure only the first N targets of each ladder (default: all)")
    group.addoption("--study", metavar="DIR", help="folder for records and report (default: reports/<tier>)")
    group.addoption("--precision", metavar="fp32|tf32|bf16", help="precision of matrix products (default: the tier's)")
    group.addoption("--tolerance", type=float, metavar="OCTAVES", help="largest harmless drift (default: the tier's)")
    group.addoption("--allow-inconclusive", action="store_true", help="report INCONCLUSIVE as an expected failure")
    cluster.add_options(group)


def read_settings(config: pytest.Config) -> Settings:
    """Check every option, then make the study folder. MueCheckError on the first option that is wrong."""
    folder = Path(config.invocation_params.dir)
    with _isolated(config, folder) as trial:
        is_training = not trains_nothing(config.args)
        name = _name_elsewhere(config.getoption("router"), trial) if trial is not None and is_training else ""
        settings = _parse(config, folder)
        if name and name != settings.router:
            raise SpecError(
                f"--router {config.getoption('router')!r}: it behaves differently in another process, so that no run "
                "could be repeated: it must not depend on the order of a set, on time or on the process"
            )
        if is_training:
            settings = replace(settings, notices=_try_router(settings, config.getoption("router"), trial))
    _require_prescriptions(settings)
    if not config.option.collectonly:
        from mue_check.records import Store

        Store(settings.root).prepare()
        if is_training and not hasattr(config, "workerinput"):
            _require_same_router(settings, config.getoption("router"))
    return settings


def trains_nothing(arguments: Sequence[str]) -> bool:
    """Whether only conformance is checked. A router that cannot train then fails its checks rather than the run."""
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return bool(named) and all(name.endswith("test_router.py") for name in named)


def _parse(config: pytest.Config, folder: Path) -> Settings:
    """The settings, without notices. Loads a user's router, and has no other side effect."""
    from mue_check.catalog import parse_axes
    from mue_check.conformance.expected import read_expected
    from mue_check.judge.verdict import require_tolerance
    from mue_check.questions.asked import new_run
    from mue_check.rules import get_rule, parse_knob

    option = config.getoption
    rule, tier, claim = get_rule(option("rule")), _tier(config), _claim(config, folder)
    tolerance = option("tolerance")
    corpora = _corpora(option("corpus"), folder, tier)
    router, balance = _routing(option("router"), folder, claim, trains=not trains_nothing(config.args))
    told = _repeated_options(config, tier.name, rule.name)
    selected = (*map(str, config.args), option("keyword"), option("markexpr"), str(option("axes")))
    others = dict.fromkeys(name.strip() for name in (option("beside") or "").split(",") if name.strip())
    if rule.name in others:
        raise SpecError(f"--beside {rule.name}: that is the rule under test")
    return Settings(
        tier=tier,
        axes=parse_axes(option("axes")),
        corpora=corpora,
        rule=rule,
        root=folder / option("study") if option("study") else folder / "reports" / tier.name,
        tolerance=tier.tolerance if tolerance is None else require_tolerance(tolerance),
        allow_inconclusive=option("allow_inconclusive"),
        router=router,
        balance=balance,
        heldout=option("heldout"),
        beside=tuple(map(get_rule, others)),
        options=told,
        program=("mue_check", "suite") if is_packaged(config.rootpath) else ("pytest",),
        run=getattr(config, "workerinput", {}).get(RUN) or new_run(*selected, *told),
        candidate=(option("router") or "builtin:sigmoid_norm").partition("+")[0],
        folder=folder,
        claim=claim,
        rungs=parse_rungs(option("rungs")),
        knob=parse_knob(option("knob")) if option("knob") else None,
        expected=read_expected(folder / option("expected")) if option("expected") else {},
    )


def _tier(config: pytest.Config) -> Tier:
    """The tier with the seeds and the precision of the command line."""
    from mue_check.catalog import get_tier
    from mue_check.precision import require_precision
    from mue_check.tiers import require_device

    option = config.getoption
    tier = with_seeds(get_tier(option("tier") or ("gpu" if option("gpus") else "smoke")), option("seeds"))
    if not config.option.collectonly and option("cluster") is None:  # a cluster has its own devices
        require_device(tier)
    if option("precision") is not None:
        tier = replace(tier, precision=require_precision(option("precision"), tier.device))
    return tier


def _corpora(name: str | None, folder: Path, tier: Tier) -> tuple[str, ...]:
    """The tier's corpora, or the one of ``--corpus``."""
    from mue_check.data import data_maker, load_data

    if name is None:
        return tier.corpora
    if name.endswith(".bin"):
        name = str(folder / name)
        load_data(name).require_context(tier.task(name).train.context)
    else:
        data_maker(name)
    return (name,)


def _claim(config: pytest.Config, folder: Path) -> RoutingSpec | None:
    from mue_check.routing.claim import read_claim

    path = config.getoption("claim")
    if path and not users_router(config):
        raise SpecError("--claim: goes with a router of your own; a built-in one carries its claim")
    return read_claim(folder / path) if path else None


def _repeated_options(config: pytest.Config, tier: str, rule: str) -> tuple[str, ...]:
    """The options of the command that repeats a question."""
    kept = (
        "corpus",
        "precision",
        "tolerance",
        "router",
        "claim",
        "expected",
        "heldout",
        "beside",
        "seeds",
        "rungs",
        "knob",
    )
    given = {name: config.getoption(name) for name in (*kept, "study")}
    options = ["--tier", tier]
    options += [part for name, value in given.items() if value for part in (f"--{name}", str(value))]
    return (*options, *(["--rule", rule] if rule != "complete_mue" else []))


def users_router(config: pytest.Config) -> str | None:
    """The text of ``--router`` if it names a user's router."""
    text = config.getoption("router")
    return text if text and ":" in text and not text.startswith("builtin:") else None


def _routing(text: str | None, folder: Path, claim: RoutingSpec | None, *, trains: bool) -> tuple[str, str]:
    """Router and balance of ``builtin:NAME[+BALANCE]``. A user's router is loaded, and has no balance."""
    from mue_check.routing.variants import BALANCES, VARIANTS, get_variant

    if text is None:
        return "sigmoid_norm", "none"
    kind, colon, rest = text.rpartition(":")
    name, plus, balance = rest.partition("+")
    if not colon:
        names = ", ".join(VARIANTS)
        raise SpecError(f"--router {text!r}: write builtin:NAME, MODULE:FACTORY or FILE.py:FACTORY; NAMEs are {names}")
    if kind == "builtin":
        if balance and balance not in BALANCES:
            raise SpecError(f"--router {text!r}: unknown balance {balance!r}, allowed are {', '.join(BALANCES)}")
        return get_variant(name).name, balance or "none"
    if plus:
        raise SpecError(f"--router {text!r}: +{balance} goes with builtin:NAME only; your router balances itself")
    from mue_check.models.user_router.load import load_router

    with _named(text):
        return load_router(text, folder, claim, trains=trains).name, "none"


@contextmanager
def _named(router: str) -> Iterator[None]:
    """Turn what is wrong with a user's router into a usage error that names it."""
    try:
        yield
    except ClaimError as error:
        raise SpecError(f"--router {router!r}: {error}") from None


@contextmanager
def _isolated(config: pytest.Config, folder: Path) -> Iterator[Trial | None]:
    """A user's router in a separate process. None in workers, which start after it has been tried."""
    router = users_router(config)
    if router is None or hasattr(config, "workerinput"):
        yield None
        return
    from mue_check.models.user_router.trial import try_isolated

    with ExitStack() as stack:
        with _named(router):
            trial = stack.enter_context(try_isolated(router, folder, _claim(config, folder)))
        yield trial


def _name_elsewhere(text: str, trial: Trial) -> str:
    """A user's router called with fixed tokens in the trial's process: the name that it has there."""
    with _named(text):
        return trial.name()


def _try_router(settings: Settings, text: str | None, trial: Trial | None) -> tuple[str, ...]:
    """Call a user's router at every size that the run will use, before anything trains. Returns notices."""
    from mue_check.routing.variants import is_users

    if text is None or not is_users(settings.router):
        return ()
    from mue_check.models.user_router.load import try_router

    sizes = _sizes(settings)
    with _named(text):
        if trial is not None:
            trial.at(sizes)
        return try_router(settings.router, sizes, settings.tier.device)


def _require_same_router(settings: Settings, text: str | None) -> None:
    """SpecError if a user's router behaves differently than when the study was measured."""
    from mue_check.routing.variants import is_users

    if text is None or not is_users(settings.router):
        return
    from mue_check.execute.same_router import require_same_behavior

    with _named(text):
        require_same_behavior(settings.router, _sizes(settings), settings.root)


def _sizes(settings: Settings) -> list[Shape]:
    """Every size at which the run calls a user's router."""
    from mue_check.models.user_router.load import sizes_of

    questions: tuple[LadderUse, ...] = ("drift", "scales", "speed", "tune_once")
    ladders = [
        ladder
        for axis in settings.axes
        for corpus in settings.corpora
        for question in questions
        for ladder in settings.ladders(axis, corpus, question)
    ]
    return sizes_of(settings.router, (rung.model for ladder in ladders for rung in ladder.rungs))


def _require_prescriptions(settings: Settings) -> None:
    """MueCheckError if a target has an impossible routing, batch size or beta under the rule."""
    from mue_check.spec import Scenario

    for corpus in settings.corpora:
        for ladder in (ladder for axis in settings.axes for ladder in settings.ladders(axis, corpus)):
            task = settings.tier.task(corpus, ladder.regime)
            reference = Scenario.of(ladder.reference.model, task.train)
            for rung in ladder.targets:
                target = Scenario.of(rung.model, rung.train(task.train))
                settings.rule.prescribe(reference, target).values(task.base)
