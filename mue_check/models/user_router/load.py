"""A user's router as ``--router`` names it: loaded, called after a hash of its source, known to specs and to models.

Every process that trains does this for itself, since a factory does not travel; records and reports hold the name.
"""

import ast
import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mue_check.axes import Ladder
from mue_check.errors import ClaimError
from mue_check.models.user_router.stacked import LOADED, Foreign, shape_of
from mue_check.routing.claim import RoutingSpec
from mue_check.routing.factory import Candidate, Factory, Shape, load_candidate
from mue_check.routing.variants import Router, register_router
from mue_check.spec import Experts

_OTHERS = {*sys.stdlib_module_names, "torch", "mue_check"}
_LIBRARIES = {"site-packages", "dist-packages"}
_LONGEST = 40
"""Of a name's readable part, which goes into file names."""


def load_router(text: str, folder: Path, claim: RoutingSpec | None = None) -> Router:
    """The router of ``MODULE:FACTORY`` or ``FILE.py:FACTORY`` (from ``folder``), known in this process. ClaimError."""
    where, colon, attribute = text.rpartition(":")
    path = str(folder / where) if where.endswith(".py") else where
    try:
        candidate = load_candidate("router", path + colon + attribute, claim)
    except ClaimError as error:
        raise ClaimError(str(error).removeprefix(f"{path}:{attribute}: ")) from None
    return add_router(replace(candidate, name=text), path)


def add_router(candidate: Candidate, named: str = "") -> Router:
    """Make a candidate known by its name and a hash of source and claim; ``named``: the module or file that has it."""
    where, _, attribute = candidate.name.rpartition(":")
    stem = Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
    readable = re.sub(r"\W+", "-", f"{stem}-{attribute}").strip("-")[:_LONGEST]
    claim = candidate.claim
    fixed = claim.groups * claim.per_group_k if claim.per_group_k else claim.top_k
    sums = claim.weight_sum if isinstance(claim.weight_sum, str) else "one" if claim.weight_sum == 1 else "free"
    router = Router(
        name=f"{readable}-{_digits(source_hash(candidate.factory, named), repr(claim))}",
        summary=str(claim),
        weight_sum=sums,
        source=candidate.name,
        least_activated=fixed or 1,
        most_activated=fixed,
        grouped=False,
        scored=claim.kind != "expert_choice",
        own_groups=claim.groups,
        group_limit=claim.group_limit,
        scale=None if isinstance(claim.weight_sum, str) else float(claim.weight_sum),
        drops=claim.kind != "token_choice",
    )
    register_router(router)
    LOADED[router.name] = Foreign(candidate=candidate, named=named)
    return router


def sizes_of(name: str, ladders: Iterable[Ladder]) -> list[Shape]:
    """Every size at which the ladders ask for a user's router."""
    shapes: set[Shape] = set()
    for model in (rung.model for ladder in ladders for rung in ladder.rungs):
        if isinstance(model.feed_forward, Experts) and model.feed_forward.router == name:
            shapes.add(shape_of(model.feed_forward, model.width))
    # where all experts are activated a shape says less of what a tensor is: learn the layout elsewhere
    return sorted(shapes, key=lambda s: (s.activated == s.experts, s.experts, s.d))


def try_router(name: str, shapes: Iterable[Shape], device: str) -> tuple[str, ...]:
    """Try it at these sizes, and say what people must know of it. ClaimError where it cannot serve."""
    for shape in shapes:
        LOADED[name].manner(shape)
        if device == "cuda":
            LOADED[name].capture_trouble(shape)
    return LOADED[name].news()


def source_hash(factory: Factory, named: str = "") -> str:
    """A hash of the factory's file, the user's own files that it imports, and the library files that those name.

    Python, torch and mue_check aside: records of built-in routers do not ask for their versions either. ``named`` is
    the module or the file that was asked for the factory, which may have it from elsewhere. ClaimError without a file.
    """
    return _digits(*sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources(factory, named)))


def own_files(factory: Factory, named: str = "") -> dict[Path, str]:
    """Those of these files that are the user's own, each with the module that it is (or the path of ``FILE.py``)."""
    return {
        file: module
        for file, module in _sources(factory, named).items()
        if module.partition(".")[0] not in _OTHERS and not _LIBRARIES & set(file.parts)
    }


def _sources(factory: Factory, named: str) -> dict[Path, str]:
    while isinstance(factory, functools.partial):
        factory = factory.func
    name = getattr(factory, "__module__", None) or type(factory).__module__
    first = {named: Path(named) if named.endswith(".py") else _file_of(named), name: _file_of(name)}
    waiting = [(name, file.resolve()) for name, file in first.items() if file is not None]
    if not waiting:
        raise ClaimError(f"{name} has no file: records of one source could not be told from those of another")
    seen = {file: module for module, file in reversed(waiting)}
    while waiting:
        for imported in _imports(*waiting.pop()):
            if imported.partition(".")[0] in _OTHERS:
                continue
            file = _file_of(imported)
            if file is not None and file not in seen:
                seen[file] = imported
                if file.suffix == ".py" and not _LIBRARIES & set(file.parts):
                    waiting.append((imported, file))
    return seen


def _digits(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _imports(name: str, file: Path) -> Iterator[str]:
    """Every module that a file may mean by its import statements, wherever they stand in it."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + (file.name == "__init__.py")]
            base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _file_of(name: str) -> Path | None:
    """The file of a module; None where there is no such module, or it has none."""
    where = getattr(sys.modules.get(name), "__file__", None)
    if where is None and name:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        where = spec.origin if spec else None
    file = Path(where).resolve() if where else None
    return file if file and file.is_file() else None
