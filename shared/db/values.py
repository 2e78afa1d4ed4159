"""How values that an enricher found travel to PostgreSQL: an array for each column, cast value by value.

What becomes of a value must not depend on its neighbours in the batch. The driver refuses an array of two types (a JSON
API says 4 and 4.5), and casts one of a single type as a whole: so what is not of its column's own type goes as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.json import Json
from sqlalchemy import ARRAY, Column, Integer
from sqlalchemy.dialects.postgresql import JSON, JSONB

from shared.db.arrays import JSONBS, Array, BinaryArray, array_of
from shared.db.statement import type_name
from shared.workflow import Values

TEXT = sql.SQL("text")
SIZE_MAX = 64 << 20
"""Bytes of one column in one statement: more could take longer than a commit may, and would be tried again for ever.
Callers then save half of the rows at a time."""
_SIZED = (str, bytes)


def array_type(column: Column[Any]) -> sql.SQL:
    """The type of the elements of a column's array: its own, or text for arrays, which `unnest` would flatten."""
    return TEXT if _is_array(column) else type_name(column)


def element(column: Column[Any], name: sql.Composable) -> sql.Composed:
    """An element of such an array, as the column takes it."""
    return sql.SQL("{}::{}" if _is_array(column) else "{}").format(name, type_name(column))


def to_array(column: Column[Any], rows: Sequence[Values | None]) -> Array:
    """One column of all rows. A column that a row leaves out is NULL.

    Raises:
        TypeError, ValueError, RecursionError, psycopg.Error: a value has no form that PostgreSQL could read, or all
            are too large to be saved together.
    """
    array = _to_array(column, [None if row is None else row.get(column.name) for row in rows])
    if (size := _size(array)) > SIZE_MAX:
        raise ValueError(f"{size >> 20} MB of {column.name}, where {SIZE_MAX >> 20} are saved at once")
    return array


def _to_array(column: Column[Any], values: Sequence[Any]) -> Array:
    if isinstance(column.type, JSONB):
        return JSONBS.array(values)
    if isinstance(column.type, JSON):
        return [None if value is None else Json(value) for value in values]
    # Others are sent as text, for PostgreSQL to read.
    if not _is_array(column) and {column.type.python_type, NoneType}.issuperset(map(type, values)):
        return array_of(column, values)
    return [None if value is None else _text(column, value) for value in values]


def _size(array: Array) -> int:
    """About how many bytes are sent."""
    if isinstance(array, BinaryArray):
        return len(array.data)
    return sum(len(value) for value in array if isinstance(value, _SIZED))


def _text(column: Column[Any], value: Any) -> str:
    """A value as PostgreSQL reads it from text, whatever its type."""
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and not _is_array(column):
        raise TypeError(f"{column.name} takes no list")
    if isinstance(value, float) and value.is_integer() and isinstance(column.type, Integer):
        value = int(value)  # JSON knows no other numbers
    try:
        dumped = Transformer().get_dumper(value, PyFormat.TEXT).dump(value)
    except psycopg.ProgrammingError as error:
        raise TypeError(f"{column.name} takes no {type(value).__name__}") from error
    assert dumped is not None
    return bytes(dumped).decode()


def _is_array(column: Column[Any]) -> bool:
    return isinstance(column.type, ARRAY)
