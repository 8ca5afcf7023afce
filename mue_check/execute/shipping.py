"""The sources that nodes of a cluster need: those of mue_check and of the loaded users' routers."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mue_check
from mue_check.errors import ClaimError, ClusterError
from mue_check.models.user_router.loaded import load_router, loaded_router
from mue_check.models.user_router.sources import own_files
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.variants import USER_ROUTERS

_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A user's router to load on a node: its name here, and MODULE:FACTORY or FILE.py:FACTORY among the sent files."""

    name: str
    text: str
    claim: RoutingSpec


def ship_sources(folder: Path, files: Mapping[Path, str] | None = None) -> dict[str, Parcel]:
    """Copy sources into ``folder``. Returns a parcel for each router loaded from a module or a file, by name.

    A router's sources are its file and the author's own files that it imports, packages as a whole. Installed
    libraries are not copied; the nodes must have them. ``files`` are sent as well, each with the name of its module.
    """
    shutil.copytree(Path(mue_check.__file__).parent, folder / "mue_check", ignore=_LEFT_OUT)
    try:
        for file, module in (files or {}).items():
            _copy(file, module, folder)
    except OSError as error:
        raise ClusterError(f"sources cannot be copied: {error}") from None
    parcels = {}
    for name in USER_ROUTERS:
        router = loaded_router(name)
        if not router.named:
            continue
        where = router.named
        try:
            for file, module in own_files(router.candidate.factory, where).items():
                _copy(file, module, folder)
        except OSError as error:
            raise ClusterError(f"router {router.candidate.name}: its sources cannot be copied: {error}") from None
        attribute = router.candidate.name.rpartition(":")[2]
        text = f"{Path(where).name if where.endswith('.py') else where}:{attribute}"
        parcels[name] = Parcel(name=name, text=text, claim=router.candidate.claim)
    return parcels


def _copy(file: Path, module: str, folder: Path) -> None:
    """Copy a file, or the whole package that it belongs to, to a place where an import finds it."""
    parts = [] if module.endswith(".py") else module.split(".")
    # relative to the folder on the import path
    inside = Path(*(parts if file.name == "__init__.py" else parts[:-1]), file.name)
    package = file.parents[len(inside.parts) - 1] / inside.parts[0]
    if (package / "__init__.py").is_file():
        shutil.copytree(package, folder / package.name, ignore=_LEFT_OUT, dirs_exist_ok=True)
    else:
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / inside)


def unpack(parcel: Parcel) -> None:
    """On a node: load the router. ClaimError if that fails, or if it is not the router that was sent."""
    try:
        found = load_router(parcel.text, Path(mue_check.__file__).parents[1], parcel.claim)
    except ClaimError as error:
        raise ClaimError(f"router {parcel.text}, on a node of the cluster: {error}") from None
    if found.name != parcel.name:
        raise ClaimError(
            f"router {parcel.text}, on a node of the cluster: a library, file or variable that it uses differs "
            f"there ({found.name}, here {parcel.name})"
        )
