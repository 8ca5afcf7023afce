"""Run other people's code in a child process, because it may hang in C, exit, print without end or raise anything."""

import ctypes
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from mue_check.errors import MueCheckError, first_line

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of linux/prctl.h."""
_LONGEST = 160


class ChildError(MueCheckError):
    """A call in a child process that hung, ended the process, or raised an exception other than a MueCheckError."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A child process that holds an object. After a ChildError other than "raises" it cannot be used anymore."""

    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    errors: Path

    def call(self, method: str, *args: object, limit: float, doing: str = "") -> Any:
        """Call a method of the object and return its result, within at most ``limit`` seconds.

        A MueCheckError of the method is raised here. Everything else becomes a ChildError: "hangs", "ends its process"
        or "raises". ``doing`` completes the message, for example " while it is checked".
        """
        with suppress(OSError):  # if the child has died, the read below reports it
            self.pipe.send((method, args))
        try:
            if not self.pipe.poll(limit):
                raise ChildError(f"hangs{doing}: no answer in {limit:g} s")
            ok, answer = self.pipe.recv()
        except (EOFError, OSError):
            raise ChildError(self._death(doing)) from None
        if ok:
            return answer
        raise answer if isinstance(answer, MueCheckError) else ChildError(f"raises {answer}{doing}")

    def _death(self, doing: str) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        lines = self.errors.read_text(errors="replace").strip().splitlines()
        return f"ends its process ({how}){doing}" + (f": {lines[-1][:_LONGEST]}" if lines else "")


@contextmanager
def isolated(make: Callable[..., object], *args: object, limit: float, doing: str = "") -> Iterator[Child]:
    """A child process that holds the object ``make(*args)``, until the context ends. Raises as ``Child.call`` does.

    ``make`` and all values must be picklable. The child ends with this process even if this one is killed.
    """
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    with tempfile.NamedTemporaryFile() as errors:
        process = spawn.Process(target=_serve, args=(theirs, errors.name, os.getpid()))
        process.start()
        theirs.close()
        child = Child(process=process, pipe=ours, errors=Path(errors.name))
        try:
            child.call("", make, *args, limit=limit, doing=doing)
            yield child
        finally:
            process.kill()
            process.join()
            process.close()
            ours.close()


def _serve(pipe: "Connection[Any, Any]", errors: str, parent: int) -> None:
    """Make the object and call its methods, as the parent requests."""
    with suppress(OSError, AttributeError):  # only Linux can end a child with its parent
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
    if os.getppid() != parent:  # the parent died before prctl
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_APPEND), 2)
    target: object = None
    while True:
        try:
            method, args = pipe.recv()
            if method:
                answer = getattr(target, method)(*args)
            else:
                make, *args = args
                target, answer = make(*args), None
            pipe.send((True, answer))
        except EOFError:
            os._exit(0)  # threads that the code left behind must not keep the process alive
        except MueCheckError as error:
            pipe.send((False, error))
        except BaseException as error:
            pipe.send((False, f"{type(error).__name__}: {first_line(error)}"))
