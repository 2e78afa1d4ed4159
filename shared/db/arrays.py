"""Arrays in PostgreSQL's binary form, for the types that most values have.

The driver dumps a list element by element, each through an object for its type: 9 us for the nine values of a result,
where this takes 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from struct import Struct, error
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
from psycopg.abc import DumperKey
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format
from sqlalchemy import Column, Enum, Float, Integer, String, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from shared.db.jsonb import to_jsonb
from shared.uuids import Uuids

Array: TypeAlias = "BinaryArray | list[Any]"
"""A parameter of a statement."""


@dataclass(frozen=True, slots=True)
class BinaryArray:
    """An array that is ready to be sent."""

    oid: int
    """The number that PostgreSQL has for the type of the array."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Encoding:
    """How values of one type are sent."""

    type_name: str
    encode: Callable[[Any], bytes]
    """A value, its length in front. Raises `struct.error` where only the driver can tell what is wrong with it."""

    def array(self, values: Sequence[Any]) -> Array:
        """The values, all of the encoding's own Python type, or None; as a list where one does not fit.

        It has this type even where every value is None; else the statement would be prepared once more for that.
        """
        encode, info = self.encode, psycopg.adapters.types[self.type_name]
        try:
            if isinstance(values, Uuids):
                encoded = [_UUID_LENGTH + packed for packed in values.packed]
            else:
                encoded = [_NULL if value is None else encode(value) for value in values]
        except error:
            return list(values)
        head = _HEAD.pack(1, _NULL in encoded, info.oid, len(values), 1)
        return BinaryArray(info.array_oid, head + b"".join(encoded))


_HEAD, _LENGTH = Struct("!iiIii"), Struct("!i")
_NULL, _UUID_LENGTH = _LENGTH.pack(-1), _LENGTH.pack(16)


def _uuid(value: UUID) -> bytes:
    return _UUID_LENGTH + value.int.to_bytes(16)


def _text(value: str) -> bytes:
    if "\x00" in value:
        raise error
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _jsonb(value: Any) -> bytes:
    encoded = to_jsonb(value)
    return _LENGTH.pack(len(encoded) + 1) + b"\x01" + encoded


UUIDS, TEXTS = Encoding("uuid", _uuid), Encoding("text", _text)
BIGINTS = Encoding("int8", partial(Struct("!iq").pack, 8))
DOUBLES = Encoding("float8", partial(Struct("!id").pack, 8))
JSONBS = Encoding("jsonb", _jsonb)


def encoding_of(column: Column[Any]) -> Encoding | None:
    """How values of this column are sent, for its statement to cast to its type. None leaves them to the driver."""
    match column.type:
        case Uuid():
            return UUIDS
        case JSONB():
            return JSONBS
        case Enum():
            return None
        case String():
            return TEXTS
        case Integer():
            return BIGINTS
        case Float():
            return DOUBLES
    return None


def array_of(column: Column[Any], values: Sequence[Any]) -> Array:
    """Values of a column's own Python type, as they are sent."""
    encoding = encoding_of(column)
    return list(values) if encoding is None else encoding.array(values)


class _Dumper(Dumper):
    """Hands the driver what is encoded already."""

    format = Format.BINARY

    def get_key(self, obj: BinaryArray, format: PyFormat) -> DumperKey:  # noqa: A002 - the name in psycopg
        return (self.cls, obj.oid)  # type: ignore[return-value]

    def upgrade(self, obj: BinaryArray, format: PyFormat) -> Dumper:  # noqa: A002
        dumper = type(self)(self.cls)
        dumper.oid = obj.oid
        return dumper

    def dump(self, obj: BinaryArray) -> bytes:
        return obj.data


psycopg.adapters.register_dumper(BinaryArray, _Dumper)
