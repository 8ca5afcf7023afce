"""What this process computes on, in words."""

import platform
from functools import cache
from pathlib import Path

import torch

from mue_check import __version__
from mue_check.records import Environment


def device_name(device: str) -> str:
    """The name of the GPU, or of the processor if Linux reports it."""
    return torch.cuda.get_device_name() if device == "cuda" else _processor()


@cache
def environment(device: str) -> Environment:
    """Where this process measures the cells of a device, "cpu" or "cuda"."""
    return Environment(
        mue_check=__version__,
        torch=torch.__version__,
        device=device_name(device) if device == "cuda" else device,
        processor=_processor(),
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
