"""What a user's router does at each size of a study, so that a change between two runs is seen."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mue_check.errors import ClaimError
from mue_check.models.user_router.fingerprint import TOKENS, fingerprint
from mue_check.models.user_router.loaded import loaded_router
from mue_check.records.files import read_record, write_record
from mue_check.routing.factory import Shape


def require_same_behavior(name: str, shapes: Iterable[Shape], root: Path) -> None:
    """Store in the study ``root`` how the router behaves at these sizes. ClaimError if it behaved differently before.

    Its name holds its behavior at a few sizes, and a router may read a file for each size.
    """
    path, candidate = root / "routers" / f"{name}.json", loaded_router(name).candidate
    sized = [replace(shape, tokens=TOKENS) for shape in shapes]
    now = {str(shape): fingerprint(candidate, [shape]) for shape in sized}
    before = read_record(path) if path.exists() else {}
    for size, digest in now.items():
        if before.get(size, digest) != digest:
            raise ClaimError(
                f"at {size} it behaves differently than when {str(root)!r} was measured, because of a file or variable "
                "that it reads: use a new study folder"
            )
    if now.keys() - before.keys():
        write_record(path, {**before, **now}, root=root)
