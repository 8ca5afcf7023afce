"""A process that reaches a Ray cluster, or is one: what it finds it writes as a line of JSON.

``python -m mue_check.suite.ray_host ADDRESS|local``. A local cluster lives until standard input ends, and that ends
when pytest does, however it dies. Ray stays out of pytest's controller: a connection that hangs can be given up.
"""

import json
import logging
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from mue_check.listener import require_listener

OBJECT_STORE_BYTES = 512 * 2**20
"""Of a local cluster: corpora and tables of numbers, no tensors. What does not fit goes to the disk."""


def main() -> None:
    """Write {"address", "cpus", "gpus"} or {"error"}."""
    address = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    with tempfile.TemporaryDirectory(prefix="ray", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        try:
            found = _connect(address, folder)
        except Exception as error:  # nobody listens, or whatever Ray raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            found = {"error": lines[0][:300]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()
        if address == "local" and "error" not in found:
            sys.stdin.read()
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def _short_folder() -> str | None:
    """Ray puts sockets into its folder, and their paths must be short."""
    return "/tmp" if Path("/tmp").is_dir() else None


def _connect(address: str, folder: str) -> dict[str, Any]:
    if address != "local":
        require_listener(address)
    ray: Any = import_module("ray")  # half of it is typed
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        quiet |= {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": folder,
        }
    ray.init(address=address, **quiet)
    resources = ray.cluster_resources()
    return {
        "address": ray.get_runtime_context().gcs_address,
        "cpus": resources.get("CPU", 0),
        "gpus": resources.get("GPU", 0),
    }


if __name__ == "__main__":
    main()
