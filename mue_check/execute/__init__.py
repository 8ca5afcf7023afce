"""Who measures which cell, and where."""

from mue_check.execute.local import ensure, use

__all__ = ["ensure", "use"]
