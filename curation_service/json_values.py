"""Values of columns as the JSON of an item's `data`.

JSON has one kind of number, a double: whole numbers beyond 2^53 and exact decimals go out as text, so that no digit
is lost on the way to a browser.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, datetime, time
from enum import Enum
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from shared.db.jsonb import to_jsonb

EXACT_MAX = 1 << 53
"""The whole numbers up to here are all doubles."""
DEPTH_MAX = 25
"""Levels of JSON in a message: each takes three or four of the hundred that protobuf reads."""


def to_struct(values: Mapping[str, Any], *, depth_max: int = DEPTH_MAX) -> Struct:
    """Values by name as JSON; what is deeper than this, as its text."""
    return Struct(fields={name: _value(value, depth_max) for name, value in values.items()})


def _value(value: Any, depth_max: int) -> Value:
    match value:
        case str() if not isinstance(value, Enum):
            return Value(string_value=value)
        case None:
            return Value(null_value=NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case int() if -EXACT_MAX <= value <= EXACT_MAX:
            return Value(number_value=value)
        case float() if math.isfinite(value):
            return Value(number_value=value)
        case Mapping() | list() | tuple() | set() | frozenset() if depth_max <= 0:
            return Value(string_value=_as_json(value))
        case Mapping():
            inner = {str(name): inner for name, inner in value.items()}
            return Value(struct_value=to_struct(inner, depth_max=depth_max - 1))
        case list() | tuple() | set() | frozenset():
            return Value(list_value=ListValue(values=[_value(inner, depth_max - 1) for inner in value]))
        case _:
            return Value(string_value=_as_text(value))


def _as_json(value: Any) -> str:
    try:
        return to_jsonb(value).decode()
    except (TypeError, RecursionError):
        return "…"


def _as_text(value: Any) -> str:
    match value:
        case Enum():
            return str(value.value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return b64encode(value).decode()
        case _:
            return str(value)
