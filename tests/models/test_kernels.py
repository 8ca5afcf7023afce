"""Where the Triton kernels are used, without a GPU: a stand-in for a tensor on one."""

import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from mue_check.models import kernels
from mue_check.models.kernels import NAMES, VARIABLE, uses_kernel

ON_GPU = SimpleNamespace(is_cuda=True, dtype=torch.float32, device=torch.device("cuda", 0))
MODULE = "mue_check.models.kernels.pointwise"


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "HAS_TRITON", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch, "ones", lambda size, device: None)
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(swiglu=lambda gate, up: None))
    kernels._launches.cache_clear()
    yield
    kernels._launches.cache_clear()


def no_compiler(gate, up) -> None:
    raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable.")


def test_all_kernels_are_used_where_they_are_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        assert uses_kernel(name, ON_GPU)
        assert not uses_kernel(name, ON_GPU, fastest=False)
    monkeypatch.setenv(VARIABLE, "adamw,experts")
    assert [uses_kernel(name, ON_GPU, fastest=False) for name in NAMES] == [
        name in ("experts", "adamw") for name in NAMES
    ]
    monkeypatch.setenv(VARIABLE, "")
    assert not any(uses_kernel(name, ON_GPU) for name in NAMES)


def test_neither_a_cpu_nor_an_old_gpu_nor_float64_uses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not uses_kernel("experts", torch.empty(1))
    assert not uses_kernel("experts", SimpleNamespace(**vars(ON_GPU) | {"dtype": torch.float64}))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not uses_kernel("experts", ON_GPU)


@pytest.mark.parametrize(
    ("broken", "message"), [(SimpleNamespace(swiglu=no_compiler), "Failed to find C compiler"), (None, MODULE)]
)
def test_without_a_compiler_one_warning_is_printed_and_torch_does_the_work(
    monkeypatch: pytest.MonkeyPatch, broken: SimpleNamespace | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, MODULE, broken)
    with pytest.warns(UserWarning, match=message) as caught:
        assert not any(uses_kernel(name, ON_GPU) for name in NAMES)
    assert len(caught) == 1
    assert "\n" not in str(caught[0].message)
    monkeypatch.setenv(VARIABLE, "")
    kernels._launches.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not uses_kernel("experts", ON_GPU)
