"""Keep the global state that other people's code may change, so that it cannot affect what is measured afterwards."""

import builtins
import gc
import math
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as hooks

_WHOLE: dict[str, object] = {
    "torch": torch,
    "torch.Tensor": torch.Tensor,
    "torch.linalg": torch.linalg,
    "torch.autograd": torch.autograd,
    "torch.nn.functional": torch.nn.functional,
    "torch.nn.Module": torch.nn.Module,
    "math": math,
    "builtins": builtins,
}
"""Where functions live that must not be replaced in a call."""
_JUDGING = frozenset(
    {"allclose", "equal", "isclose", "isfinite", "isnan", "isinf", "all", "any", "abs", "max", "min", "amax", "amin"}
    | {"eq", "ne", "lt", "le", "gt", "ge", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__"}
    | {"sum", "mean", "norm", "vector_norm", "where", "bool", "float", "double", "tolist", "item", "__float__"}
)
"""Functions of torch with which mue_check compares. A library that replaces one when it is imported cannot be judged.
Others it may replace."""
_HOOKS = tuple(name for name in vars(hooks) if name.startswith("_global_") and isinstance(getattr(hooks, name), dict))

_SIGNALS = {each.value: each.name for each in signal.Signals}
"""Names; real-time signals have none."""


Setting = tuple[str, Callable[[], Any], Callable[[Any], object]]
"""Its name, and how to get and set it."""


@dataclass(kw_only=True)
class Changes:
    """What user code left changed, as it would be named in a message. Filled when the context ends."""

    functions: list[str] = field(default_factory=list)
    """Functions of torch, math and builtins that it replaced, such as "torch.equal"."""
    torch: list[str] = field(default_factory=list)
    """Settings of torch, such as "the default dtype"."""
    process: list[str] = field(default_factory=list)
    """The rest, such as "the working folder"."""


@contextmanager
def preserved_globals() -> Iterator[Changes]:
    """Put back everything: torch's state, replaced functions, streams, folder, environment, signals and filters."""
    changes, functions = Changes(), _functions()
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        for name, get, put in _process_settings():
            undo.callback(_restore, name, get, put, get(), changes.process)
        undo.enter_context(_torch_state(changes))
        try:
            yield changes
        finally:
            changes.functions += _put_back(functions)


@contextmanager
def preserved_torch() -> Iterator[None]:
    """Put back torch's global state and all random generators."""
    with _torch_state(Changes()):
        yield


@contextmanager
def guarded_import() -> Iterator[None]:
    """Put back torch's global state after an import. ImportError if it replaced a function that judges."""
    before = _functions()
    with preserved_torch():
        yield
    for owner, old in before.items():
        for name in _replaced(owner, old):
            if name in _JUDGING or owner in ("math", "builtins"):
                told = f"{owner}.{name}{_place(owner, name)}"
                _put_back(before)
                raise ImportError(f"it replaces {told}, with which mue_check compares")


@contextmanager
def _torch_state(changes: Changes) -> Iterator[None]:
    generators = random.getstate(), np.random.get_state()  # noqa: NPY002  (the global one is what user code may touch)
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    modes = torch._C._len_torch_function_stack(), torch._C._len_torch_dispatch_stack()
    global_hooks = {name: dict(getattr(hooks, name)) for name in _HOOKS}
    before = [get() for _, get, _ in _SETTINGS]
    with torch.random.fork_rng(devices=cuda), np.errstate(), torch.inference_mode(False), torch.enable_grad():
        try:
            yield
        finally:
            # modes first: they intercept the calls below
            while torch._C._len_torch_function_stack() > modes[0]:
                torch._C._pop_torch_function_stack()
                changes.torch.append("a mode of torch's functions")
            while torch._C._len_torch_dispatch_stack() > modes[1]:
                torch._C._pop_torch_dispatch_stack(None)
                changes.torch.append("a mode of torch's dispatcher")
            for setting, value in zip(_SETTINGS, before, strict=True):
                _restore(*setting, value, changes.torch)
            for name, kept in global_hooks.items():
                now = getattr(hooks, name)
                if dict(now) != kept:
                    now.clear()
                    now.update(kept)
                    changes.torch.append("hooks of all modules")
            random.setstate(generators[0])
            np.random.set_state(generators[1])  # noqa: NPY002


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_deterministic(mode: int) -> None:
    torch.set_deterministic_debug_mode(mode)


_SETTINGS: tuple[Setting, ...] = (
    ("the default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("the default device", torch.get_default_device, _set_device),
    ("deterministic algorithms", torch.get_deterministic_debug_mode, _set_deterministic),
    ("the number of threads", torch.get_num_threads, torch.set_num_threads),
    ("the precision of products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    ("autocast", lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    ("autocast on CUDA", lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    ("detection of anomalies", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
)
"""What torch keeps for the whole process."""


def _process_settings() -> Iterator[Setting]:
    """What Python keeps for the whole process. Only the main thread may look at signals."""
    for stream in ("stdin", "stdout", "stderr"):
        yield f"sys.{stream}", partial(getattr, sys, stream), partial(setattr, sys, stream)
    yield "the working folder", _folder, os.chdir
    yield "the environment", lambda: dict(os.environ), _set_environment
    yield "the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit
    yield "garbage collection", gc.isenabled, lambda on: (gc.enable if on else gc.disable)()
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            name = f"the handler of {_SIGNALS.get(number, number)}"
            yield name, partial(signal.getsignal, number), partial(signal.signal, number)


def _restore(name: str, get: Callable[[], Any], put: Callable[[Any], object], before: Any, changed: list[str]) -> None:
    """Put back a setting that is another now. One that Python cannot name (None or "") stays.

    What user code put there may compare equal to anything, so it is asked only if it is of the type that was there.
    """
    now = get()
    is_same = now is before or (type(now) is type(before) and now == before)
    if before is not None and before != "" and not is_same:
        put(before)
        changed.append(name)


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _folder() -> str:
    """The working folder; "" if it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _owners() -> dict[str, object]:
    pytest = sys.modules.get("pytest")
    return _WHOLE | ({} if pytest is None else {"pytest": pytest})


def _functions() -> dict[str, dict[str, object]]:
    """Everything that can be called, by owner and name."""
    return {owner: dict(vars(what)) for owner, what in _owners().items()}


def _replaced(owner: str, old: dict[str, object]) -> list[str]:
    """The functions of an owner that are others now. A new name counts where it hides a function of a base class."""
    now, bases = vars(_owners()[owner]), getattr(_owners()[owner], "__mro__", ())[1:]
    if [*now] == [*old] and [*map(id, now.values())] == [*map(id, old.values())]:  # nearly always, and fast to see
        return []
    other = [
        name
        for name, value in old.items()
        if callable(value) and now.get(name) is not value and not _is_torchs(now.get(name), name)
    ]
    return other + [name for name in now if name not in old and any(hasattr(base, name) for base in bases)]


def _is_torchs(value: object, name: str) -> bool:
    """Whether torch replaced this itself: it changes a few of its functions when its compiler is imported."""
    if (getattr(value, "__module__", None) or "").partition(".")[0] != "torch":
        return False
    code = getattr(value, "__code__", None)
    if code is not None:
        return Path(code.co_filename).is_relative_to(Path(torch.__file__).parent)
    return isinstance(value, type) or getattr(value, "__name__", "") == name


def _put_back(before: dict[str, dict[str, object]]) -> list[str]:
    """Put replaced functions back; returns their names, and where the new ones come from."""
    told = []
    for owner, old in before.items():
        for name in _replaced(owner, old):
            told.append(f"{owner}.{name}{_place(owner, name)}")
            if name in old:
                setattr(_owners()[owner], name, old[name])
            else:
                delattr(_owners()[owner], name)
    return told


def _place(owner: str, name: str) -> str:
    """`` (FILE:LINE)`` of a function that was written in Python."""
    code = getattr(getattr(_owners()[owner], name, None), "__code__", None)
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""
