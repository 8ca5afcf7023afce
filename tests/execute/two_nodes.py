"""Two Ray nodes in a network of their own, one of which loses its power while both measure.

Run as ``unshare -n python two_nodes.py FOLDER CELLS STEPS``: with loopback alone Ray settles on 127.0.0.1.
"""

import fcntl
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import ray
from ray.cluster_utils import Cluster as Nodes

from mue_check.execute import cluster as cluster_module
from mue_check.execute import ensure
from mue_check.execute.cluster import Cluster
from mue_check.records import Cell, Store

HERE = Path(__file__).parent
MEGABYTES = 150
LIMIT = 120.0


def raise_loopback() -> None:
    """What ``ip link set lo up`` does."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket() as any_socket:
        flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, get_flags, struct.pack("16sh22x", b"lo", 0)))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", flags | up))


def measuring(raylet: int) -> list[int]:
    """The processes of a node that are in a task: Ray writes a task's name into the command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            name = (process / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if parent == raylet and name.startswith(b"ray::_measure"):
            found.append(int(process.name))
    return found


def gpu_shares(cluster: Cluster, cells: list[Cell], folder: Path) -> list[float]:
    """What the tasks of two cells for a GPU are given. Ray believes a node that says it has one.

    Each waits for the other, so that afterwards both nodes have a process that is ready to measure.
    """

    def look(batch, corpus, parcel):
        import mue_check.execute.batches  # noqa: F401

        (folder / f"ready{os.getpid()}").touch()
        deadline = time.monotonic() + LIMIT
        while len(list(folder.glob("ready*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        return [ray.get_runtime_context().get_assigned_resources().get("GPU", 0)], {}

    with patch.object(cluster_module, "_task", ray.remote(num_cpus=1)(look)):
        return [share for _, (share,) in cluster([(replace(cell, device="cuda"),) for cell in cells])]


def main() -> None:
    """Measure with two nodes and kill the second at work, when cells are stored already; FOLDER/seen.json says how."""
    store = Store(Path(sys.argv[1]))
    cells = runpy.run_path(str(HERE / "test_local.py"))["make_cells"](int(sys.argv[2]), int(sys.argv[3]))
    raise_loopback()
    sizes = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": MEGABYTES * 2**20}
    nodes = Nodes(initialize_head=True, head_node_args={**sizes, "include_dashboard": False})
    second = nodes.add_node(**sizes)
    cluster = Cluster(nodes.address, gpu_share=0.5)
    shares = gpu_shares(cluster, cells[:2], store.root)
    failed: list[Exception] = []

    def work() -> None:
        try:
            ensure(cells, store, cluster)
        except Exception as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    raylet = second.all_processes["raylet"][0].process.pid
    deadline = time.monotonic() + LIMIT
    killed: list[int] = []
    stored = 0
    while worker.is_alive() and time.monotonic() < deadline and not (stored and killed):
        time.sleep(0.02)
        stored, killed = len(list((store.root / "cells").glob("*.json"))), measuring(raylet)
    for process in (raylet, *killed):
        with suppress(ProcessLookupError):  # it dies with its node
            os.kill(process, signal.SIGKILL)
    worker.join(LIMIT)
    seen = {"killed": len(killed), "stored": stored, "shares": shares, "failed": [str(error) for error in failed]}
    (store.root / "seen.json").write_text(json.dumps(seen))
    cluster.close()
    nodes.shutdown()


if __name__ == "__main__":
    main()
