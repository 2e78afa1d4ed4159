"""Arrays that we encode arrive as the values that they hold; PostgreSQL itself says. The rest is left to the driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import BigInteger, Column, Double, Float, Integer, Numeric, SmallInteger, String, Text, Uuid
from sqlalchemy.dialects.postgresql import ENUM, JSONB
from sqlalchemy.types import TypeEngine

from shared.db.arrays import BinaryArray, encoding_of
from shared.db.statement import type_name
from shared.uuids import Uuids


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (Uuid(), [uuid4(), uuid4(), None]),
        (Uuid(), Uuids([uuid4().bytes, uuid4().bytes])),
        (Uuid(), []),
        (Text(), [None, None]),
        (Text(), ["", "NULL", None, "ä\"{}\\,'", "x" * 70_000]),
        (String(3), ["abc", None]),
        (BigInteger(), [0, -1, None, 2**63 - 1, -(2**63)]),
        (Integer(), [1, None, -(2**31)]),
        (SmallInteger(), [1, -7]),
        (Double(), [0.0, -1.5, None, float("inf")]),
        (Float(), [1.5, 2.0]),
        (JSONB(), [{"a": [1, None], "ä": "\u2028"}, None, "text", 1.5, [], True]),
    ],
)
async def test_values_arrive_as_they_are(
    empty_database_url: str, type_: TypeEngine[Any], values: Sequence[Any]
) -> None:
    column: Column[Any] = Column("c", type_)
    encoding = encoding_of(column)
    assert encoding is not None
    array = encoding.array(values)
    assert isinstance(array, BinaryArray)
    async with await psycopg.AsyncConnection.connect(empty_database_url) as connection:
        statement = sql.SQL("SELECT * FROM unnest(%s::{}[])").format(type_name(column))
        rows = await (await connection.execute(statement, [array])).fetchall()
    assert [value for (value,) in rows] == list(values)


@pytest.mark.parametrize("value", [2**63, 10**400])
def test_a_number_beyond_the_encoding_is_left_to_the_driver_which_knows_what_to_say(value: int) -> None:
    encoding = encoding_of(Column("c", BigInteger()))
    assert encoding is not None
    assert encoding.array([1, value]) == [1, value]


def test_so_is_text_that_postgresql_cannot_hold() -> None:
    encoding = encoding_of(Column("c", Text()))
    assert encoding is not None
    assert encoding.array(["a\x00b"]) == ["a\x00b"]


@pytest.mark.parametrize("type_", [Numeric(), ENUM("a", name="letter")])
def test_so_is_a_type_of_which_we_know_no_encoding(type_: TypeEngine[Any]) -> None:
    assert encoding_of(Column("c", type_)) is None


def test_a_key_is_sent_as_its_bytes() -> None:
    encoding = encoding_of(Column("c", Uuid()))
    assert encoding is not None
    array = encoding.array([UUID(int=1)])
    assert isinstance(array, BinaryArray)
    assert array.data.endswith(UUID(int=1).bytes)
