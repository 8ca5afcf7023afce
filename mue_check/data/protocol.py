"""What every kind of data has in common."""

from typing import Protocol


class Data(Protocol):
    """Something to train on, with a held-out part. A record of a measurement holds its fingerprint."""

    @property
    def name(self) -> str:
        """How it is chosen."""

    @property
    def fingerprint(self) -> str:
        """A hash of all of it."""

    def require_context(self, context: int) -> None:
        """Raise DataError if examples of that many tokens cannot be made of it."""

    def in_memory(self) -> "Data":
        """The same without files, to be sent to another machine."""
