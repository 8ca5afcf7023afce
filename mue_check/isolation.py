"""A user's router tried in a process of its own first: one that hangs, or ends its process, would take pytest along.

What it says with an ordinary exception is left to the process that asks: it tries the same again, and says it better.
"""

import json
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mue_check.errors import ClaimError
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Shape, first_line

IMPORT_LIMIT, SIZE_LIMIT = 120.0, 60.0
"""Seconds without an answer after which it hangs: while it is imported, and at one size."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The other process. It has imported the router."""

    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]

    def at(self, shapes: Iterable[Shape], limit: float = SIZE_LIMIT) -> None:
        """Build it and call it at every size; ClaimError where it does not come back."""
        for shape in shapes:
            where = f"at d_model={shape.d}, n_experts={shape.experts}, top_k={shape.activated}: it"
            self.ask(shape, limit, where)

    def ask(self, what: object, limit: float, where: str) -> None:
        """Send something to do, and wait until it is done."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):  # it has died, as the answer will tell
            self.process.stdin.write(pickle.dumps(what))
            self.process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(limit):
                raise ClaimError(f"{where} hangs: no answer in {limit:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise ClaimError(f"{where} ends its process ({self._death()})")
        if error := json.loads(line):
            raise ClaimError(f"{where} raises {error}")

    def _death(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        last = f": {said[-1][:160]}" if said else ""
        return (f"signal {-code}" if code < 0 else f"exit code {code}") + last


@contextmanager
def apart(text: str, folder: Path, claim: RoutingSpec | None, limit: float = IMPORT_LIMIT) -> Iterator[Trial]:
    """The router of MODULE:FACTORY or FILE.py:FACTORY, imported in a process that ends with the context. ClaimError."""
    package = str(Path(__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "mue_check.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            trial = Trial(process=process, errors=errors)
            trial.ask((text, folder, claim, sys.path), limit, "importing it")
            yield trial
        finally:
            process.kill()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                # what it was to do next may still be there to be sent
                with suppress(BrokenPipeError):
                    pipe.close()


def _main() -> None:
    """Do what is asked for on standard input, and write one JSON line for each: what was raised past all, or null."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a router prints is no answer
    name = ""
    while True:
        try:
            asked: Any = pickle.load(sys.stdin.buffer)
        except EOFError:
            os._exit(0)
        error = None
        try:
            name = _do(asked, name)
        except ClaimError:
            pass  # the process that asks comes to the same, and tells it
        except BaseException as raised:
            error = f"{type(raised).__name__}: {first_line(raised)}"
        answers.write(json.dumps(error) + "\n")


def _do(asked: Any, name: str) -> str:
    import torch

    from mue_check.models.user_router.load import load_router
    from mue_check.models.user_router.stacked import LOADED

    torch.set_num_threads(1)
    if isinstance(asked, Shape):
        if name:
            LOADED[name].manner(asked)
        return name
    text, folder, claim, sys.path[:] = asked
    return load_router(text, folder, claim).name


if __name__ == "__main__":
    _main()
