"""The options of ``pytest suites/``, and the checked command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.suite import cluster
from mue_check.suite.gpus import add_gpu_options
from mue_check.suite.trimming import cut, parse_rungs, with_seeds

if TYPE_CHECKING:
    from mue_check.axes import Ladder, Question
    from mue_check.models.user_router.trial import Trial
    from mue_check.questions.study import Study
    from mue_check.routing.claim import RoutingSpec
    from mue_check.rules import Rule
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
    options: tuple[str, ...]
    candidate: str = "builtin:sigmoid_norm"
    """The router whose conformance is asked, as it was named in ``folder``."""
    folder: Path = Path()
    claim: RoutingSpec | None = None
    expected: Mapping[str, str] = field(default_factory=dict)
    """Checks that are expected to fail, and why."""
    rungs: int | None = None
    """How many targets of each ladder are asked; None for all."""
    notices: tuple[str, ...] = ()
    """What people must know of their own router."""

    @property
    def routing(self) -> str:
        """How the mixtures route, as ``--router`` spells it without ``builtin:``."""
        return self.router + (f"+{self.balance}" if self.balance != "none" else "")

    def command(self, test: str) -> str:
        """What asks a test's question again; ``test`` is its node id."""
        return shlex.join(["pytest", test, *self.options])

    def study(self, corpus: str, rule: Rule | None, test: str) -> Study:
        """The study that a test asks, under the rule of ``--rule`` unless it has another; ``test`` is its node id."""
        from mue_check.questions.study import Study

        return Study(
            root=self.root,
            tier=self.tier,
            corpus=corpus,
            rule=rule or self.rule,
            tolerance=self.tolerance,
            command=self.command(test),
            routing=self.routing,
        )

    def late_notices(self) -> tuple[str, ...]:
        """What people must know of their own router and was found while it trained, each once in a process."""
        from mue_check.routing.variants import is_users

        if not is_users(self.router):
            return ()
        from mue_check.models.user_router.loaded import loaded_router

        return loaded_router(self.router).new_notices()

    def ladders(self, axis: str, corpus: str, question: Question = "drift") -> tuple[Ladder, ...]:
        """The tier's ladders of an axis with the routing and the composite target that were asked for."""
        from mue_check.axes import heldout_ladder
        from mue_check.spec import Scenario, parse_scenario

        ladders = self.tier.ladders(axis, question)
        if axis == "heldout" and self.heldout is not None and ladders:
            reference = Scenario.of(ladders[0].reference.model, self.tier.task(corpus).train)
            ladder = heldout_ladder(reference, parse_scenario(self.heldout, default=reference), own=True)
            ladders = (ladder,) if question in ladder.asks else ()
        routed = (ladder.with_routing(self.router, self.balance) for ladder in ladders)
        return tuple(cut(ladder, self.rungs) for ladder in routed if ladder is not None and question in ladder.asks)


def add_options(parser: pytest.Parser) -> None:
    """The options of ``pytest suites/``."""
    group = parser.getgroup("mue_check", "transfer suites of mue_check (pytest suites/)")
    group.addoption(
        "--tier", help="how large and how long: smoke (default), cpu, lab (sigma_0), gpu (default with --gpus), full"
    )
    add_gpu_options(group)
    group.addoption("--axes", metavar="A,B", help="only these axes, e.g. width,activated_experts (default: all)")
    group.addoption(
        "--corpus", metavar="NAME|FILE.bin", help="markov, docstrings or a token file (default: the tier's)"
    )
    group.addoption("--rule", default="complete_mue", help="transfer rule under test (default: complete_mue)")
    group.addoption(
        "--router",
        metavar="builtin:NAME[+BALANCE]|MODULE:FACTORY|FILE.py:FACTORY",
        help="routing in every mixture: a variant, e.g. builtin:deepseek_v3+selection_bias, or your own router, "
        "made by factory(d_model, n_experts, top_k) (default: the rule's own)",
    )
    group.addoption("--claim", metavar="FILE.toml", help="what your router claims (default: its routing_spec)")
    group.addoption("--expected", metavar="FILE.toml", help='checks of suites/test_router.py that fail: id = "reason"')
    group.addoption("--heldout", metavar="SPEC", help="the composite target of suites/test_heldout.py")
    group.addoption(
        "--beside", metavar="RULES", help="measure these rules too, e.g. standard,mup: nothing is expected of them"
    )
    group.addoption("--seeds", metavar="LOW[:HIGH]", help="of each drift, and up to how many where it is open")
    group.addoption("--rungs", metavar="N", help="only the first N targets of each ladder (default: all)")
    group.addoption("--study", metavar="DIR", help="folder of records and report (default: reports/<tier>)")
    group.addoption("--precision", metavar="fp32|tf32|bf16", help="of products, in every arm (default: the tier's)")
    group.addoption("--tolerance", type=float, metavar="OCTAVES", help="drift that is harmless (default: the tier's)")
    group.addoption(
        "--allow-inconclusive", action="store_true", help="INCONCLUSIVE is an expected failure instead of a failure"
    )
    cluster.add_options(group)


def read_settings(config: pytest.Config) -> Settings:
    """Check every option, then make the study folder; MueCheckError on the first that is wrong."""
    with ExitStack() as stack:
        return _checked(config, stack)


def _checked(config: pytest.Config, stack: ExitStack) -> Settings:
    from mue_check.catalog import get_tier, parse_axes
    from mue_check.conformance.expected import read_expected
    from mue_check.data import CORPORA, load_corpus
    from mue_check.errors import SpecError
    from mue_check.precision import require_precision
    from mue_check.records import Store
    from mue_check.routing.claim import read_claim
    from mue_check.rules import get_rule
    from mue_check.spec import Scenario
    from mue_check.tiers import require_device

    option = config.getoption
    tier = get_tier(option("tier") or ("gpu" if option("gpus") else "smoke"))
    rule, axes = get_rule(option("rule")), parse_axes(option("axes"))
    tier, rungs = with_seeds(tier, option("seeds")), parse_rungs(option("rungs"))
    if not config.option.collectonly and option("cluster") is None:  # a cluster has its own devices
        require_device(tier)
    if option("precision") is not None:
        tier = replace(tier, precision=require_precision(option("precision"), tier.device))
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
    folder = Path(config.invocation_params.dir)
    if option("claim") and (option("router") or "builtin:").startswith("builtin:"):
        raise SpecError("--claim: goes with a router of your own; a built-in one carries its claim")
    claim = read_claim(folder / option("claim")) if option("claim") else None
    trial = _apart(config, folder, claim, stack)
    router, balance = _routing(option("router"), folder, claim)
    given = option("study")
    root = Path(config.invocation_params.dir, given) if given else config.rootpath / "reports" / tier.name
    beside = tuple(dict.fromkeys(name.strip() for name in (option("beside") or "").split(",") if name.strip()))
    if rule.name in beside:
        raise SpecError(f"--beside {rule.name}: that is the rule under test")
    options = ["--tier", tier.name]
    kept = ("corpus", "precision", "tolerance", "router", "claim", "expected", "heldout", "beside", "seeds", "rungs")
    for key in (*kept, "study"):
        options += [f"--{key}", str(option(key))] if option(key) else []
    options += ["--rule", rule.name] if rule.name != "complete_mue" else []
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
        beside=tuple(get_rule(name) for name in beside),
        options=tuple(options),
        candidate=(option("router") or "builtin:sigmoid_norm").partition("+")[0],
        folder=folder,
        claim=claim,
        rungs=rungs,
        expected=read_expected(folder / option("expected")) if option("expected") else {},
    )
    if not trains_nothing(config.args):
        settings = replace(settings, notices=_try_router(settings, option("router"), trial))
    # a routing, a composite, a batch or a beta that cannot be is a usage error
    for corpus in corpora:
        for ladder in (ladder for axis in axes for ladder in settings.ladders(axis, corpus)):
            task = tier.task(corpus, ladder.regime)
            reference = Scenario.of(ladder.reference.model, task.train)
            for rung in ladder.targets:
                rule.prescribe(reference, Scenario.of(rung.model, rung.train(task.train))).values(task.base)
    if not config.option.collectonly:
        Store(root).prepare()
    return settings


def trains_nothing(arguments: Sequence[str]) -> bool:
    """Whether conformance alone is asked for: a router that could not even train shall hear why from its checks."""
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return bool(named) and all(name.endswith("test_router.py") for name in named)


def _routing(text: str | None, folder: Path, claim: RoutingSpec | None) -> tuple[str, str]:
    """Router and balance of ``builtin:NAME[+BALANCE]``; a user's router is loaded, and has no balance."""
    from mue_check.errors import ClaimError, SpecError
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
        raise SpecError(f"--router {text!r}: +{balance} goes with builtin:NAME alone; your router balances itself")
    from mue_check.models.user_router.load import load_router

    try:
        return load_router(text, folder, claim).name, "none"
    except ClaimError as error:
        raise SpecError(f"--router {text!r}: {error}") from None


def _apart(config: pytest.Config, folder: Path, claim: RoutingSpec | None, stack: ExitStack) -> Trial | None:
    """A user's router in a process of its own, until the stack ends; workers start when it has been tried."""
    text = config.getoption("router") or "builtin:"
    if ":" not in text or text.startswith("builtin:") or hasattr(config, "workerinput"):
        return None
    from mue_check.errors import ClaimError, SpecError
    from mue_check.models.user_router.trial import try_isolated

    try:
        return stack.enter_context(try_isolated(text, folder, claim))
    except ClaimError as error:
        raise SpecError(f"--router {text!r}: {error}") from None


def _try_router(settings: Settings, text: str | None, trial: Trial | None) -> tuple[str, ...]:
    """Call a user's router at every size that it may meet, before anything trains; notices."""
    from mue_check.errors import ClaimError, SpecError
    from mue_check.routing.variants import is_users

    if not is_users(settings.router):
        return ()
    from mue_check.models.user_router.load import sizes_of, try_router

    questions: tuple[Question, ...] = ("drift", "scales", "speed")
    ladders = [
        ladder
        for axis in settings.axes
        for corpus in settings.corpora
        for question in questions
        for ladder in settings.ladders(axis, corpus, question)
    ]
    sizes = sizes_of(settings.router, (rung.model for ladder in ladders for rung in ladder.rungs))
    try:
        if trial is not None:
            trial.at(sizes)
        return try_router(settings.router, sizes, settings.tier.device)
    except ClaimError as error:
        raise SpecError(f"--router {text!r}: {error}") from None
