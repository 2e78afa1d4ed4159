"""Lists, counts and filters on a real PostgreSQL: pages meet without gap or overlap, whatever they are ordered by."""

from __future__ import annotations

import json
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
import pytest_asyncio
from psycopg import sql

from curation.v1 import curation_pb2 as pb
from curation_service.fields import item_table
from curation_service.filters import compile_filter, to_driver_sql
from curation_service.item_requests import read_list_items
from curation_service.listing import count_items, list_items, page_statement
from curation_service.messages import item_reader
from curation_service.page_tokens import _digest, read_page_token
from shared.db.claim import claim
from shared.db.engine import Database
from shared.db.finish import Result, finish
from shared.db.sessions import open_session
from shared.errors import InvalidRequest
from shared.registry import Registry
from shared.table import transition_table
from tests.support.parcels import PARCELS
from tests.support.service import add_parcels, parcel_database

REGISTRY = Registry(PARCELS)
TABLE = transition_table(PARCELS)
FULL: dict[str, Any] = {
    "note": "50% off",
    "size": 5,
    "floor": -1,
    "serial": 2**62,
    "price": Decimal("10.50"),
    "weight": 0.1,
    "slope": 0.1,
    "fragile": True,
    "sent_at": datetime(2026, 4, 21, 9, 30, 0, 123_456, UTC),
    "local_time": datetime(2026, 4, 21, 9, 30),  # noqa: DTZ001 - a column without a zone
    "due": date(2026, 4, 22),
    "colour": "red",
    "details": {"a": [1]},
    "tags": ["x"],
    "scan_status": "completed",
    "scan_result": "found",
    "scan_batch": 7,
    "status": "Scan",
}
ROWS: Sequence[dict[str, Any]] = [
    FULL,
    {},
    {"size": 5, "price": Decimal("9.99"), "weight": float("nan"), "slope": 2.5, "fragile": False, "colour": "green"},
    {
        "size": -5,
        "note": "50 percent",
        "weight": float("-inf"),
        "scan_status": "queued",
        "scan_turn": 1,
        "status": "Scan",
    },
    {"size": 5, "note": "APFEL", "sent_at": datetime(2026, 4, 21, 9, 30, tzinfo=UTC), "slope": 0.1},
    {
        "note": "",
        "due": date(1, 1, 1),
        "floor": 7,
        "scan_error": "no answer",
        "scan_status": "failed",
        "scan_failure": 1,
        "status": "Scan",
    },
    {},
]


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with parcel_database(database_url) as database:
        await add_parcels(database, *ROWS)
        yield database


async def page(database: Database, **request: Any) -> tuple[list[int], str]:
    """The ordinals of the items of a page, and the next page token."""
    query = read_list_items(pb.ListItemsRequest(resource="parcels", **request), REGISTRY)
    async with database.core() as connection:
        found = await list_items(connection, query, item_reader(PARCELS))
    return [uuid.UUID(item.id).int for item in found.items], found.next_page_token


async def matching(database: Database, text: str) -> list[int]:
    """The ordinals that a filter matches, and the same by the SQL for the driver."""
    condition = compile_filter(text, item_table(PARCELS))
    where, params = to_driver_sql(condition)
    by_core, _ = await page(database, filter=text)
    async with database.transaction() as connection:
        statement = sql.SQL("SELECT s.id FROM parcels AS s WHERE {} ORDER BY s.id").format(where)
        by_driver = [row[0].int for row in await (await connection.execute(statement, params)).fetchall()]
    assert by_core == by_driver
    return by_core


MATCHES: Sequence[tuple[str, list[int]]] = [
    ("size = 5", [1, 3, 5]),
    ("size != 5", [2, 4, 6, 7]),
    ("-size = 5", [2, 4, 6, 7]),
    ("NOT (size = 5 OR size = -5)", [2, 6, 7]),
    ("size:*", [1, 3, 4, 5]),
    ('note:"50%"', [1]),
    ("note:50", [1, 4]),
    ("note:apf", [5]),
    ('note = ""', [6]),
    ("price < 10", [3]),
    ("price = 10.5", [1]),
    ("weight = NaN", [3]),
    ("weight <= -Infinity", [4]),
    ("slope = 0.1", [1, 5]),
    ("fragile = true", [1]),
    ("fragile != true", [2, 3, 4, 5, 6, 7]),
    ("sent_at > 2026-04-21T11:30:00+02:00", [1]),
    ("local_time <= 2026-04-21T09:30:00Z", [1]),
    ("due < 2000-01-01", [6]),
    ("colour = green", [3]),
    ("colour = blue", []),
    ("details:*", [1]),
    ("tags:*", [1]),
    ("serial >= 4611686018427387904", [1]),
    ("queue_status = NONE", [2, 3, 5, 7]),
    ("queue_status != NONE", [1, 4, 6]),
    ("queue_status = queued OR queue_status = FAILED", [4, 6]),
    ("result = found", [1]),
    ("error:ANSWER", [6]),
    ("batch_id = 7", [1]),
    ("status = Scan queue_status = COMPLETED", [1]),
    (f"id = {uuid.UUID(int=4)}", [4]),
    (f"id > {uuid.UUID(int=4)}", [5, 6, 7]),
]


async def test_a_letter_is_found_in_either_case(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("UPDATE parcels SET name = 'MÜNCHEN' WHERE id = %s", [uuid.UUID(int=2)])
    assert await matching(database, 'name:"münchen"') == [2]


async def test_a_filter_matches_what_it_says(database: Database) -> None:
    assert [(text, await matching(database, text)) for text, _ in MATCHES] == MATCHES


def test_a_forged_token_with_half_a_surrogate_pair_is_none() -> None:
    query = read_list_items(pb.ListItemsRequest(resource="parcels", order_by="name"), REGISTRY)
    body = json.dumps(["\ud800", str(uuid.UUID(int=1))]).encode()
    token = urlsafe_b64encode(_digest(query.scope, body) + body).decode().rstrip("=")
    with pytest.raises(InvalidRequest, match="page_token"):
        read_page_token(token, query.scope, [column.field.kind for column in query.order])


async def test_what_is_with_a_worker_is_found_by_its_claim_for_as_long_as_it_is(database: Database) -> None:
    filters = [f"{sign}queue_status = {word}" for word in ("queued", "processing") for sign in ("", "-")]
    all_but_4 = [1, 2, 3, 5, 6, 7]

    async def found() -> list[list[int]]:
        return [await matching(database, text) for text in filters]

    assert await found() == [[4], all_but_4, [], [*range(1, 8)]]
    async with database.transaction() as connection:
        session = await open_session(connection, host="h", version="1", resources=["parcels"])
        (item,) = (await claim(connection, PARCELS, TABLE, session=session, limit=9)).items
    assert await found() == [[], [*range(1, 8)], [4], all_but_4]
    async with database.transaction() as connection:  # as when the entry's partition is dropped
        await connection.execute("UPDATE worker_claim SET items = ARRAY[%s::text]", [item.key])
        await connection.execute("DELETE FROM status_event")
    assert await found() == [[], [*range(1, 8)], [4], all_but_4]
    async with database.transaction() as connection:
        await finish(connection, PARCELS, TABLE, [Result(item, "find_nothing")])
    assert await found() == [[], [*range(1, 8)], [], [*range(1, 8)]]


async def test_a_filter_and_its_negation_split_the_items(database: Database) -> None:
    for text in ("size > 0", "note:5", "colour = red", "price != 9.99", "sent_at:* OR due:*", "fragile = false"):
        both = [*await matching(database, text), *await matching(database, f"NOT ({text})")]
        assert sorted(both) == [1, 2, 3, 4, 5, 6, 7]


ORDERS = [
    *("", "id desc", "size", "size desc", "note, size desc", "status desc, name desc", "weight desc", "slope", "price"),
    *("sent_at desc", "local_time", "due desc", "colour", "fragile, floor desc", "queue_status, serial", "name, id"),
    "result desc, error, batch_id, version, attempts, next_attempt_time",
]


async def test_pages_in_any_order_meet_without_gap_or_overlap(database: Database) -> None:
    for order_by, page_size in product(ORDERS, (1, 2, 3)):
        everything, _ = await page(database, order_by=order_by)
        walked: list[int] = []
        token = ""
        while token or not walked:
            items, token = await page(database, order_by=order_by, page_size=page_size, page_token=token)
            assert len(items) == page_size or not token
            walked += items
        assert walked == everything
        assert sorted(walked) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_missing_value_counts_as_the_greatest(database: Database) -> None:
    assert await page(database, order_by="size") == ([4, 1, 3, 5, 2, 6, 7], "")
    assert await page(database, order_by="size desc") == ([2, 6, 7, 1, 3, 5, 4], "")


async def test_the_next_page_by_key_is_a_range_of_the_primary_key(database: Database) -> None:
    _, token = await page(database, page_size=2)
    query = read_list_items(pb.ListItemsRequest(resource="parcels", page_size=2, page_token=token), REGISTRY)
    async with database.core() as connection:
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        await connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        statement = page_statement(query, []).compile(dialect=connection.dialect)
        explained = await connection.exec_driver_sql(f"EXPLAIN {statement}", statement.params)
        plan = "\n".join(explained.scalars())
    assert "Index Cond: (id > " in plan
    assert "Sort" not in plan


async def test_counts_are_by_status_and_queue_status(database: Database) -> None:
    items = item_table(PARCELS)
    async with database.core() as connection:
        counts = await count_items(connection, items, compile_filter("size:* OR floor:*", items))
    assert [(c.status, c.queue_status, c.count) for c in counts] == [
        ("New", None, 2),
        ("Scan", "completed", 1),
        ("Scan", "failed", 1),
        ("Scan", "queued", 1),
    ]
