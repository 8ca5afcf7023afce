"""Run other people's code in a child process, because it may hang in C, exit, print without end or raise anything.

The parent waits for an answer, never for an exit code: a child that ends without an answer is an error. Nothing that
the child sends can run code in the parent, and a fork of the child cannot answer in its place.
"""

import ctypes
import io
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import TIMEOUT_MAX, Event, Thread, Timer
from typing import Any

from mue_check.errors import MueCheckError
from mue_check.user_code import describe_error, one_line

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""
_LONGEST = 160
_KEPT = 1 << 16
"""Bytes of what the child prints that are kept, from the end."""
_LARGEST = 1 << 28
"""Bytes of an answer."""
_SLACK = 1.0
"""Seconds to wait for the last words of a child that has ended."""


class ChildError(MueCheckError):
    """A call in a child process that hung, ended the process, or raised an exception other than a MueCheckError."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A child process that holds an object. After a ChildError other than "raises" it cannot be used anymore."""

    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    output: "_Tail"
    ended: Event = field(default_factory=Event)

    def call(self, method: str, *args: object, limit: float, doing: str = "") -> Any:
        """Call a method of the object and return its result, within at most ``limit`` seconds.

        A MueCheckError of the method is raised here. Everything else becomes a ChildError: "hangs", "ends its process"
        or "raises". ``doing`` completes the message, for example " while it is checked".
        """
        overdue = Event()

        def stop() -> None:
            overdue.set()
            self.kill()

        timer = Timer(min(limit, TIMEOUT_MAX), stop)
        timer.daemon = True
        timer.start()
        try:
            with suppress(OSError):  # if the child has died, the read below reports it
                self.pipe.send((method, args))
            # the end of the child ends this too, in the middle of an answer as well
            answer = self.pipe.recv_bytes(_LARGEST)
        except (EOFError, OSError) as error:
            if overdue.is_set():
                raise ChildError(f"hangs{doing}: no answer in {limit:g} s") from None
            if isinstance(error, OSError) and error.errno is None:  # no length of an answer
                raise ChildError(f"writes into the connection to its process{doing}") from None
            raise ChildError(self._death(doing)) from None
        finally:
            timer.cancel()
        try:
            ok, value = _Plain(io.BytesIO(answer)).load()
        except Exception:
            self.kill()
            raise ChildError(f"writes into the connection to its process{doing}") from None
        if ok:
            return value
        raise value if isinstance(value, MueCheckError) else ChildError(f"raises {value}{doing}")

    def printed(self) -> str:
        """The end of what the child has printed: all of it once the context has ended."""
        return self.output.text()

    def kill(self) -> None:
        """End the child, and the processes of its group that it has started."""
        if not self.ended.is_set():
            self.ended.set()  # once: the number of a process that is gone may be another's
            with suppress(OSError):  # it has no group of its own yet
                os.killpg(self.process.pid or 0, signal.SIGKILL)
            self.process.kill()

    def _death(self, doing: str) -> str:
        wait([self.process.sentinel], _SLACK)
        self.kill()
        self.process.join()
        self.output.thread.join(_SLACK)
        code = self.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lines = self.printed().strip().splitlines()
        return f"ends its process ({how}){doing}" + (f": {one_line(lines[-1][:_LONGEST])}" if lines else "")


@contextmanager
def isolated(make: Callable[..., object], *args: object, limit: float, doing: str = "") -> Iterator[Child]:
    """A child process that holds the object ``make(*args)``, until the context ends. Raises as ``Child.call`` does.

    ``make`` and all values must be picklable. The child ends with this process even if this one is killed.
    """
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    reader, writer = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_serve, args=(theirs, writer, os.getpid()))
    process.start()
    theirs.close()
    writer.close()
    child = Child(process=process, pipe=ours, output=_Tail(reader))
    try:
        child.call("", make, *args, limit=limit, doing=doing)
        yield child
    finally:
        child.kill()
        process.join()
        child.output.thread.join(_SLACK)
        process.close()
        ours.close()


class _Plain(pickle.Unpickler):
    """Reads answers that consist of plain values and of classes of mue_check, so that no user's code runs here."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] != "mue_check" or not name.isidentifier():
            raise pickle.UnpicklingError(f"{module}.{name} is not a class of mue_check")
        found = super().find_class(module, name)
        if not isinstance(found, type) or found.__module__ != module:
            raise pickle.UnpicklingError(f"{module}.{name} is not a class of mue_check")
        return found


class _Pickler(pickle.Pickler):
    """Writes answers that ``_Plain`` can read."""

    def reducer_override(self, value: object) -> Any:
        """Members of an enumeration by their value: Python 3.11.0 to 3.11.3 write a call of ``getattr``."""
        return (type(value), (value.value,)) if isinstance(value, Enum) else NotImplemented


def _dumps(value: object) -> bytes:
    written = io.BytesIO()
    _Pickler(written).dump(value)
    return written.getvalue()


class _Tail:
    """Reads what a child prints, without end if need be, and keeps the last part."""

    def __init__(self, reader: "Connection[Any, Any]") -> None:
        self._kept = bytearray()
        self._reader = reader
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with suppress(OSError), self._reader:
            while part := os.read(self._reader.fileno(), _KEPT):
                self._kept = (self._kept + part)[-_KEPT:]

    def text(self) -> str:
        """What is kept."""
        return self._kept.decode(errors="replace")


def _serve(pipe: "Connection[Any, Any]", output: "Connection[Any, Any]", parent: int) -> None:
    """Make the object and call its methods, as the parent requests."""
    with suppress(OSError):
        os.setsid()  # one signal reaches all its processes, and a Ctrl-C is the parent's
    with suppress(OSError, AttributeError):  # only Linux can end a child with its parent
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)
    with suppress(OSError):  # where memory runs out, this process must go and not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    for stream in (sys.stdout, sys.stderr):  # a child that is killed writes no buffers
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    _leave_tracker()
    own = os.getpid()
    os.register_at_fork(after_in_child=pipe.close)
    target: object = None
    while True:
        try:
            method, args = pipe.recv()
        except EOFError:
            os._exit(0)  # threads that the code left behind must not keep the process alive
        try:
            if method:
                answer = getattr(target, method)(*args)
            else:
                make, *args = args
                target, answer = make(*args), None
            reply = _dumps((True, answer))
        except MueCheckError as error:
            reply = _dumps((False, error if _is_ours(error) else describe_error(error)))
        except BaseException as error:
            reply = _dumps((False, describe_error(error)))
        if os.getpid() != own:  # user code forked, and this copy of it came back
            os._exit(0)
        pipe.send_bytes(reply)


def _leave_tracker() -> None:
    """Close the pipe to the parent's tracker of shared memory: user code could write into it."""
    tracker: Any = resource_tracker._resource_tracker
    if tracker._fd is not None:
        os.close(tracker._fd)
        tracker._fd = None


def _is_ours(error: MueCheckError) -> bool:
    return type(error).__module__.startswith("mue_check.")
