"""``pytest suites/ --cluster ADDRESS|local``: light xdist workers ask the questions, and a Ray cluster measures."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from mue_check.errors import SpecError
from mue_check.suite.workers import refuse_other_workers, start_workers

START_SECONDS, REACH_SECONDS = 180.0, 60.0
"""Without an answer after so long a local cluster does not start, and an address is none of a Ray head."""
MOST_WORKERS = 16
"""Of those that are started unasked: each holds a Python with torch on the machine of pytest."""

_ADDRESS = re.compile(r"local|([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}")
_FOUND = pytest.StashKey["Found"]()


@dataclass(frozen=True, kw_only=True)
class Found:
    """A cluster that can be reached; ``environment`` is what a driver of it needs."""

    address: str
    cpus: float
    gpus: float
    environment: Mapping[str, str]

    def slots(self, device: str, gpu_share: float) -> int:
        """Batches that can train at once."""
        return int(self.gpus / gpu_share) if device == "cuda" else int(self.cpus)

    def __str__(self) -> str:
        return f"cluster {self.address}: {self.cpus:g} CPUs, {self.gpus:g} GPUs"


def add_options(group: pytest.OptionGroup) -> None:
    """The options of a run on a cluster."""
    group.addoption(
        "--cluster", metavar="HOST:PORT|local", help="measure on this Ray cluster; local: one of this machine's own"
    )
    group.addoption("--cluster-workers", type=int, metavar="K", help="questions asked at once (default: its slots)")
    group.addoption("--gpu-share", type=float, metavar="F", help="GPU share of a task on a cluster (default: 1)")


def start(config: pytest.Config) -> None:
    """Reach or start the cluster that the command line asks for, and have workers started that drive it. SpecError."""
    option = config.option
    if hasattr(config, "workerinput"):
        return
    _check(config)
    if option.cluster is None or option.collectonly:
        return
    from mue_check.catalog import get_tier

    tier, share = get_tier(option.tier or "smoke"), option.gpu_share or 1.0
    found = reach(option.cluster, config.add_cleanup)
    slots = found.slots(tier.device, share)
    if slots < 1:
        what = f"{share:g} GPU" if tier.device == "cuda" else "a CPU"
        raise SpecError(f"--cluster {option.cluster}: --tier {tier.name} needs {what} per task, and the {found}")
    config.stash[_FOUND] = found
    start_workers(config, [found.environment] * (option.cluster_workers or min(slots, MOST_WORKERS)))


def join(config: pytest.Config) -> None:
    """In a worker: from now on this process measures on the cluster."""
    if config.option.cluster is None or not hasattr(config, "workerinput"):
        return
    from mue_check.execute import use
    from mue_check.execute.cluster import Cluster

    @cache
    def joined() -> Cluster:
        cluster = Cluster(os.environ["RAY_ADDRESS"], gpu_share=config.option.gpu_share or 1.0)
        config.add_cleanup(cluster.close)
        return cluster

    # at the first question: a worker that replaces another when the cluster is gone can then say so
    use(lambda batches: joined()(batches))


def header(config: pytest.Config) -> list[str]:
    """What the cluster has."""
    found = config.stash.get(_FOUND, None)
    return [f"mue_check: {found}"] if found else []


def _check(config: pytest.Config) -> None:
    option = config.option
    for name in ("cluster_workers", "gpu_share"):
        if option.cluster is None and getattr(option, name) is not None:
            raise SpecError(f"--{name.replace('_', '-')} goes with --cluster")
    if option.cluster is None:
        return
    if not _ADDRESS.fullmatch(option.cluster):
        raise SpecError(f"--cluster {option.cluster!r}: write local, or HOST:PORT of a Ray head")
    if option.cluster_workers is not None and option.cluster_workers < 1:
        raise SpecError(f"--cluster-workers {option.cluster_workers}: must be at least 1")
    if option.gpu_share is not None and not 0 < option.gpu_share <= 1:
        raise SpecError(f"--gpu-share {option.gpu_share:g}: must be above 0 and at most 1")
    if getattr(option, "gpus", None) is not None:
        raise SpecError("--cluster: cannot go with --gpus: the cluster has the GPUs")
    refuse_other_workers(config, "--cluster")
    if not _has_ray():
        raise SpecError("--cluster needs Ray: pip install 'mue_check[cluster]'")


def _has_ray() -> bool:
    try:
        return importlib.util.find_spec("ray") is not None
    except ValueError:  # switched off by an entry of sys.modules
        return False


def reach(address: str, add_cleanup: Callable[[Callable[[], None]], None]) -> Found:
    """Ask a process of its own, which also is the local cluster and ends with this one. SpecError."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address == "local":  # nobody else on the network may run code here
        token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    host = subprocess.Popen(
        [sys.executable, "-m", "mue_check.suite.ray_host", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C is for pytest, which ends the cluster last
    )
    add_cleanup(lambda: _end(host))
    assert host.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(host.stdout, selectors.EVENT_READ)
        limit = START_SECONDS if address == "local" else REACH_SECONDS
        line = host.stdout.readline() if selector.select(limit) else None
    if line is None:
        host.kill()
        raise SpecError(f"--cluster {address}: no answer from Ray in {limit:g} s")
    if not line:
        raise SpecError(f"--cluster {address}: Ray gives up; this machine must be a node of the cluster (ray start)")
    said = json.loads(line)
    if "error" in said:
        raise SpecError(f"--cluster {address}: {said['error']}")
    environment["RAY_ADDRESS"] = said["address"]
    return Found(address=said["address"], cpus=said["cpus"], gpus=said["gpus"], environment=environment)


def _end(host: subprocess.Popen[bytes]) -> None:
    """Let a local cluster go, and wait until it is gone."""
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.close()
    try:
        host.wait(timeout=30)
    except subprocess.TimeoutExpired:
        host.kill()
        host.wait()
    host.stdout.close()
