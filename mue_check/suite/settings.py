"""The options of ``pytest suites/``, and the checked settings of a run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mue_check.errors import SpecError, hide_secrets
from mue_check.suite import cluster
from mue_check.suite.folder import is_packaged
from mue_check.suite.gpus import add_gpu_options
from mue_check.suite.router_option import (
    isolated_router,
    name_elsewhere,
    read_claim_option,
    require_same_router,
    routing_of,
    trains_nothing,
    try_users_router,
)
from mue_check.suite.trimming import cut, parse_rungs, with_seeds

if TYPE_CHECKING:
    from mue_check.axes import Ladder, LadderUse
    from mue_check.routing.claim import RoutingSpec
    from mue_check.rules import Knob, Rule
    from mue_check.study.folder import Study
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
    """The run's name in the study (``study.asked.new_run``), the same in all its workers."""
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
        from mue_check.study.folder import Study

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
        from mue_check.spec import Scenario
        from mue_check.spec_text import parse_scenario

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
        "--modality",
        default="language",
        metavar="NAME",
        help="language (default), image_low, image_high, keyframe or video: diffusion models on images and clips",
    )
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
    with isolated_router(config, folder) as trial:
        is_training = not trains_nothing(config.args)
        name = name_elsewhere(config.getoption("router"), trial) if trial is not None and is_training else ""
        settings = _parse(config, folder)
        if name and name != settings.router:
            raise SpecError(
                f"--router {config.getoption('router')!r}: it behaves differently in another process, so that no run "
                "could be repeated: it must not depend on the order of a set, on time or on the process"
            )
        if is_training:
            settings = replace(settings, notices=try_users_router(settings, config.getoption("router"), trial))
    _require_prescriptions(settings)
    if not config.option.collectonly:
        from mue_check.records import Store

        Store(settings.root).prepare()
        if is_training and not hasattr(config, "workerinput"):
            require_same_router(settings, config.getoption("router"))
    return settings


def _parse(config: pytest.Config, folder: Path) -> Settings:
    """The settings, without notices. Loads a user's router, and has no other side effect."""
    from mue_check.catalog import parse_axes
    from mue_check.conformance.result import read_expected
    from mue_check.judge.verdict import require_tolerance
    from mue_check.rules import get_rule, parse_knob
    from mue_check.study.asked import new_run

    option = config.getoption
    rule, tier, claim = get_rule(option("rule")), _tier(config), read_claim_option(config, folder)
    tolerance = option("tolerance")
    corpora = _corpora(option("corpus"), folder, tier, option("modality"))
    router, balance = routing_of(option("router"), folder, claim, trains=not trains_nothing(config.args))
    repeated = _repeated_options(config, tier.name, rule.name)
    selected = (*map(str, config.args), option("keyword"), option("markexpr"), str(option("axes")))
    others = dict.fromkeys(name.strip() for name in (option("beside") or "").split(",") if name.strip())
    if rule.name in others:
        raise SpecError(f"--beside {rule.name}: that is the rule under test")
    return Settings(
        tier=tier,
        axes=parse_axes(option("axes")),
        corpora=corpora,
        rule=rule,
        root=folder / (option("study") or f"reports/{tier.name}"),
        tolerance=tier.tolerance if tolerance is None else require_tolerance(tolerance),
        allow_inconclusive=option("allow_inconclusive"),
        router=router,
        balance=balance,
        heldout=option("heldout"),
        beside=tuple(map(get_rule, others)),
        options=repeated,
        program=("mue_check", "suite") if is_packaged(config.rootpath) else ("pytest",),
        run=getattr(config, "workerinput", {}).get(RUN) or new_run(*selected, *repeated),
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
    name = option("tier") or ("gpu" if option("gpus") else "smoke")
    tier = with_seeds(get_tier(name, option("modality")), option("seeds"))
    if not config.option.collectonly and option("cluster") is None:  # a cluster has its own devices
        require_device(tier)
    if option("precision") is not None:
        tier = replace(tier, precision=require_precision(option("precision"), tier.device))
    return tier


def _corpora(name: str | None, folder: Path, tier: Tier, modality: str) -> tuple[str, ...]:
    """The tier's corpora, or the one of ``--corpus``."""
    from mue_check.data import load_data
    from mue_check.modalities import get_modality

    if name is None:
        return tier.corpora
    if Path(name).suffix:
        name = str(folder / name)
    data = load_data(name)
    get_modality(modality).require(data)
    data.require_context(tier.task(name).train.context)
    return (name,)


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
    if (modality := config.getoption("modality")) != "language":
        options += ["--modality", modality]
    options += [part for name, value in given.items() if value for part in (f"--{name}", str(value))]
    return (*options, *(["--rule", rule] if rule != "complete_mue" else []))


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
