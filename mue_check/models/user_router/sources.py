"""The source files behind a user's router: hashed into its name, and copied to the nodes of a cluster."""

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

from mue_check.errors import ClaimError
from mue_check.routing.factory import Factory

_NOT_HASHED = {*sys.stdlib_module_names, "torch", "mue_check"}
_LIBRARIES = {"site-packages", "dist-packages"}


def digits(*parts: str) -> str:
    """Eight hexadecimal digits of a hash."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def source_hash(factory: Factory, named: str = "") -> str:
    """A hash of the factory's file, of the user's files that it imports, and of the library files that those import.

    Python, torch and mue_check are left out: records of built-in routers do not depend on their versions either.
    ``named`` is the module or file in which the factory was looked up; it may import it. ClaimError without a file.
    """
    return digits(*sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in _sources(factory, named)))


def own_files(factory: Factory, named: str = "") -> dict[Path, str]:
    """The user's files among them, each with its module name (or the path of ``FILE.py``)."""
    return {
        file: module
        for file, module in _sources(factory, named).items()
        if module.partition(".")[0] not in _NOT_HASHED and not _LIBRARIES & set(file.parts)
    }


def _sources(factory: Factory, named: str) -> dict[Path, str]:
    while isinstance(factory, functools.partial):
        factory = factory.func
    name = getattr(factory, "__module__", None) or type(factory).__module__
    first = {named: Path(named) if named.endswith(".py") else _file_of(named), name: _file_of(name)}
    waiting = [(name, file.resolve()) for name, file in first.items() if file is not None]
    if not waiting:
        raise ClaimError(f"{name} has no file: its records could not be distinguished from those of another source")
    seen = {file: module for module, file in reversed(waiting)}
    while waiting:
        for imported in _imports(*waiting.pop()):
            if imported.partition(".")[0] in _NOT_HASHED:
                continue
            file = _file_of(imported)
            if file is not None and file not in seen:
                seen[file] = imported
                if file.suffix == ".py" and not _LIBRARIES & set(file.parts):
                    waiting.append((imported, file))
    return seen


def _imports(name: str, file: Path) -> Iterator[str]:
    """Every module that the import statements of a file may name."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: len(name.split(".")) - node.level + (file.name == "__init__.py")]
            base = ".".join([*(above if node.level else []), *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _file_of(name: str) -> Path | None:
    """The file of a module; None if there is no such module, or it has no file."""
    where = getattr(sys.modules.get(name), "__file__", None)
    if where is None and name:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        where = spec.origin if spec else None
    file = Path(where).resolve() if where else None
    return file if file and file.is_file() else None
