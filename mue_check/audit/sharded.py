"""Models with parameters that are split over devices (DTensor: fully_shard, tensor parallelism), gathered for a while.

Each process of the mesh must take part. Meanwhile the model holds whole plain parameters and none of the hooks with
which torch.distributed gathers them, so each process needs the memory of the whole model.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from mue_check.audit.setup import optimizer_parts

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@contextmanager
def gathered(model: nn.Module, *optimizers: object) -> Iterator[None]:
    """Make every DTensor in the model and the groups a whole parameter for a while; nothing happens without any."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ())
    split = {id(p): p for p in model.parameters() if isinstance(p, kind)}
    if not split:
        yield
        return
    whole = {
        i: nn.Parameter(cast(Any, p).full_tensor().detach().clone(), requires_grad=p.requires_grad)
        for i, p in split.items()
    }
    with ExitStack() as undo:
        for module in model.modules():
            _swap(undo, module._parameters, whole)
            for name in _HOOKS:
                _mute(undo, getattr(module, name))
        for part in optimizer_parts(optimizers):
            for group in getattr(part, "param_groups", ()):
                undo.callback(group.__setitem__, "params", group["params"])
                group["params"] = [whole.get(id(p), p) for p in group["params"]]
        yield


def draw_normal(p: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Fill a parameter; of one that is split, the first process draws all parts."""
    if not hasattr(p, "full_tensor"):
        p.normal_(0.0, std, generator=generator)
        return
    from torch.distributed.tensor import distribute_tensor

    whole = torch.empty(p.shape, dtype=p.dtype, device=cast(Any, p).device_mesh.device_type)
    whole.normal_(0.0, std, generator=generator)
    p.copy_(distribute_tensor(whole, cast(Any, p).device_mesh, cast(Any, p).placements))


def _swap(undo: ExitStack, held: dict[str, Any], whole: dict[int, nn.Parameter]) -> None:
    for name, p in held.items():
        if isinstance(p, Tensor) and id(p) in whole:
            undo.callback(held.__setitem__, name, p)
            held[name] = whole[id(p)]


def _mute(undo: ExitStack, hooks: dict[int, Any]) -> None:
    """Take torch.distributed's own hooks away; the user's stay."""
    kept = dict(hooks)
    for key, hook in kept.items():
        if getattr(hook, "__module__", "").startswith("torch.distributed"):
            del hooks[key]
    undo.callback(hooks.update, kept)
