"""The sources that nodes of a cluster need: mue_check's own, and those of the routers that users have loaded."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import mue_check
from mue_check.errors import ClaimError, ClusterError
from mue_check.models.user_router.load import load_router
from mue_check.models.user_router.loaded import loaded_router
from mue_check.models.user_router.sources import own_files
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.variants import USER_ROUTERS

_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A user's router on its way: its name here, and what is to be loaded from among the shipped files."""

    name: str
    text: str
    claim: RoutingSpec


def ship_sources(folder: Path) -> dict[str, Parcel]:
    """Copy sources into ``folder``; a parcel for each router that was loaded from a module or a file, by its name.

    Of a router that is its file with the files of its author that it imports, packages whole. Installed libraries
    must be on the nodes.
    """
    shutil.copytree(Path(mue_check.__file__).parent, folder / "mue_check", ignore=_LEFT_OUT)
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
    """One file, or all of the package that it belongs to, to where an import finds it."""
    parts = [] if module.endswith(".py") else module.split(".")
    # from the folder where its import begins
    inside = Path(*(parts if file.name == "__init__.py" else parts[:-1]), file.name)
    package = file.parents[len(inside.parts) - 1] / inside.parts[0]
    if (package / "__init__.py").is_file():
        shutil.copytree(package, folder / package.name, ignore=_LEFT_OUT, dirs_exist_ok=True)
    else:
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, folder / inside)


def unpack(parcel: Parcel) -> None:
    """On a node: load the router. ClaimError where it cannot be loaded there, or is not the one that was sent."""
    try:
        found = load_router(parcel.text, Path(mue_check.__file__).parents[1], parcel.claim)
    except ClaimError as error:
        raise ClaimError(f"router {parcel.text}, on a node of the cluster: {error}") from None
    if found.name != parcel.name:
        raise ClaimError(
            f"router {parcel.text}, on a node of the cluster: a library that it imports has other sources there "
            f"({found.name}, here {parcel.name})"
        )
