"""The guard against copies between host and device: what it refuses, and what a capture allows and so must pass."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mue_check.models.capture_guard import HostDataError, capture_guard

TABLE = [1.0, 2.0, 3.0]
MADE_BEFORE = torch.tensor(TABLE)


def run(function: Callable[[Tensor], Tensor], vmap: bool) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 3, 3, requires_grad=True)
        with capture_guard():
            out = torch.vmap(function)(x) if vmap else function(x)
            torch.autograd.grad(out.sum(), x)


@pytest.mark.parametrize("vmap", [False, True])
@pytest.mark.parametrize(
    "copies",
    [
        lambda x: x * torch.tensor(TABLE, device=x.device),
        lambda x: x * torch.tensor(TABLE),
        lambda x: x * torch.tensor(2.0, device=x.device),
        lambda x: x * torch.as_tensor(TABLE, device=x.device),
        lambda x: x * torch.asarray(TABLE),
        lambda x: x * torch.from_numpy(np.ones(3, dtype=np.float32)),
        lambda x: x * torch.Tensor(TABLE),
        lambda x: x * x.new_tensor(TABLE),
        lambda x: x[..., [0, 2]],
        lambda x: x * MADE_BEFORE.to(x.device),
        lambda x: x.cpu() * 2,
    ],
    ids=[
        "tensor",
        "no_device",
        "number",
        "as_tensor",
        "asarray",
        "numpy",
        "Tensor",
        "new_tensor",
        "index",
        "held",
        "cpu",
    ],
)
def test_a_copy_between_host_and_device_is_refused(copies: Callable[[Tensor], Tensor], vmap: bool) -> None:
    with pytest.raises(HostDataError):
        run(copies, vmap)


@pytest.mark.parametrize("vmap", [False, True])
@pytest.mark.parametrize(
    "allowed",
    [
        lambda x: x * torch.tensor(2.0),
        lambda x: x * torch.full((3,), 2.0, device=x.device),
        lambda x: torch.where(x > 0, x, 0),
        lambda x: x[..., torch.arange(2, device=x.device)],
        lambda x: x.masked_fill(x > 0, -1.0) ** 2,
    ],
    ids=["number", "full", "where", "arange", "masked_fill"],
)
def test_what_a_capture_allows_passes(allowed: Callable[[Tensor], Tensor], vmap: bool) -> None:
    run(allowed, vmap)
