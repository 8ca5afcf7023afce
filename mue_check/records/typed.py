"""Read a dataclass from stored JSON. A value of another type than declared is refused, and the error names the field.

Nothing is converted: a number in quotes is not a number, and ``true`` is not 1. NaN and infinity are refused. A mapping
whose keys are literals needs all of them. A field of type ``object`` takes anything.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from mue_check.errors import StoreError

T = TypeVar("T")
Readers = Mapping[type, Callable[[object, str], object]]
"""For types with a special stored form: a function from plain JSON and the location for errors."""


def from_json(kind: type[T], value: object, where: str, readers: Readers | None = None) -> T:
    """``value`` as the dataclass ``kind``. StoreError begins with ``where`` and the path of the wrong field."""
    found: T = _Reader(readers=readers or {}).read(kind, value, where)
    return found


def refuse(value: object, where: str, needed: str) -> NoReturn:
    """Raise the StoreError for a value that is not what is needed there."""
    text = repr(value)
    raise StoreError(f"{where} is {text if len(text) <= 40 else text[:37] + '...'}: {needed} is needed")


def read_number(value: object, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        refuse(value, where, "a finite number")
    return float(value)


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], dict[str, Field[Any]]]:
    """Types and fields of a dataclass, which take long to find."""
    return get_type_hints(kind), {field.name: field for field in fields(kind)}


@dataclass(frozen=True, kw_only=True)
class _Reader:
    readers: Readers

    def read(self, kind: Any, value: object, where: str) -> Any:
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is object:
            return value
        if kind in self.readers:
            return self.readers[kind](value, where)
        if is_dataclass(kind):
            return self._object(kind, value, where)
        if origin is Literal:
            if type(value) not in map(type, arguments) or value not in arguments:
                refuse(value, where, " or ".join(map(repr, arguments)))
        elif origin in (Union, UnionType):
            (other,) = (each for each in arguments if each is not NoneType)
            return None if value is None else self.read(other, value, where)
        elif origin is tuple or origin is Sequence:
            return self._list(arguments, value, where)
        elif origin is Mapping:
            return self._mapping(arguments[0], arguments[1], value, where)
        elif kind is float:
            return read_number(value, where)
        elif type(value) is not kind:
            refuse(value, where, {int: "a whole number", str: "text", bool: "true or false"}[kind])
        return value

    def _object(self, kind: Any, value: object, where: str) -> Any:
        if not isinstance(value, dict):
            refuse(value, where, "an object")
        hints, declared = _fields(kind)
        if unknown := [name for name in value if name not in declared]:
            raise StoreError(f"{where} has an unknown field {unknown[0]!r}")
        for name, field in declared.items():
            if name not in value and field.default is MISSING and field.default_factory is MISSING:
                raise StoreError(f"{where} lacks {name!r}")
        return kind(**{name: self.read(hints[name], each, f"{where}.{name}") for name, each in value.items()})

    def _mapping(self, key_kind: Any, kind: Any, value: object, where: str) -> dict[Any, Any]:
        if not isinstance(value, dict):
            refuse(value, where, "an object")
        for name in get_args(key_kind):
            if name not in value:
                raise StoreError(f"{where} lacks {name!r}")
        return {
            self.read(key_kind, name, where): self.read(kind, each, f"{where}.{name}") for name, each in value.items()
        }

    def _list(self, kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            refuse(value, where, "a list")
        if len(kinds) == 1 or kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise StoreError(f"{where} has {len(value)} values: {len(kinds)} are needed")
        return tuple(self.read(kinds[at], each, f"{where}[{at}]") for at, each in enumerate(value))
