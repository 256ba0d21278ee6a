"""Frozen dataclasses from JSON that may have been written by anyone: every type is checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, is_dataclass
from dataclasses import fields as dataclass_fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

MOST_COUNT = 1 << 53
ValueT = TypeVar("ValueT")


def typed(kind: type[ValueT], value: Any, place: str = "") -> ValueT:
    """Return `value`, plain JSON, as a `kind`: a dataclass of plain fields, or a type of one.

    A dataclass must have all its fields without a default and no other; an int is a count, 0 <= n < 2**53; a float
    is finite; a list becomes a tuple. `place` leads to it in messages. Raises ValueError.
    """
    found: ValueT = _typed(kind, value, place)
    return found


def _typed(kind: Any, value: Any, place: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = _object(value, place)
        bare = {item.name for item in dataclass_fields(kind) if _has_default(item)}
        if not hints.keys() - bare <= fields.keys() <= hints.keys():
            raise ValueError(f"{place or 'it'} must have the keys {', '.join(hints)}")
        found = {
            n: _typed(hints[n], item, f"{place}.{n}".lstrip(".")) for n, item in fields.items()
        }
        return kind(**found)  # type: ignore[operator]
    if origin is dict:
        items = _object(value, place).items()
        return {name: _typed(inner[1], item, f"{place}.{name}") for name, item in items}
    if origin is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(_typed(one, item, f"{place}.{n}") for n, (one, item) in pairs)
    if origin in (Union, UnionType):
        if type(value) in (bool, NoneType) and type(value) in inner:
            return value
        if {int, float} <= {*inner}:  # either stays what it is
            return value if type(value) is int else _typed(float, value, place)
        return _typed(next(one for one in inner if one not in (bool, NoneType)), value, place)
    if kind is Any or (origin is Literal and isinstance(value, str) and value in inner):
        return value
    if kind is float:
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
    elif kind is int:
        if type(value) is int and 0 <= value < MOST_COUNT:
            return value
    elif kind is str and isinstance(value, str):
        value.encode()  # half a character, which JSON's escapes may hold, is a ValueError
        return value
    elif type(value) is kind:
        return value
    raise ValueError(f"{place or 'it'} must be {_words(kind)}, got {_short(value)}")


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place or 'it'} must be an object, got {_short(value)}")
    return value


def _words(kind: Any) -> str:
    names = {int: "a count", float: "a finite number", str: "a text"}
    return names.get(kind, str(getattr(kind, "__name__", kind)))


def _short(value: Any) -> str:
    text = f"{type(value).__name__} {value!r}" if isinstance(value, str | int | float) else ""
    return text[:60] or type(value).__name__
