"""Frozen dataclasses as JSON and back, by their own type hints: strict about what it reads, exact both ways.

Instants are ``clock.to_text``, durations seconds, dates ISO 8601, enumerations their value, tuples lists. Reading
ignores keys that it does not know and fills in defaults for those that are missing, so a field with a default can be
added without a new schema number.
"""

from __future__ import annotations

import enum
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeVar

from recoup.kernel import clock

T = TypeVar("T")


def encode(value: Any) -> Any:
    """Given a value of the types above, return what ``json.dumps`` takes."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime):
        return clock.to_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): encode(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [encode(one) for one in value]
    return value


def decode(wanted: type[T], value: Any) -> T:
    """The reverse of ``encode``. Raise ``ValueError`` naming the place that has not the form."""
    return typing.cast(T, _decode(wanted, value, wanted.__name__))


def _decode(wanted: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (types.UnionType, typing.Union):
        return _optional(arguments, value, place)
    if origin is typing.Literal:
        return _expect(value in arguments, value, place)
    if origin is tuple:
        _expect(isinstance(value, list), value, place)
        return tuple(_decode(arguments[0], one, f"{place}[{at}]") for at, one in enumerate(value))
    if origin is Mapping:
        _expect(isinstance(value, dict), value, place)
        return {key: _decode(arguments[1], one, f"{place}.{key}") for key, one in value.items()}
    if is_dataclass(wanted):
        return _dataclass(wanted, value, place)
    return _scalar(wanted, value, place)


def _expect(holds: bool, value: Any, place: str) -> Any:
    if not holds:
        raise ValueError(f"{place} is not what it should be ({type(value).__name__})")
    return value


def _optional(arguments: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None:
        return None
    return _decode(next(one for one in arguments if one is not type(None)), value, place)


def _dataclass(wanted: Any, value: Any, place: str) -> Any:
    _expect(isinstance(value, dict), value, place)
    hints, given = _hints(wanted), {}
    for field in fields(wanted):
        if field.name in value:
            given[field.name] = _decode(hints[field.name], value[field.name], f"{place}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise ValueError(f"{place} lacks {field.name}")
    return wanted(**given)


@functools.cache
def _hints(wanted: Any) -> dict[str, Any]:
    return typing.get_type_hints(wanted)


def _scalar(wanted: Any, value: Any, place: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        if wanted is timedelta:
            _expect(number and math.isfinite(value), value, place)
            return timedelta(seconds=value)
        if wanted is datetime:
            return clock.from_text(_expect(isinstance(value, str), value, place))
        if wanted is date:
            return date.fromisoformat(_expect(isinstance(value, str), value, place))
        if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
            return wanted(value)
    except (ValueError, OverflowError, TypeError) as wrong:
        raise ValueError(f"{place}: {wrong}") from None
    if wanted is float:
        return float(_expect(number, value, place))
    return _expect(type(value) is wanted, value, place)
