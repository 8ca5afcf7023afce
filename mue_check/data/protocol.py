"""The protocol of all data."""

from typing import Protocol


class Data(Protocol):
    """Something to train on, with a held-out part. Records of measurements contain its fingerprint."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    @property
    def fingerprint(self) -> str:
        """A hash of all data."""

    def require_context(self, context: int) -> None:
        """Raise DataError if the data cannot give examples of that many tokens."""

    def in_memory(self) -> "Data":
        """A copy without files, which can be sent to another machine."""
