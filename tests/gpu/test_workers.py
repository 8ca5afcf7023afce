"""``--gpus`` with the real nvidia-smi, and memory that really runs out."""

from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

ROOT = Path(__file__).parents[2]
TOY = """
import os
import torch

CALLS = []

def test_one_device():
    assert os.environ["CUDA_VISIBLE_DEVICES"]
    assert torch.cuda.device_count() == 1

def test_memory():
    free, _ = torch.cuda.mem_get_info()
    CALLS.append(free)
    held = torch.empty(free // 2, dtype=torch.uint8, device="cuda")
    if len(CALLS) == 1:
        torch.empty(free, dtype=torch.uint8, device="cuda")
    assert CALLS[1] > 0.9 * CALLS[0]
    assert held.numel() == free // 2
"""


def test_a_worker_sees_its_gpu_and_gives_memory_back(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(TOY)
    result = pytester.runpytest_subprocess("-p", "mue_check.pytest_plugin", "--gpus", "1")
    assert result.ret == 0, result.outlines
    assert "test_memory: out of memory: run again after: CUDA out of memory." in result.stdout.str()
