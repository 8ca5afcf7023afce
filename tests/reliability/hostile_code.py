"""Kinds of hostile user code: what each does, and where. ``hostile_candidate`` builds them into a candidate."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mue_check.errors import ClaimError

Place = Literal["import", "build", "forward", "backward", "output", "loss", "step", "schedule", "claim", "delete"]
TRAINING: tuple[Place, ...] = ("loss", "step", "schedule")
"""Where only a set-up for the audit has code."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of hostile code.

    ``harmless``: nothing that is measured depends on it, so a right candidate passes with it. ``slow``: it ends or
    hangs its process at every check, so that few checks show all there is to see.
    """

    name: str
    what: str
    place: Place
    act: Callable[..., Any]
    harmless: bool = False
    slow: bool = False


KINDS: dict[str, Kind] = {}
KEPT: list[object] = []
"""Holds what must outlive the call that made it."""


def register(
    what: str, places: Iterable[Place], act: Callable[..., Any], *, harmless: bool = False, slow: bool = False
) -> None:
    """List it as ``WHAT_PLACE`` for each of these places."""
    for place in places:
        name = f"{what}_{place}"
        KINDS[name] = Kind(name=name, what=what, place=place, act=act, harmless=harmless, slow=slow)


def thrower(error: BaseException | type[BaseException]) -> Callable[[], None]:
    """A function that raises the error."""

    def throw() -> None:
        raise error

    return throw


def kind(*places: Place, harmless: bool = False, slow: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Register a function for these places."""

    def add(act: Callable[..., Any]) -> Callable[..., Any]:
        register(act.__name__, places, act, harmless=harmless, slow=slow)
        return act

    return add


class Unprintable(Exception):
    """An exception whose text cannot be read."""

    def __str__(self) -> str:
        raise SystemExit(0)


class AlwaysTrue(TorchFunctionMode):
    """Answers every comparison with yes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("allclose", "equal", "isclose"):
            return True
        return func(*args, **(kwargs or {}))


class Liar(Tensor):
    """A tensor whose sum is 1, whatever it holds, and that is equal to everything."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in ("allclose", "equal", "isfinite"):
            return torch.ones((), dtype=torch.bool)
        found = super().__torch_function__(func, types, args, kwargs or {})
        return torch.ones_like(found) if getattr(func, "__name__", "") == "sum" else found


class Dispatcher(Tensor):
    """A tensor without numbers, which computes in its own way."""

    @staticmethod
    def __new__(cls, value: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(cls, value.shape, dtype=value.dtype, requires_grad=value.requires_grad)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return torch.ones(())


class ExitingDict(dict[str, Any]):
    """A mapping that exits when it is read."""

    def items(self) -> Any:
        sys.exit(0)

    def values(self) -> Any:
        sys.exit(0)


_ANYWHERE: tuple[Place, ...] = ("import", "build", "forward", "backward", "loss", "step", "schedule", "claim")
_EARLY: tuple[Place, ...] = ("import", "forward", "loss")
register("exit_0", _ANYWHERE, lambda: sys.exit(0))
register("end_process", (*_ANYWHERE, "delete"), lambda: os._exit(0), slow=True)
register("pytest_exit", _EARLY, lambda: pytest.exit("done", returncode=0))
register("pytest_skip", _EARLY, lambda: pytest.skip("not today", allow_module_level=True))
register("generator_exit", ("build", "forward"), thrower(GeneratorExit))
register("interrupt", ("forward", "loss"), thrower(KeyboardInterrupt))
register("unprintable", ("import", "build", "forward", "loss"), thrower(Unprintable))
register("our_own_error", ("forward", "loss"), thrower(ClaimError("first\nsecond\x1b[2J")))
register("wait", _EARLY, lambda: time.sleep(1e6), slow=True)
register("huge_memory", ("build", "forward"), lambda: torch.empty(10**15))
register("fork", ("forward",), os.fork, slow=True)
register("close_files", ("forward",), lambda: os.closerange(3, 256), slow=True)
register("gradients_off", ("forward",), lambda: torch.set_grad_enabled(False))
register("not_a_loss", ("loss",), lambda: iter([1]))
register("liar", ("output",), lambda y: y.as_subclass(Liar))
register("dispatcher", ("output",), Dispatcher)
register("not_a_number", ("output",), lambda y: y * torch.nan)
register("exiting_mapping", ("output",), lambda y: ExitingDict(y=y))
register("nothing", ("import",), lambda: None, harmless=True)
register("thread", ("forward",), lambda: threading.Thread(target=time.sleep, args=(3600,)).start(), harmless=True)
register("at_exit", ("import",), lambda: atexit.register(os._exit, 0), harmless=True)
register("environment", ("build", "forward"), os.environ.clear, harmless=True)
register("warnings_as_errors", ("import", "forward"), lambda: warnings.simplefilter("error"), harmless=True)
register("default_dtype", ("import",), lambda: torch.set_default_dtype(torch.float64), harmless=True)
register("default_device", ("import",), lambda: torch.set_default_device("meta"), harmless=True)


@kind("forward", slow=True)
def spin_deaf() -> None:
    """Loop without end, deaf to signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        pass


@kind("forward", slow=True)
def swallow() -> None:
    """Loop without end, and swallow every exception."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@kind("forward", "loss")
def recurse() -> None:
    """Call itself without end."""
    recurse()


@kind("forward", slow=True)
def recurse_in_c() -> None:
    """Recurse until the stack is used up."""
    sys.setrecursionlimit(10**9)
    recurse()


@kind("forward", slow=True)
def fork_and_stay() -> None:
    """Leave a process behind that holds everything open, and end."""
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)


@kind("forward", slow=True)
def write_into_files() -> None:
    """Write into every file that is open."""
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(number, b"\x7f" * 100)


@kind("forward", harmless=True)
def close_output() -> None:
    """Close the standard output, or replace it by nothing."""
    if sys.stdout is not None:
        sys.stdout.close()
    sys.stdout = sys.stderr = None  # type: ignore[assignment]


@kind("forward", harmless=True)
def flood() -> None:
    """Print without measure."""
    print("PASS " * 20_000)
    os.write(1, b"PASS\n" * 20_000)


@kind("build", harmless=True)
def other_folder() -> None:
    """Change to a folder, and remove it."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    shutil.rmtree(folder)


@kind("forward", harmless=True)
def signal_handlers() -> None:
    """Replace every signal handler."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)


@kind("forward", harmless=True)
def seeds() -> None:
    """Set every global seed."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@kind("import", harmless=True)
def no_gradients() -> None:
    """Leave the gradient mode off, and inference mode on."""
    torch.set_grad_enabled(False)
    mode = torch.inference_mode()
    mode.__enter__()
    KEPT.append(mode)


@kind("import", harmless=True)
def interpreter() -> None:
    """Turn off garbage collection, and take more threads."""
    gc.disable()
    torch.set_num_threads(3)


@kind("import", "build", "forward", "loss")
def replace_torch() -> None:
    """Make torch's comparisons answer yes."""
    torch.allclose = torch.equal = lambda *a, **k: True  # type: ignore[assignment]
    torch.Tensor.allclose = torch.Tensor.equal = lambda *a, **k: True  # type: ignore[method-assign,assignment]


@kind("import", "forward", "loss")
def replace_python() -> None:
    """Make Python's comparisons answer yes."""
    math.isclose = lambda *a, **k: True  # type: ignore[assignment]
    builtins.abs = lambda x: 0 * x  # type: ignore[assignment]


@kind("import", "forward", "loss")
def replace_pytest() -> None:
    """Make tests pass."""
    pytest.fail = pytest.skip = lambda *a, **k: None  # type: ignore[assignment]


@kind("import", "forward", "loss")
def mode() -> None:
    """Answer torch's comparisons for everyone, from now on."""
    entered = AlwaysTrue()
    entered.__enter__()
    KEPT.append(entered)


@kind("output")
def endless(y: Tensor) -> Any:
    """Return a list that contains itself."""
    out: list[Any] = [y]
    out.append(out)
    return out
