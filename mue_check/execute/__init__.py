"""Who measures which cell, and where."""

from mue_check.execute.local import ensure

__all__ = ["ensure"]
