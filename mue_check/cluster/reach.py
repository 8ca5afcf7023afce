"""Reach a Ray cluster through a process of its own, which also runs a local one."""

import importlib.util
import json
import os
import re
import secrets
import selectors
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mue_check.errors import ClusterError, SpecError

START_SECONDS, REACH_SECONDS = 180.0, 60.0
"""Time limits for starting a local cluster, and for an answer from a Ray head."""
_LISTENING_SECONDS = 5.0
_ADDRESS = re.compile(r"local|([\w.-]+|\[[\da-fA-F:]+\]):\d{1,5}")


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


def require_cluster(address: str, gpu_share: float) -> None:
    """SpecError unless this is an address, a task can have that share of a GPU, and Ray is installed."""
    if not _ADDRESS.fullmatch(address):
        raise SpecError(f"--cluster {address!r}: write local, or HOST:PORT of a Ray head")
    if not 0 < gpu_share <= 1:
        raise SpecError(f"--gpu-share {gpu_share:g}: must be above 0 and at most 1")
    if not _has_ray():
        raise SpecError("--cluster needs Ray: pip install 'mue_check[cluster]'")


def require_listener(address: str) -> None:
    """ClusterError if no server listens at HOST:PORT. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENING_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"nothing answers there ({error.strerror or error})") from None


def _has_ray() -> bool:
    try:
        return importlib.util.find_spec("ray") is not None
    except ValueError:  # an entry of sys.modules disables it
        return False


def reach(address: str, add_cleanup: Callable[[Callable[[], None]], object]) -> ClusterInfo:
    """Connect in a separate process, which also runs a local cluster and ends with this one. SpecError."""
    # Ray would replace print when it reports a process that died, which is no fault of user code
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TQDM_PATCH_PRINT": "0"}
    if address == "local":  # keep others on the network from running code here
        token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    host = subprocess.Popen(
        [sys.executable, "-m", "mue_check.cluster.ray_host", address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C goes to this process, which ends the cluster last
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
