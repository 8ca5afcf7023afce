from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Gpus = Callable[..., None]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """A stand-in for nvidia-smi, first on the PATH, in processes that find this checkout."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name, raising=False)

    def say(text: str | int, code: int = 0) -> None:
        if isinstance(text, int):
            text = "\n".join(f"GPU {at}: NVIDIA H100 (UUID: GPU-{at}aaaaaaa-bbbb)" for at in range(text))
        (tmp_path / "says").write_text(text)
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\ncat {tmp_path}/says\nexit {code}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)

    return say
