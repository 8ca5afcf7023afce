"""Measuring cells: in this process or on a cluster, in batches that fit the memory."""

from mue_check.execute.local import ensure, use

__all__ = ["ensure", "use"]
