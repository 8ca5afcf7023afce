"""A way to train the runs of a case."""

from typing import Protocol

from torch import Tensor


class Way(Protocol):
    """Trains ``runs`` runs, of seeds 0, 1, ..."""

    @property
    def runs(self) -> int:
        """How many."""
        ...

    def advance(self, steps: int) -> None:
        """Train each of them for that many more steps."""
        ...

    def losses(self) -> Tensor:
        """[steps so far, runs]: training loss, nats per token."""
        ...
