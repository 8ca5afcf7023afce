"""Prepare one process for many small CPU trainings: one thread, no page faults, no denormals."""

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


def prepare_process() -> None:
    """Set up this process; call it once before training.

    One torch thread: with a busy neighbor, two are many times slower. glibc returns large blocks to the
    system after every use, and page faults then take a third of a step: keep them. Second moments
    of idle experts are denormal numbers, which are slow on x86.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEEP)
            mallopt(_M_TRIM_THRESHOLD, _KEEP)
