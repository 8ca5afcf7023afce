"""Cells on a Ray cluster: the records are those of one quiet process, whatever dies."""

import importlib.util
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mue_check import Experts, ModelSpec, Scenario, get_rule
from mue_check.cluster import ClusterInfo
from mue_check.data import load_corpus
from mue_check.errors import ClusterError
from mue_check.execute import ensure
from mue_check.execute.batches import Batch
from mue_check.models.user_router.loaded import load_router
from mue_check.records import Cell
from mue_check.routing.variants import USER_ROUTERS
from tests.studies import new_store, records

if TYPE_CHECKING:
    from mue_check.execute.cluster import Cluster

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra: cluster)")
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUTER = """
import os
import torch
from scores import softmax
from pieces.last import normed

class Router(torch.nn.Linear):
    def __init__(self, d_model, n_experts, top_k):
        super().__init__(d_model, n_experts)
        self.top_k = top_k
        if "RAY_RAYLET_PID" in os.environ and not os.path.exists(FLAG):
            open(FLAG, "x").close()
            os._exit(1)

    def forward(self, x):
        weights, indices = softmax(super().forward(x)).topk(self.top_k, dim=-1)
        return normed(weights), indices

FLAG = {flag!r}
"""
make_cells = runpy.run_path(str(HERE / "test_local.py"))["make_cells"]


@dataclass(frozen=True)
class Sent:
    """A driver of the cluster, and what it had when it joined: a router of several files, and tokens of a file."""

    cluster: "Cluster"
    router: str
    folder: Path


@pytest.fixture(scope="module")
def sent(found: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """This process as a driver. Ray is imported here: it reads the token when it is imported."""
    from mue_check.execute.cluster import Cluster

    folder = tmp_path_factory.mktemp("driver")
    (folder / "pieces").mkdir(parents=True)
    (folder / "mine.py").write_text(ROUTER.format(flag=str(folder.with_name("died"))))
    (folder / "scores.py").write_text("def softmax(x):\n    return x.softmax(-1)\n")
    (folder / "pieces" / "__init__.py").write_text("SMALLEST = 1e-9\n")
    (folder / "pieces" / "last.py").write_text(
        "from pieces import SMALLEST\ndef normed(w):\n    return w / (w.sum(-1, keepdim=True) + SMALLEST)\n"
    )
    np.random.default_rng(0).integers(0, 30, 20_000).astype(np.uint16).tofile(folder / "tokens.bin")
    router = load_router("mine.py:Router", folder)
    cluster = Cluster(found.address)
    yield Sent(cluster, router.name, folder)
    cluster.close()
    del USER_ROUTERS[router.name]  # its sources cannot be shipped again


@pytest.fixture
def cluster(sent: Sent) -> "Cluster":
    return sent.cluster


@pytest.fixture
def run(cluster: "Cluster", monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Have the nodes do a function of this file in place of a measurement."""
    import ray

    from mue_check.execute import cluster as module

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    monkeypatch.setattr(module, "RETRIES", 1)

    def replace_task(function) -> None:
        task = ray.remote(num_cpus=1, max_retries=module.RETRIES)(function)
        monkeypatch.setattr(module, "_task", task)

    yield replace_task
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def tried(cell: Cell) -> int:
    """How often this cell's task was begun, this time included; its corpus names the file that counts."""
    with open(cell.corpus + ".tries", "a") as file:
        file.write("x")
        return file.tell()


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    corpus = tmp_path / "own.bin"
    np.zeros(5000, dtype=np.uint16).tofile(corpus)
    return tuple(replace(cell, corpus=str(corpus)) for cell in make_cells(1))


def raises(batch, corpus, parcel):
    tried(batch[0])
    raise ValueError("the words of a measurement")


def dies(batch, corpus, parcel):
    tried(batch[0])
    os._exit(3)


def dies_once(batch, corpus, parcel):
    if tried(batch[0]) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return [], {}


def runs_out_once(batch, corpus, parcel):
    if tried(batch[0]) == 1:
        raise MemoryError
    return [], {}


def runs_out(batch, corpus, parcel):
    tried(batch[0])
    raise MemoryError("of the node")


@pytest.mark.parametrize(
    ("task", "error", "says", "tries"),
    [
        (raises, ValueError, "the words of a measurement", 1),
        (dies_once, None, "", 2),
        (dies, ClusterError, r"the cluster lost loss_grid .*, after up to 1 retries: ", 2),
        (runs_out_once, None, "", 2),
        (runs_out, MemoryError, "of the node", 2),
    ],
)
def test_what_fails(
    cluster: "Cluster", run, batch: Batch, task, error: type[Exception] | None, says: str, tries: int
) -> None:
    run(task)
    if error is None:
        assert list(cluster([batch])) == [(batch, [])]
    else:
        with pytest.raises(error, match=says):
            list(cluster([batch]))
    assert len(Path(batch[0].corpus + ".tries").read_text()) == tries


def test_what_a_task_needs_travels_with_it(sent: Sent, tmp_path: Path) -> None:
    """The files of the router and the tokens are gone when the nodes begin, and the first task dies."""
    tokens = sent.folder / "tokens.bin"
    mixture = Experts(total=4, activated=2, hidden=16, router=sent.router)
    model = ModelSpec(width=32, depth=1, feed_forward=mixture)
    cells = []
    for cell in make_cells(2):
        scenario = Scenario.of(model, cell.train)
        prescription = get_rule("complete_mue").prescribe(scenario, scenario)
        fingerprint = load_corpus(str(tokens)).fingerprint
        placed = replace(cell, corpus=str(tokens), corpus_fingerprint=fingerprint)
        cells.append(replace(placed, model=model, prescription=prescription))
    quiet, there = new_store(tmp_path / "quiet"), new_store(tmp_path / "there")
    ensure(cells, quiet)
    shutil.rmtree(sent.folder)
    ensure(cells, there, sent.cluster)
    assert sent.folder.with_name("died").exists()
    assert records(there.root) == records(quiet.root) != {}
    assert all(there.cost(cell.key) > 0 for cell in cells)


def where(batch, corpus, parcel):
    import mue_check

    return [mue_check.__file__], {}


def test_the_nodes_have_the_drivers_code(cluster: "Cluster", run, batch: Batch) -> None:
    run(where)
    ((_, (file,)),) = cluster([batch])
    assert "runtime_resources" in file
    assert not Path(file).is_relative_to(ROOT)


QUICKLY = {
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "3",
}
"""How soon Ray takes a silent node for dead: it would wait for 20 s."""


def may_unshare() -> bool:
    """Whether a process may have a network of its own (root on Linux)."""
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-n", "true"], check=False).returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="a network of its own is not permitted here (unshare -n)")
def test_a_node_that_loses_its_power_loses_no_cell(tmp_path: Path) -> None:
    quiet, rough = new_store(tmp_path / "quiet"), new_store(tmp_path / "rough")
    cells, steps = 32, 40  # four batches
    env = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as short:
        result = subprocess.run(
            ["unshare", "-n", sys.executable, HERE / "two_nodes.py", rough.root, str(cells), str(steps)],
            env={**env, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": short, **QUICKLY},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert result.returncode == 0, result.stdout + result.stderr
    seen = json.loads((rough.root / "seen.json").read_text())
    assert seen["failed"] == []
    assert seen["shares"] == [0.5, 0.5]
    assert seen["killed"] == 1  # one CPU, one task, in the middle of it
    assert 0 < seen["stored"] < cells
    ensure(make_cells(cells, steps), quiet)
    assert records(rough.root) == records(quiet.root)
