"""Kernels as operations of torch: for autograd, fake tensors, torch.compile and capture.

``torch.library.custom_op`` does the same, but the first call of what it returns imports torch._dynamo, which takes
seconds in every process.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("mue_check", "DEF")


def operation(
    schema: str,
    *,
    module: str,
    fake: Callable[..., Any],
    keep: Callable[..., None] | None = None,
    differentiate: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """The operation ``mue_check::NAME`` of that schema, "NAME(Tensor x) -> Tensor".

    It calls the function NAME of ``models.kernels.MODULE`` with contiguous tensors. The module, and Triton with it, is
    imported then. ``fake`` gives outputs without values. ``keep`` and ``differentiate`` are the set-up and the backward
    pass of autograd (torch.library.register_autograd).
    """
    name = schema.partition("(")[0]

    def launch(*arguments: Any) -> Any:
        kernels = importlib.import_module(f"mue_check.models.kernels.{module}")
        return getattr(kernels, name)(*(x.contiguous() if isinstance(x, Tensor) else x for x in arguments))

    _LIBRARY.define(schema)
    _LIBRARY.impl(name, launch, "CompositeExplicitAutograd")
    full = f"mue_check::{name}"
    torch.library.register_fake(full, fake, lib=_LIBRARY)
    if differentiate is not None:
        torch.library.register_autograd(full, differentiate, setup_context=keep, lib=_LIBRARY)
    found: Callable[..., Any] = getattr(torch.ops.mue_check, name).default
    return found
