"""What a stack of runs needs of the models that it trains: a model without tensors, and its examples on a device.

A ``Family`` pairs the two for one type of specification. All that follows from experts is shared (``FeedForward``,
``Routers``); a new family writes its own model and examples and adds itself to ``families.FAMILIES``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from mue_check.data import Data
from mue_check.models.balancing import LayerRouting
from mue_check.models.parameters import Parameter, Parameters
from mue_check.models.routers import Routers
from mue_check.models.tap import Tap
from mue_check.rules import Prescription
from mue_check.spec import ModelSpec, TrainSpec

T = TypeVar("T")
S = TypeVar("S", bound=ModelSpec)
In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)


class Model(Protocol[In]):
    """A stack of models with one specification and one prescription. It holds no tensors.

    ``parameters`` have a role each, from which the prescription finds init, learning rate and multiplier. ``routers``
    are those of a mixture, None in a dense model. Every tensor leads with the run axis R, and a run's numbers must not
    depend on other runs. A training step calls ``losses`` inside a CUDA graph: no host sync, no copy from the host.
    """

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All trained tensors."""

    @property
    def routers(self) -> Routers | None:
        """The routers, without state."""

    def losses(
        self,
        p: Parameters,
        inputs: In,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """The mean loss of each run, [R]."""

    def forward(
        self,
        p: Parameters,
        inputs: In,
        tap: Tap = ...,
        *,
        routers: Routers | None = None,
        layers: list[LayerRouting] | None = None,
    ) -> Tensor:
        """The output [R, ...]. Activations are shown to ``tap``, how each layer routed is appended to ``layers``."""


class Examples(Protocol[Out]):
    """The data of a stack of runs on its device, as inputs of ``losses``, and of ``forward`` (``observed``)."""

    def restart(self, seeds: Sequence[int]) -> None:
        """Order the training examples of each run by its seed, in place: captured graphs read these tensors."""

    def at(self, step: Tensor) -> Out:
        """The inputs of a training step, which a device counter [1] names. It is called inside a CUDA graph."""

    def drawn(self, runs: int, generator: torch.Generator) -> Out:
        """Inputs of one step for ``runs`` runs, drawn from the training part with replacement."""

    def heldout(self) -> Iterator[tuple[Out, int]]:
        """The held-out part in batches, the same for every run, each with its number of examples."""

    def observed(self, count: int | None = None) -> Out:
        """Held-out inputs of ``forward``, the same for every run: all, or the first ``count`` examples."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What a model takes, for the prediction of its cost.

    Per token and run, ``flop`` of a training step and ``activations`` written in a forward pass; per run,
    ``parameters``.
    """

    flop: float
    activations: float
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Family(Generic[S, T]):
    """A type of specification, its model, and its examples for a number of runs on a device.

    ``amounts`` is called with the number of routed experts that a token is multiplied with, ``heldout`` returns the
    number of held-out examples.
    """

    spec: type[S]
    model: Callable[[S, Prescription, TrainSpec, Data], Model[T]]
    examples: Callable[[S, TrainSpec, Data, int, torch.device], Examples[T]]
    amounts: Callable[[S, TrainSpec, Data, float], Amounts]
    heldout: Callable[[TrainSpec, Data], int]
