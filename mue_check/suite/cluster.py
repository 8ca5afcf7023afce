"""``pytest suites/ --cluster ADDRESS|local``: xdist workers run the tests, and a Ray cluster measures the cells."""

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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from mue_check.errors import SpecError
from mue_check.suite.workers import refuse_other_workers, start_workers

START_SECONDS, REACH_SECONDS = 180.0, 60.0
"""Time limits for starting a local cluster, and for an answer from a Ray head."""
MOST_WORKERS = 16
"""Default limit on workers, since each is a process with torch on pytest's machine."""

_ADDRESS = re.compile(r"local|([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}")
_CLUSTER = pytest.StashKey["ClusterInfo"]()


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """A running cluster. ``environment`` are the variables that its drivers need, with the token of a local one."""

    address: str
    cpus: float
    gpus: float
    environment: Mapping[str, str] = field(repr=False)

    def slots(self, device: str, gpu_share: float) -> int:
        """How many batches can train at once."""
        return int(self.gpus / gpu_share) if device == "cuda" else int(self.cpus)

    def __str__(self) -> str:
        return f"cluster {self.address}: {self.cpus:g} CPUs, {self.gpus:g} GPUs"


def add_options(group: pytest.OptionGroup) -> None:
    """The options of a run on a cluster."""
    group.addoption(
        "--cluster", metavar="HOST:PORT|local", help="measure on this Ray cluster; local starts one on this machine"
    )
    group.addoption(
        "--cluster-workers", type=int, metavar="K", help="tests to run at once (default: the cluster's slots)"
    )
    group.addoption("--gpu-share", type=float, metavar="F", help="GPU share of each task on a cluster (default: 1)")


def start(config: pytest.Config) -> None:
    """Connect to or start the cluster of the command line, and start workers that use it. SpecError if that fails."""
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
    config.stash[_CLUSTER] = found
    start_workers(config, [found.environment] * (option.cluster_workers or min(slots, MOST_WORKERS)))


def join(config: pytest.Config) -> None:
    """Measure on the cluster from now on, in a worker."""
    if config.option.cluster is None or not hasattr(config, "workerinput"):
        return
    from mue_check.execute import use
    from mue_check.execute.cluster import Cluster

    @cache
    def joined() -> Cluster:
        cluster = Cluster(os.environ["RAY_ADDRESS"], gpu_share=config.option.gpu_share or 1.0)
        config.add_cleanup(cluster.close)
        return cluster

    # connect at the first question, so that a worker without a cluster fails its tests and not the run
    use(lambda batches: joined()(batches))


def header(config: pytest.Config) -> list[str]:
    """A line about the cluster."""
    found = config.stash.get(_CLUSTER, None)
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
        raise SpecError("--cluster: cannot be combined with --gpus: the GPUs are those of the cluster")
    refuse_other_workers(config, "--cluster")
    if not _has_ray():
        raise SpecError("--cluster needs Ray: pip install 'mue_check[cluster]'")


def _has_ray() -> bool:
    try:
        return importlib.util.find_spec("ray") is not None
    except ValueError:  # an entry of sys.modules disables it
        return False


def reach(address: str, add_cleanup: Callable[[Callable[[], None]], None]) -> ClusterInfo:
    """Connect in a separate process, which also runs a local cluster and ends with this one. SpecError."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address == "local":  # keep others on the network from running code here
        token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    host = subprocess.Popen(
        [sys.executable, "-m", "mue_check.suite.ray_host", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C goes to pytest, which ends the cluster last
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
        raise SpecError(f"--cluster {address}: Ray cannot connect; this machine must be a node (ray start)")
    result = json.loads(line)
    if "error" in result:
        raise SpecError(f"--cluster {address}: {result['error']}")
    environment["RAY_ADDRESS"] = result["address"]
    return ClusterInfo(address=result["address"], cpus=result["cpus"], gpus=result["gpus"], environment=environment)


def _end(host: subprocess.Popen[bytes]) -> None:
    """End a local cluster, and wait for it."""
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.close()
    try:
        host.wait(timeout=30)
    except subprocess.TimeoutExpired:
        host.kill()
        host.wait()
    host.stdout.close()
