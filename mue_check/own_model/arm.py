"""An arm of a study of a user's own model: one size, and the cells that measure it, one run each."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from mue_check.execute.batches import Measured
from mue_check.execute.local import ensure_by
from mue_check.execute.machine import environment
from mue_check.own_model.candidate import Candidate
from mue_check.own_model.training import Plan, train
from mue_check.records import AnyCell, Columns, Store
from mue_check.records.cell import SCHEMA, Content, of_a_user
from mue_check.rules import Knob

OWN_MEASURING = 1
"""Version of the training loop: raise it when a change gives other numbers for the same cell."""


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """One size of a user's model. ``source`` is a hash of its code and of what that makes (``own_model.identity``)."""

    name: str
    axis: str
    size: int
    source: str


@dataclass(frozen=True, kw_only=True)
class OwnCell(AnyCell):
    """One run of a user's model: its final loss ("loss_grid") or the losses of its first steps ("early_curve")."""

    model: OwnModel
    plan: Plan
    code: str
    """A hash of the code alone, which all sizes share: the data come from it."""

    @property
    def content(self) -> Content:
        """Everything that affects the numbers: the user's code counts by its hash."""
        return {
            "schema": SCHEMA,
            "measuring": OWN_MEASURING,
            "measurement": self.measurement,
            "model": asdict(self.model),
            "factors": {},
            "base": {},
            "train": asdict(self.plan),
            "corpus": self.code,
            "knob": "lr",
            "values": list(self.values),
            "seeds": list(self.seeds),
            "steps": list(self.steps),
            "flaw": "",
            "device": self.device,
        }

    @property
    def rule(self) -> str:
        """The user's own."""
        return self.model.name

    @property
    def about(self) -> str:
        """The model and its training."""
        return of_a_user(asdict(self.model), asdict(self.plan))

    def __str__(self) -> str:
        return f"{self.measurement} {self.about} at lr {self.values[0]:g}, seed {self.seeds[0]}"


OwnBatch = tuple[OwnCell, ...]
"""One run: those of users' models do not train as a stack."""
OwnExecutor = Callable[[Sequence[OwnBatch]], Iterable[tuple[OwnBatch, list[Measured]]]]


@dataclass(frozen=True, kw_only=True)
class OwnArm:
    """One size of a user's model, tuned to ``base_value``. It is also its own place on the axis (``Place``)."""

    executor: OwnExecutor = field(repr=False)
    model: OwnModel
    plan: Plan
    code: str
    base_value: float
    device: str
    first_seed: int = 0
    knob: Knob = "lr"

    @property
    def label(self) -> str:
        """Axis and size."""
        return f"{self.model.axis}={self.model.size}"

    @property
    def size(self) -> int:
        """The size."""
        return self.model.size

    @property
    def described(self) -> str:
        """Model and training."""
        return of_a_user(asdict(self.model), asdict(self.plan))

    def cells(
        self, measurement: str, values: Iterable[float], replicates: Iterable[int], steps: Sequence[int] = ()
    ) -> list[OwnCell]:
        """One cell for each run, so that a killed process loses one run, and several processes share them."""
        seeds = [self.first_seed + i for i in replicates]
        return [
            OwnCell(
                measurement=measurement,
                values=(value,),
                seeds=(seed,),
                steps=tuple(steps),
                device=self.device,
                model=self.model,
                plan=self.plan,
                code=self.code,
            )
            for value in values
            for seed in seeds
        ]

    def measure(self, cells: Sequence[OwnCell], store: Store) -> None:
        """Train and store the runs that are not stored yet."""
        at_once = not isinstance(self.executor, Here)
        ensure_by(cells, store, lambda missing: [(cell,) for cell in missing], self.executor, at_once=at_once)


@dataclass(frozen=True, kw_only=True)
class Here:
    """The executor of this process; ``look`` is called before it trains anything."""

    user: Candidate
    look: Callable[[], None]

    def __call__(self, batches: Sequence[OwnBatch]) -> Iterator[tuple[OwnBatch, list[Measured]]]:
        """Train one run after another."""
        for batch in batches:
            self.look()
            yield batch, [measured(self.user, cell) for cell in batch]


def measured(user: Candidate, cell: OwnCell) -> Measured:
    """Train one run."""
    clock = time.process_time if cell.device == "cpu" else time.perf_counter
    began = clock()
    (lr,), (seed,) = cell.values, cell.seeds
    only = cell.steps[-1] if cell.steps else 0
    run = train(user, cell.model.axis, cell.model.size, seed, lr, cell.plan, only=only)
    columns: Columns
    if only:
        losses = run.losses + [float("nan")] * (only - len(run.losses))
        columns = {"seed": [seed] * only, "value": [lr] * only, "step": list(range(only)), "loss": losses}
    else:
        columns = {"seed": [seed], "value": [lr], "initial": [run.losses[0]], "loss": [run.held_out]}
    return Measured(columns=columns, environment=environment(cell.device), core_seconds=clock() - began)
