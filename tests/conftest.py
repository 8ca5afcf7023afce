"""A toy corpus, and pytest in this process."""

import contextlib
import gc
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

from mue_check.data import Corpus
from mue_check.routing.variants import USER_ROUTERS

if not torch.cuda.is_available():
    # Triton decides when it is imported how its kernels run, and torch imports it now and then
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).parents[1]


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of garbage collection, which would take a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


QUICK = ("-p", "no:unraisableexception")
"""It collects the garbage of the whole process five times at the end of every run."""


@dataclass(frozen=True, kw_only=True)
class PytestResult:
    """The exit code and the output of a run of pytest."""

    code: int
    out: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.errors.splitlines() if line.strip()]


@pytest.fixture
def run_pytest_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PytestResult]:
    """Runs pytest in this process, which saves seconds. ``cwd``: by default the folder of the repository."""

    def run(*arguments: str | Path, cwd: Path = ROOT) -> PytestResult:
        monkeypatch.chdir(cwd)
        out, errors = io.StringIO(), io.StringIO()
        # asserts are not rewritten: pytest would warn about modules that are imported already
        plain = ("-p", "mue_check.pytest_plugin", "-p", "no:cacheprovider", *QUICK, "--assert=plain")
        # a user's router is forgotten afterwards
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), patch.dict(USER_ROUTERS):
            code = pytest.main([*map(str, arguments), *plain])
        return PytestResult(code=int(code), out=out.getvalue(), errors=errors.getvalue())

    return run


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command does in a child process is done in this one, in a fraction of the time."""

    @contextlib.contextmanager
    def here(make: Callable[..., Any], *arguments: object, **_: object) -> Iterator[Any]:
        made = make(*arguments)
        yield SimpleNamespace(call=lambda method, *a, **_: getattr(made, method)(*a), printed=str)

    for module in ("conformance.isolate", "isolation"):  # the first imports from the second
        monkeypatch.setattr(f"mue_check.{module}.isolated", here)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Every second token repeats the one before, so that there is something to learn."""
    tokens = np.random.default_rng(0).integers(0, 16, 4000).astype(np.uint16)
    tokens[1::2] = tokens[::2]
    return Corpus(name="toy", train=tokens[:3000], heldout=tokens[3000:], vocab=16)
