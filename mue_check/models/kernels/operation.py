"""Kernels as operations of torch: for autograd, fake tensors, torch.compile and capture.

``torch.library.custom_op`` does the same, but the first call of what it returns imports torch._dynamo, which takes
seconds in every process.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

_LIBRARY = torch.library.Library("mue_check", "DEF")


def operation(
    function: Callable[..., Any],
    *,
    fake: Callable[..., Any],
    mutates: Sequence[str] = (),
    keep: Callable[..., None] | None = None,
    differentiate: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """The operation ``mue_check::NAME`` that calls a function, whose annotations give its types.

    ``fake`` gives outputs without values. ``keep`` and ``differentiate`` are the set-up and the backward pass of
    autograd (torch.library.register_autograd).
    """
    name = function.__name__.strip("_")
    _LIBRARY.define(name + torch.library.infer_schema(function, mutates_args=mutates))
    _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
    full = f"mue_check::{name}"
    torch.library.register_fake(full, fake, lib=_LIBRARY)
    if differentiate is not None:
        torch.library.register_autograd(full, differentiate, setup_context=keep, lib=_LIBRARY)
    found: Callable[..., Any] = getattr(torch.ops.mue_check, name).default
    return found
