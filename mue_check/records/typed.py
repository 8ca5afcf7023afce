"""Read a dataclass from stored JSON. A value of another type than declared is refused, and the error names the field.

Nothing is converted: a number in quotes is not a number, and ``true`` is not 1. NaN and infinity are refused.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from mue_check.errors import StoreError

T = TypeVar("T")


def from_json(kind: type[T], value: object, where: str) -> T:
    """``value`` as the dataclass ``kind``; StoreError begins with ``where`` and the path of the wrong field."""
    found: T = _read(kind, value, where)
    return found


def _read(kind: Any, value: object, where: str) -> Any:
    if is_dataclass(kind):
        return _read_object(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            _refuse(value, where, f"one of {', '.join(arguments)}")
    elif origin in (Union, UnionType):
        (other,) = (each for each in arguments if each is not NoneType)
        return None if value is None else _read(other, value, where)
    elif origin is tuple or origin is Sequence:
        return _read_list(arguments, value, where)
    elif origin is Mapping:
        if not isinstance(value, dict):
            _refuse(value, where, "an object")
        return {name: _read(arguments[1], each, f"{where}.{name}") for name, each in value.items()}
    elif kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            _refuse(value, where, "a finite number")
        return float(value)
    elif type(value) is not kind:
        _refuse(value, where, {int: "a whole number", str: "text", bool: "true or false"}[kind])
    return value


def _read_object(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        _refuse(value, where, "an object")
    hints = get_type_hints(kind)
    declared = {field.name: field for field in fields(kind)}
    if unknown := [name for name in value if name not in declared]:
        raise StoreError(f"{where} has an unknown field {unknown[0]!r}")
    for name, field in declared.items():
        if name not in value and field.default is MISSING and field.default_factory is MISSING:
            raise StoreError(f"{where} lacks {name!r}")
    return kind(**{name: _read(hints[name], each, f"{where}.{name}") for name, each in value.items()})


def _read_list(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        _refuse(value, where, "a list")
    if len(kinds) == 1 or kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise StoreError(f"{where} has {len(value)} values: {len(kinds)} are needed")
    return tuple(_read(kind, each, f"{where}[{at}]") for at, (kind, each) in enumerate(zip(kinds, value, strict=True)))


def _refuse(value: object, where: str, needed: str) -> NoReturn:
    text = repr(value)
    raise StoreError(f"{where} is {text if len(text) <= 40 else text[:37] + '...'}: {needed} is needed")
