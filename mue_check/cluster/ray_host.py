"""A process that connects to a Ray cluster, or runs one, and prints what it has as a line of JSON.

``python -m mue_check.cluster.ray_host ADDRESS|local``. A local cluster runs until standard input closes, which happens
however pytest ends. Ray is not imported into pytest's controller, so a connection that hangs can be abandoned.
"""

import json
import logging
import os
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from mue_check.cluster.reach import require_listener
from mue_check.user_code import first_line

OBJECT_STORE_BYTES = 512 * 2**20
"""Object store of a local cluster. It holds corpora and tables but no tensors, and spills to disk when it is full."""


def main() -> None:
    """Print {"address", "cpus", "gpus"} or {"error"}."""
    address = sys.argv[1]
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep Ray's output separate
    with tempfile.TemporaryDirectory(prefix="ray", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        try:
            result = _connect(address, folder)
        except Exception as error:  # nothing listens there, or Ray fails in one of its ways
            result = {"error": first_line(error) or type(error).__name__}
        output.write(json.dumps(result) + "\n")
        output.flush()
        if address == "local" and "error" not in result:
            sys.stdin.read()
        if "ray" in sys.modules:
            sys.modules["ray"].shutdown()


def _short_folder() -> str | None:
    """Ray's folder holds sockets, whose paths must be short."""
    return "/tmp" if Path("/tmp").is_dir() else None


def _connect(address: str, folder: str) -> dict[str, Any]:
    if address != "local":
        require_listener(address)
    ray: Any = import_module("ray")  # it is only partly typed
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
