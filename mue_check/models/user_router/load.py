"""A user's router as ``--router`` names it: loaded, named after a hash of its source and behavior, and registered.

Every process that trains loads it by itself, since a factory cannot be pickled; records and reports hold the name.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mue_check.errors import ClaimError
from mue_check.models.user_router.fingerprint import fingerprint
from mue_check.models.user_router.loaded import UserRouter, loaded_router, shape_of
from mue_check.models.user_router.sources import digits, source_hash
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Candidate, Shape, load_candidate
from mue_check.routing.variants import USER_ROUTERS, Variant
from mue_check.spec import Experts, ModelSpec

_LONGEST = 40
"""Of a name's readable part, which goes into file names."""


def find_router(text: str, folder: Path, claim: RoutingSpec | None = None) -> tuple[Candidate, str]:
    """The router of ``MODULE:FACTORY`` or ``FILE.py:FACTORY`` (from ``folder``), and its module or file. ClaimError."""
    where, colon, attribute = text.rpartition(":")
    path = str(folder / where) if where.endswith(".py") else where
    try:
        candidate = load_candidate("router", path + colon + attribute, claim)
    except ClaimError as error:
        raise ClaimError(str(error).removeprefix(f"{path}:{attribute}: ")) from None
    return replace(candidate, name=text), path


def load_router(text: str, folder: Path, claim: RoutingSpec | None = None, *, trains: bool = True) -> UserRouter:
    """Find and register it. ``trains``: whether cells will be named after it, so that its behavior matters."""
    return add_router(*find_router(text, folder, claim), trains=trains)


def add_router(candidate: Candidate, named: str = "", *, trains: bool = True) -> UserRouter:
    """Register a candidate under a hash of its source, claim and behavior; ``named``: the module or file that has it.

    ClaimError where the behavior cannot be repeated.
    """
    where, _, attribute = candidate.name.rpartition(":")
    stem = Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
    readable = re.sub(r"\W+", "-", f"{stem}-{attribute}").strip("-")[:_LONGEST]
    behavior = [fingerprint(candidate)] if trains else []
    name = f"{readable}-{digits(source_hash(candidate.factory, named), repr(candidate.claim), *behavior)}"
    variant = Variant(name=name, claim=candidate.claim, grouped=False)
    router = USER_ROUTERS[name] = UserRouter(variant=variant, candidate=candidate, named=named)
    return router


def sizes_of(name: str, models: Iterable[ModelSpec]) -> list[Shape]:
    """Every size at which these models call a user's router."""
    mixtures = [(model, e) for model in models if isinstance(e := model.feed_forward, Experts) and e.router == name]
    shapes = {shape_of(experts, model.width) for model, experts in mixtures}
    # with all experts activated a layout is ambiguous: learn it elsewhere if possible
    return sorted(shapes, key=lambda s: (s.activated == s.experts, s.experts, s.d))


def try_router(name: str, shapes: Iterable[Shape], device: str) -> tuple[str, ...]:
    """Try it at these sizes, and return its notices for the user. ClaimError where it cannot serve."""
    router = loaded_router(name)
    for shape in shapes:
        router.profile(shape)
        if device == "cuda":
            router.capture_trouble(shape)
    return router.new_notices()
