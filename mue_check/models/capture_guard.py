"""Find on fake CPU tensors what a CUDA graph capture refuses.

``FakeTensorMode`` raises where an operation needs a value on the host or has a shape that depends on data. It allows
copies between host and device, which a capture does not: ``CaptureGuard`` finds those.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Arguments = tuple[Any, ...]
Options = dict[str, Any]

_FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.asarray)
_TO_HOST = (Tensor.cpu, Tensor.numpy)


class HostDataError(RuntimeError):
    """A step copies data between host and device."""


@contextmanager
def capture_guard() -> Iterator[None]:
    """Raise HostDataError where code on fake tensors copies data between the host and what would be the device.

    Enter it inside FakeTensorMode. A tensor made from Python numbers, and any other tensor that is not fake, counts as
    host data. One number without a device is allowed: torch passes it to a kernel as an argument.
    """
    with _Functions(), _Operations():  # type: ignore[no-untyped-call]
        yield


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, func: Callable[..., Any], types: object, args: Arguments = (), kwargs: Options | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, Tensor) and not isinstance(value, FakeTensor) and value.dim():
                raise HostDataError(
                    f"{func} reads a tensor that lies on the host: make it, and move it, before the step"
                )
        return func(*args, **(kwargs or {}))


class _Functions(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Arguments = (), kwargs: Options | None = None
    ) -> Any:
        made = func in _FROM_PYTHON and (kwargs or {}).get("device") is not None and not isinstance(args[0], Tensor)
        if made or func is Tensor.new_tensor:
            raise HostDataError(f"{func.__name__} copies Python numbers to the device: make the tensor before the step")
        if func in _TO_HOST:
            raise HostDataError(f"Tensor.{func.__name__} copies a tensor to the host")
        return func(*args, **(kwargs or {}))
