"""The fingerprint of a user's router: it changes with what the router does, and with nothing else."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mue_check.errors import ClaimError
from mue_check.execute.same_router import require_same_behavior
from mue_check.models.user_router.fingerprint import fingerprint
from mue_check.models.user_router.loaded import add_router, load_router
from mue_check.models.user_router.trial import try_isolated
from mue_check.routing.factory import Shape, candidate_of
from mue_check.routing.variants import USER_ROUTERS
from tests.models import user_routers as users

ROUTER = """
import os, random, time
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Router(nn.Module):
    def __init__(self, d_model, n_experts, top_k):
        super().__init__()
        self.gate = nn.Linear(d_model, n_experts, bias=False)
        self.top_k = top_k
        {built}

    def forward(self, x):
        logits = self.gate(x)
        {called}
        weights, indices = logits.softmax(-1).topk(self.top_k, dim=-1)
        return weights / weights.sum(-1, keepdim=True), indices
"""


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    USER_ROUTERS.clear()


def written(folder: Path, *, built: str = "pass", called: str = "pass") -> Path:
    (folder / "mine.py").write_text(ROUTER.format(built=built, called=called))
    return folder


def name(folder: Path) -> str:
    return load_router("mine.py:Router", folder).name


def change_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "scale.txt").write_text("2.0")


def change_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(torch.tensor([0.0, 0.5]), folder / "bias.pt")


def change_variable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTER_SCALE", "2.0")


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ({"called": "logits = logits * float(Path(__file__).with_name('scale.txt').read_text())"}, change_file),
        ({"built": "self.scale = float(Path(__file__).with_name('scale.txt').read_text())",
          "called": "logits = logits * self.scale"}, change_file),
        ({"built": "self.register_buffer('bias', torch.load(Path(__file__).with_name('bias.pt')))",
          "called": "logits = logits + self.bias[0] + self.bias[1] * logits.sign()"}, change_checkpoint),
        ({"called": "logits = logits * float(os.environ['ROUTER_SCALE'])"}, change_variable),
        # seen in training mode alone, in gradients alone, in a buffer's next value alone
        ({"called": "logits = logits + self.training * float(os.environ['ROUTER_SCALE'])*torch.randn_like(logits)"},
         change_variable),
        ({"called": "logits = logits + (float(os.environ['ROUTER_SCALE']) - 1) * (logits - logits.detach())"},
         change_variable),
        ({"built": "self.register_buffer('seen', torch.zeros(()))",
          "called": "self.seen += float(os.environ['ROUTER_SCALE'])"}, change_variable),
    ],
)  # fmt: skip
def test_the_name_changes_with_what_the_router_reads(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: dict[str, str],
    change: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    (tmp_path / "scale.txt").write_text("1.0")
    torch.save(torch.zeros(2), tmp_path / "bias.pt")
    monkeypatch.setenv("ROUTER_SCALE", "1.0")
    before = name(written(tmp_path, **code))
    assert name(tmp_path) == before
    change(tmp_path, monkeypatch)
    assert name(tmp_path) != before


def test_it_is_the_same_in_another_process_and_with_more_threads() -> None:
    code = (
        "import sys, torch; torch.set_num_threads(2)\n"
        "from mue_check.models.user_router.fingerprint import fingerprint\n"
        "from mue_check.routing.factory import load_candidate\n"
        "for name in sys.argv[1:]: print(fingerprint(load_candidate('router', name)))"
    )
    factories = [users.Softmax, users.Noisy, users.Counting, users.Mlp, users.ExpertChoice]
    names = [f"{factory.__module__}:{factory.__name__}" for factory in factories]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", code, *names]
    there = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    before = torch.get_rng_state()
    assert [fingerprint(candidate_of("router", factory)) for factory in factories] == there
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "noise", ["random.random()", "float(np.random.rand())", "time.perf_counter() % 1", "int.from_bytes(os.urandom(1))"]
)
def test_a_router_that_cannot_be_repeated_is_told_so(tmp_path: Path, noise: str) -> None:
    written(tmp_path, called=f"logits = logits * (1 + {noise})")
    with pytest.raises(ClaimError, match="gives other results for the same weights, tokens and torch seed"):
        name(tmp_path)


def test_a_router_that_differs_from_process_to_process_has_another_name_there(tmp_path: Path) -> None:
    written(tmp_path, called="logits = logits * (1 + os.getpid() % 1000)")
    with try_isolated("mine.py:Router", tmp_path, None) as trial:
        assert trial.name() != name(tmp_path)
    written(tmp_path)
    with try_isolated("mine.py:Router", tmp_path, None) as trial:
        assert trial.name() == name(tmp_path)


def test_one_that_hangs_when_it_is_called_is_found_in_the_other_process() -> None:
    sleeps = "tests.misbehaving:Sleeps"
    with (
        pytest.raises(ClaimError, match=r"called with fixed tokens, it hangs: no answer in 0\.1 s"),
        try_isolated(sleeps, Path(), None) as trial,
    ):
        trial.name(limit=0.1)


def test_one_that_raises_at_some_sizes_still_has_a_name(tmp_path: Path) -> None:
    written(tmp_path, built="assert d_model == 32, 'made for 32'")
    assert name(tmp_path) == name(tmp_path)
    candidate = candidate_of("router", users.Sigmoid, name="users:Sigmoid")
    assert add_router(candidate, trains=False).name != add_router(candidate).name


def test_a_file_for_one_size_of_a_study_is_seen_by_the_study(tmp_path: Path) -> None:
    scale = "Path(__file__).with_name(f'{x.shape[-1]}.txt')"
    written(tmp_path, called=f"logits = logits * float({scale}.read_text() if {scale}.exists() else 1)")
    sizes = [Shape(d=48, f=0, experts=8, activated=2, tokens=0), Shape(d=96, f=0, experts=8, activated=2, tokens=0)]
    before = name(tmp_path)
    require_same_behavior(before, sizes[:1], tmp_path / "study")
    require_same_behavior(before, sizes, tmp_path / "study")
    (tmp_path / "96.txt").write_text("3.0")
    assert name(tmp_path) == before
    require_same_behavior(before, sizes[:1], tmp_path / "study")
    with pytest.raises(ClaimError, match=r"at d=96 .* it behaves differently than when .*study' was measured"):
        require_same_behavior(before, sizes, tmp_path / "study")
