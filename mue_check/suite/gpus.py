"""``--gpus N``: workers on the GPUs of this machine. nvidia-smi lists the GPUs; torch is not imported here."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass

import pytest

from mue_check.errors import SpecError
from mue_check.suite.workers import refuse_other_workers, start_workers

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_SECONDS = 60  # nvidia-smi may wait for a GPU that hangs


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as ``nvidia-smi -L`` lists it, with its MIG devices."""

    index: str
    uuid: str
    parts: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """The only device of it that a process can use."""
        return self.parts[0] if self.parts else self.uuid


def add_gpu_options(group: pytest.OptionGroup) -> None:
    """``--gpus``, ``--gpus-per-worker`` and ``--workers-per-gpu``."""
    group.addoption("--gpus", type=int, metavar="N", help="start one worker for each of N GPUs; implies --tier gpu")
    group.addoption("--gpus-per-worker", type=int, metavar="K", help="GPUs that each worker can use (default: 1)")
    group.addoption("--workers-per-gpu", type=int, metavar="K", help="workers that share each GPU (default: 1)")


def give_gpus(config: pytest.Config) -> None:
    """Start the workers of ``--gpus``, each with its own GPUs. Raises SpecError if that is impossible."""
    count, each = config.getoption("gpus", None), config.getoption("gpus_per_worker", None)
    sharing = config.getoption("workers_per_gpu", None)
    if hasattr(config, "workerinput") or (count is None and each is None and sharing is None):
        return
    if count is None:
        given = f"--workers-per-gpu {sharing}" if each is None else f"--gpus-per-worker {each}"
        raise SpecError(f"{given}: goes with --gpus N")
    each, sharing = (1 if number is None else number for number in (each, sharing))
    if sharing <= 0 or (sharing > 1 and each > 1):
        raise SpecError(f"--workers-per-gpu {sharing}: must be above 0, and 1 where a worker has several GPUs")
    if count <= 0:
        raise SpecError(f"--gpus {count}: must be above 0")
    if each <= 0 or count % each:
        raise SpecError(f"--gpus-per-worker {each}: must be above 0 and divide --gpus {count}")
    refuse_other_workers(config, f"--gpus {count}")
    start_workers(config, shares(count, each) * sharing)


def shares(count: int, each: int = 1) -> list[dict[str, str]]:
    """The environment of each process, where every one has ``each`` of ``count`` GPUs. SpecError without them."""
    try:
        ids = visible_ids(list_gpus(), os.environ.get(_VISIBLE))
        if len(ids) < count:
            where = f"{_VISIBLE}={os.environ[_VISIBLE]!r} leaves" if _VISIBLE in os.environ else "this machine has"
            raise SpecError(f"{where} {len(ids)} GPUs ({', '.join(ids)})" if ids else f"{where} no GPU")
        if each > 1 and any(name.startswith("MIG-") for name in ids[:count]):
            raise SpecError(f"--gpus-per-worker {each}: a process can use only one MIG device")
    except SpecError as error:
        raise SpecError(f"--gpus {count}: {error}") from None
    # number GPUs as nvidia-smi does, unless CUDA_VISIBLE_DEVICES was set with CUDA's own order in mind
    order = {} if _VISIBLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    lists = [",".join(ids[at : at + each]) for at in range(0, count, each)]
    return [{_VISIBLE: share, **order, "OMP_NUM_THREADS": "1"} for share in lists]


def list_gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists. SpecError if it fails or lists none."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except OSError as error:
        raise SpecError(f"no GPU was found: nvidia-smi cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SpecError(f"no GPU was found: nvidia-smi did not answer in {_SECONDS} s") from None
    output = (done.stdout + done.stderr).strip().partition("\n")[0]
    if done.returncode != 0:
        raise SpecError(f"no GPU was found: nvidia-smi ended with {done.returncode}: {output}")
    gpus: list[Gpu] = []
    for line in done.stdout.splitlines():
        if whole := re.match(r"GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", line):
            gpus.append(Gpu(index=whole[1], uuid=whole[2]))
        elif gpus and (part := re.match(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)", line)):
            gpus[-1] = Gpu(index=gpus[-1].index, uuid=gpus[-1].uuid, parts=(*gpus[-1].parts, part[1]))
    if not gpus:
        raise SpecError(f"no GPU was found: nvidia-smi lists none: {output}")
    return gpus


def visible_ids(gpus: list[Gpu], outer: str | None) -> list[str]:
    """The ids for CUDA_VISIBLE_DEVICES: all GPUs, or those in ``outer``, spelled as there.

    SpecError if an id is unknown or names a device twice.
    """
    if outer is None:
        return [name for gpu in gpus for name in gpu.parts or (gpu.index,)]
    found: dict[str, str] = {}
    for name in (part.strip() for part in outer.split(",") if outer.strip()):
        if name == "-1":  # CUDA ignores everything after it
            break
        device = _device(gpus, name)
        if device is None:
            known = ", ".join(name for gpu in gpus for name in (gpu.index, gpu.uuid, *gpu.parts))
            raise SpecError(f"{_VISIBLE}={outer!r}: no GPU {name!r}, there are {known}")
        if device in found:
            raise SpecError(f"{_VISIBLE}={outer!r}: {name} is there twice")
        found[device] = name
    return list(found.values())


def _device(gpus: list[Gpu], name: str) -> str | None:
    """The device with that index, or whose UUID begins like that."""
    if name.isdecimal():
        return next((gpu.device for gpu in gpus if int(gpu.index) == int(name)), None)
    if not name.startswith(("GPU-", "MIG-")):
        return None
    fits = [gpu.device for gpu in gpus if gpu.uuid.startswith(name)]
    fits += [part for gpu in gpus for part in gpu.parts if part.startswith(name)]
    return fits[0] if len(fits) == 1 else None
