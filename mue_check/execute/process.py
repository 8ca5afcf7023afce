"""Prepare one process for many small CPU trainings: one thread, no page faults, no denormals."""

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30


def prepare_process() -> None:
    """Set this process up; call once before training.

    One torch thread: two beside a busy neighbour are many times slower. glibc gives big blocks back
    after every use and faults them in again, a third of a step's time: keep them. Second moments
    of idle experts are denormal, and those are slow on x86.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _KEEP)
            mallopt(_M_TRIM_THRESHOLD, _KEEP)
