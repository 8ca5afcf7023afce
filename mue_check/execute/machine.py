"""What this process computes on, in words."""

import platform
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """The name of the GPU, or of the processor if Linux reports it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
