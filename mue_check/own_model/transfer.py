"""Whether values tuned at the smallest size of a user's own model stay best: drift, early curve and tune once.

The search, the estimators, the store and the verdicts are those of the suites (``questions``).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from math import log2
from pathlib import Path

import torch.distributed

from mue_check.cluster import reach, require_cluster
from mue_check.errors import unknown
from mue_check.judge.early import TREND_TOLERANCE
from mue_check.judge.interval import Looks
from mue_check.judge.verdict import Verdict
from mue_check.own_model.arm import Here, OwnArm, OwnExecutor, OwnModel
from mue_check.own_model.candidate import Candidate, ModelError
from mue_check.own_model.identity import identify
from mue_check.own_model.training import Plan, first_look
from mue_check.questions.drift import answer_drift
from mue_check.questions.early import EARLY, EARLY_STEPS
from mue_check.questions.own_optima import AXIS
from mue_check.questions.question import Finding
from mue_check.questions.tune_once import TUNE_ONCE
from mue_check.study.asked import begin_run, finish_run, new_run
from mue_check.study.comparison import DEFAULT_ROUTER, Comparison
from mue_check.study.folder import Folder

QUESTIONS = ("early", "tune_once", "drift")
_DATA = "own_batches"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What to measure of a user's model, and where it is kept.

    ``lr`` is the tuned value of the smallest size, around which its optimum is looked for. Seeds are added from
    ``seeds[0]`` to ``seeds[1]`` until the drift is known to within ``half_width`` octaves; ``tolerance`` is in octaves.
    ``ask`` are names of QUESTIONS.
    """

    root: Path
    plan: Plan
    lr: float
    ask: tuple[str, ...] = QUESTIONS
    seeds: tuple[int, int] = (4, 12)
    tolerance: float = 0.5
    half_width: float = 0.25
    command: str = "mue_check model"
    cluster: str = ""
    """HOST:PORT of a Ray head, or "local", which starts a cluster on this machine; empty: this process trains."""
    gpu_share: float = 1.0
    """Of a GPU, for each run on the cluster."""

    def __post_init__(self) -> None:
        for name in self.ask:
            if name not in QUESTIONS:
                raise ModelError(unknown("question", name, QUESTIONS))
        if not 4 <= self.seeds[0] <= self.seeds[1]:
            raise ModelError(f"seeds {self.seeds[0]} to {self.seeds[1]}: a study needs at least 4, ascending")
        if self.plan.steps < 1 or self.plan.held_out < 1:
            raise ModelError(f"steps {self.plan.steps}, held-out batches {self.plan.held_out}: must be at least 1")
        if not self.lr > 0 or not self.tolerance > 0:
            raise ModelError(f"lr {self.lr:g}, tolerance {self.tolerance:g}: must be above 0")
        if self.cluster:
            require_cluster(self.cluster, self.gpu_share)

    @property
    def looks(self) -> Looks:
        """The numbers of seeds at which a drift is judged."""
        return tuple(range(self.seeds[0], self.seeds[1] + 1))

    @property
    def few_looks(self) -> Looks:
        """Those at which cheap questions are judged."""
        low, high = self.seeds
        return tuple(dict.fromkeys((low, min(2 * low, high), high)))


class _Shared(Folder):
    """The folder of a study whose questions another process asks and answers."""

    def open(self, question: Comparison) -> None:
        """Nothing."""

    def save(self, answer: Comparison) -> None:
        """Nothing."""


def ask_transfer(
    user: Candidate, axis: str, sizes: Sequence[float], study: Study, *, helping: bool = False
) -> list[Finding]:
    """Ask all questions of a study; runs that are stored are not trained again. ModelError, one line.

    ``helping``: another process asks them, and this one only trains a part of the runs.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise ModelError("a study trains every run in one process, and this one belongs to a group")
    if any(size != int(size) for size in sizes):
        raise ModelError(f"sizes {', '.join(f'{s:g}' for s in sizes)}: a study needs whole numbers")
    look = cache(partial(first_look, user, axis, sizes[0], study.lr, study.plan))
    run = new_run(axis, *map(str, sizes), *study.ask)
    folder = (_Shared if helping else Folder)(root=study.root, command=study.command, run=run)
    folder.store.prepare()
    with _executor(user, study, look) as executor:
        arms = [_arm(user, axis, int(size), study, executor) for size in sizes]
        if not helping:
            begin_run(study.root, run)
        found = list(_ask(folder, study, axis, arms, user.unit))
        if not helping:
            finish_run(study.root, run)
    return found


@contextmanager
def _executor(user: Candidate, study: Study, look: Callable[[], None]) -> Iterator[OwnExecutor]:
    """This process, or the nodes of a cluster while the context lasts."""
    if not study.cluster:
        yield Here(user=user, look=look)
        return
    with ExitStack() as ending:
        found = reach(study.cluster, lambda end: ending.callback(end))
        os.environ.update(found.environment)
        from mue_check.own_model.nodes import Nodes

        nodes = Nodes(found.address, study.gpu_share, user, look, study.lr)
        ending.callback(nodes.cluster.close)
        yield nodes


def _arm(user: Candidate, axis: str, size: int, study: Study, executor: OwnExecutor) -> OwnArm:
    who = identify(user, axis, size, study.lr)
    return OwnArm(
        executor=executor,
        model=OwnModel(name=who.name, axis=axis, size=size, source=who.source),
        plan=study.plan,
        code=who.code,
        base_value=study.lr,
        device=who.device,
    )


def _ask(folder: Folder, study: Study, axis: str, arms: Sequence[OwnArm], unit: str) -> Iterator[Finding]:
    name = arms[0].model.name

    def question(kind: str, *parts: str, tolerance: float = 0.0, looks: Looks = study.few_looks) -> Comparison:
        full = "-".join([kind, axis, *parts, name])
        return Comparison(
            kind=kind,
            name=full,
            axis=AXIS,
            ladder=f"own_{axis}",
            corpus=_DATA,
            rule=name,
            router=DEFAULT_ROUTER,
            tier=f"{study.plan.steps} steps",
            tolerance=tolerance,
            expected=Verdict.PASS,
            looks=looks,
            earlier_looks=folder.earlier_looks(full, looks),
            loss_unit=unit,
            sides=(),
            command=folder.command,
        )

    if "early" in study.ask:
        steps = (min(EARLY_STEPS, study.plan.steps),)
        for arm in arms[1:]:
            asked = question("early_curve", str(arm.size), tolerance=TREND_TOLERANCE)
            pair = (arms[0], arm)
            yield EARLY.answer(folder, asked, pair, pair, steps)
    if "tune_once" in study.ask:
        yield TUNE_ONCE.answer(folder, question("tune_once"), arms, arms)
    if "drift" in study.ask:
        for arm in arms[1:]:
            asked = question("drift", str(arm.size), tolerance=study.tolerance, looks=study.looks)
            pair = (arms[0], arm)
            yield answer_drift(folder, asked, pair, pair, log2(study.lr), study.half_width)
