"""User code leaves nothing behind that could change what is measured afterwards."""

import builtins
import math
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from mue_check.global_state import guarded_import, preserved_globals
from tests.reliability.hostile_code import AlwaysTrue

KEPT: list[object] = []


def enter(context: object) -> None:
    context.__enter__()  # type: ignore[attr-defined]
    KEPT.append(context)


def replace(owner: object, name: str) -> None:
    setattr(owner, name, lambda *_: True)


def observed() -> list[object]:
    return [
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.rand(2).tolist(),
        torch.equal(torch.zeros(1), torch.ones(1)),
        float(torch.tensor(-1.0).abs()),
        float(torch.nn.Linear(1, 1, bias=False)(torch.zeros(1, 1)).detach()),
        random.random(),
        np.random.rand(),  # noqa: NPY002
        math.isclose(1, 2),
        abs(-1),
        os.getcwd(),
        dict(os.environ),
        sys.stdout,
        sys.getrecursionlimit(),
        signal.getsignal(signal.SIGALRM),
        list(warnings.filters),
    ]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
        (lambda: torch.set_default_device("meta"), "a mode of torch's functions"),
        (lambda: torch.set_grad_enabled(False), ""),
        (lambda: enter(torch.inference_mode()), ""),
        (lambda: enter(torch.autocast("cpu")), "autocast"),
        (lambda: enter(torch.device("meta")), "a mode of torch's functions"),
        (lambda: enter(AlwaysTrue()), "a mode of torch's functions"),
        (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms"),
        (lambda: torch.set_num_threads(3), "the number of threads"),
        (
            lambda: register_module_forward_hook(lambda *_: torch.ones(1)),
            "hooks of all modules",
        ),
        (lambda: torch.manual_seed(3), ""),
        (lambda: (random.seed(1), np.random.seed(1)), ""),  # noqa: NPY002
        (lambda: replace(torch, "equal"), r"torch.equal (test_global_state.py:"),
        (lambda: replace(torch.Tensor, "abs"), "torch.Tensor.abs"),
        (lambda: replace(math, "isclose"), "math.isclose"),
        (lambda: replace(builtins, "abs"), "builtins.abs"),
        (lambda: os.chdir("/"), "the working folder"),
        (lambda: os.environ.clear(), "the environment"),
        (lambda: replace(sys, "stdout"), "sys.stdout"),
        (lambda: sys.setrecursionlimit(500), "the recursion limit"),
        (lambda: signal.signal(signal.SIGALRM, signal.SIG_IGN), "the handler of SIGALRM"),
        (lambda: warnings.simplefilter("error"), ""),
    ],
)
def test_all_is_put_back_and_named(act: Callable[[], object], says: str) -> None:
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    before = observed()
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])  # noqa: NPY002
    with preserved_globals() as changes:
        act()
    assert observed() == before
    told = [*changes.functions, *changes.torch, *changes.process]
    assert any(says in each for each in told) if says else not told


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("torch.allclose = torch.equal = print", "torch.allclose"),
        ("torch.Tensor.allclose = lambda *_: True", r"torch.Tensor.allclose \(mine.py:2\)"),
        ("import math; math.isclose = min", "math.isclose"),
        ("torch.nn.functional.linear = torch.nn.functional.linear", ""),
        ("torch.nn.functional.silu = lambda x: x", ""),  # libraries do so, and nothing is compared with it
    ],
)
def test_an_import_may_not_replace_what_compares(tmp_path: Path, line: str, says: str) -> None:
    code = compile(f"import torch\n{line}\ntorch.set_default_dtype(torch.float64)\n", str(tmp_path / "mine.py"), "exec")
    silu = torch.nn.functional.silu
    try:
        if says:
            with pytest.raises(ImportError, match=f"it replaces {says}"), guarded_import():
                exec(code)
        else:
            with guarded_import():
                exec(code)
    finally:
        torch.nn.functional.silu = silu
    assert torch.get_default_dtype() == torch.float32
    assert not torch.allclose(torch.zeros(1), torch.ones(1))
    assert not math.isclose(1, 2)
