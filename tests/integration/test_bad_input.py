"""Whatever is wrong with a call gets a typed error over the wire, and changes nothing: no row, no batch, no log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import grpc
import pytest
from sqlalchemy import Column, MetaData, Table, Text, insert

from curation.v1 import curation_pb2 as pb
from curation_client.aio import CurationClient
from curation_client.channel import MESSAGE_BYTES_MAX
from curation_service.server import RECEIVE_FACTOR, SERVICE
from shared.db.engine import Database
from shared.workflow import Curation, QueueColumns, Workflow, item_columns
from tests.support.batches import everything, parcel_id, update, with_version
from tests.support.parcels import PARCELS
from tests.support.service import (
    WAIT_S,
    RunningService,
    add_parcels,
    refused,
    running_service,
    somebody_waits_for_a_lock,
)
from tests.support.worker import GADGETS, create_tables

REQUEST_ID = "6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11"
BAD_UPDATES: list[tuple[str, str, pb.BatchUpdateStatusRequest]] = [
    ("UNKNOWN_RESOURCE", "", pb.BatchUpdateStatusRequest(resource="nope", status="Scan", filter="id:*")),
    ("UNKNOWN_RESOURCE", "", pb.BatchUpdateStatusRequest(resource="parcels\0", status="Scan", filter="id:*")),
    ("INVALID_REQUEST", "resource", pb.BatchUpdateStatusRequest(status="Scan", filter="id:*")),
    ("INVALID_REQUEST", "status", update("Nope", 1)),
    ("INVALID_REQUEST", "status", update("scan", 1)),
    ("INVALID_REQUEST", "status", update("", 1)),
    ("INVALID_REQUEST", "status", update("S" * 1_000_000, 1)),
    ("INVALID_REQUEST", "selection", update("Scan")),
    ("INVALID_REQUEST", "ids.ids", update("Scan", ids=pb.ItemIds())),
    ("INVALID_REQUEST", "ids.ids[0]", update("Scan", ids=pb.ItemIds(ids=[""]))),
    ("INVALID_REQUEST", "ids.ids[1]", update("Scan", ids=pb.ItemIds(ids=[parcel_id(1), "x"]))),
    ("INVALID_REQUEST", "ids.ids[0]", update("Scan", ids=pb.ItemIds(ids=[f"{{{parcel_id(1)}}}"]))),
    ("INVALID_REQUEST", "ids.ids[0]", update("Scan", ids=pb.ItemIds(ids=["9" * 1_000_000]))),
    ("INVALID_REQUEST", "ids.ids[1]", update("Scan", 1, 1)),
    ("INVALID_REQUEST", "ids.ids[3]", update("Scan", 1, 2, 3, 4)),
    ("INVALID_REQUEST", "items.entries", update("Scan", items=pb.ItemSelection())),
    ("INVALID_REQUEST", "items.entries[0].expected_version", update("Scan", **with_version(1, -1))),
    ("INVALID_REQUEST", "filter", update("Scan", filter="")),
    ("INVALID_REQUEST", "filter", update("Scan", filter="size = x")),
    ("INVALID_REQUEST", "filter", update("Scan", filter="id:*")),
    ("INVALID_REQUEST", "filter", update("Scan", filter="size = 1) OR (id:*")),
    ("INVALID_REQUEST", "request_id", update("Scan", 1, request_id="x")),
    ("INVALID_REQUEST", "request_id", update("Scan", 1, request_id="00000000-0000-0000-0000-000000000000")),
    ("INVALID_REQUEST", "actor", update("Scan", 1, actor="a" * 201)),
    ("INVALID_REQUEST", "reason", update("Scan", 1, reason="\0")),
    ("ITEMS_REFUSED", "", update("Scan", 1, 9)),
    ("ITEMS_REFUSED", "", update("New", 1, 4)),
    ("ITEMS_REFUSED", "", update("Archived", 2, 3)),
    ("ITEMS_REFUSED", "", update("Scan", **with_version(1, 2))),
    ("REQUEST_ID_REUSED", "", update("Scan", 1, request_id=REQUEST_ID)),
]


async def test_no_bad_update_changes_anything(database_url: str) -> None:
    async with running_service(database_url, items_max=3) as service:
        in_flight = {"status": "Scan", "scan_status": "processing", "scan_attempts": 1}
        await add_parcels(service.database, {}, in_flight, {}, {"status": "Scan"})
        await service.stub.BatchUpdateStatus(update("Selected", 3, request_id=REQUEST_ID))
        before = await everything(service.database)
        for reason, field, request in BAD_UPDATES:
            refusal = await refused(service.stub.BatchUpdateStatus(request))
            told = f"{reason} {field} {str(request)[:200]}"
            assert refusal.reason == reason, told
            assert [name for name, _ in refusal.fields] == ([field] if field else []), told
            assert await everything(service.database) == before, told


FILTERS = [
    *("AND", "NOT", "()", "size", "size =", "= 1", "size == 1", "size = 1 OR", "size = 1)", "(size = 1", 'name = "x'),
    *("nope = 1", "s.size = 1", "ctid = 1", "scan_worker = 1", '"size" = 1', "name = x;DROP TABLE parcels"),
    *("size = 5.0", "size = 2147483648", "floor = 32768", "serial = 9223372036854775808", "size = \u0665"),
    *("weight = 1e309", "slope = 1e39", "slope != -1e300", "slope > 1e-300", "price = 1e1001", "price = 1e-1001"),
    *("fragile = maybe", "due = 2026-02-30", "sent_at > 2026-04-21", "sent_at > 9999-12-31T23:59:59-14:00"),
    *("id = x", 'name = "\0"', "details = x", "tags:x", "label = x", "queue_status = Nope", "batch_id = x"),
    *("(" * 21 + "size = 1" + ")" * 21, "-" * 21 + "size = 1", " ".join(["size=1"] * 101), "name = " + "x" * 4_096),
]


async def test_a_broken_filter_is_refused_wherever_there_is_one(unchanged_service: RunningService) -> None:
    stub = unchanged_service.stub
    calls: list[Callable[[str], Awaitable[object]]] = [
        lambda text: stub.BatchUpdateStatus(update("Scan", filter=text)),
        lambda text: stub.ListItems(pb.ListItemsRequest(resource="parcels", filter=text)),
        lambda text: stub.CountItems(pb.CountItemsRequest(resource="parcels", filter=text)),
        lambda text: stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", filter=text)).read(),
    ]
    for text, call in product(FILTERS, calls):
        refusal = await refused(call(text))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"), text
        assert [field for field, _ in refusal.fields] == ["filter"], text


HARMLESS = [
    *("name = %s", 'name = "%(filter_1)s"', 'name = "\' OR true --"', 'name:"%"', "name:_", "colour = purple"),
    *("slope = 3.4e38", "slope < -inf", "slope = 1e-45", "weight = 1e308", "price = 1e999", "due > 9999-12-31"),
    *(" OR ".join(["size = 1"] * 100), "(" * 20 + "size = 1" + ")" * 20, 'note:"' + "%_" * 1_000 + '"'),
    *("name = \U0001f680\u202e", 'name = "\ud7ff\uffff"'),
]


async def test_what_only_looks_hostile_is_a_value_like_any_other(unchanged_service: RunningService) -> None:
    for text in HARMLESS:
        dry = await unchanged_service.stub.BatchUpdateStatus(update("Scan", filter=text, validate_only=True))
        assert dry.batch.requested_count == 0, text
        page = await unchanged_service.stub.ListItems(pb.ListItemsRequest(resource="parcels", filter=text))
        assert not page.items, text


@pytest.fixture
async def unchanged_service(database_url: str) -> AsyncIterator[RunningService]:
    """A service with one parcel, of which nothing may change."""
    async with running_service(database_url) as service:
        await add_parcels(service.database, {})
        before = await everything(service.database)
        yield service
        assert await everything(service.database) == before


# Field 1 of every request is its resource.
BROKEN = {
    "text that is not UTF-8": b"\x0a\x03\xff\xfe\xfd",
    "half of a surrogate pair": b"\x0a\x03\xed\xa0\x80",
    "cut off": b"\x0a\x07parcel",
    "no message": b"\xff" * 50,
}


async def test_bytes_that_are_no_message_are_refused_with_details(unchanged_service: RunningService) -> None:
    channel: Any = unchanged_service.channel
    for what, data in BROKEN.items():
        for call in (
            channel.unary_unary(f"/{SERVICE}/BatchUpdateStatus")(data),
            channel.unary_stream(f"/{SERVICE}/WatchStatus")(data).read(),
        ):
            refusal = await refused(call)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_UNREADABLE"), what


async def test_an_oversized_message_is_refused_and_changes_nothing(database_url: str) -> None:
    limit = 64 * 1024
    async with running_service(database_url, message_size_max=limit) as service:
        await add_parcels(service.database, {})
        before = await everything(service.database)
        refusal = await refused(service.stub.BatchUpdateStatus(update("Scan", 1, reason="x" * limit)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE")
        assert refusal.metadata["sizeMax"] == str(limit)
        async with CurationClient(service.address) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await anext(client.watch("parcels", ids=[parcel_id(n) for n in range(limit // 36)]))
            assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        # Beyond that gRPC itself hangs up, without details.
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.stub.BatchUpdateStatus(update("Scan", 1, reason="x" * limit * RECEIVE_FACTOR))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        async with asyncio.timeout(WAIT_S), CurationClient(service.address) as client:
            for size in (limit * RECEIVE_FACTOR, MESSAGE_BYTES_MAX):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(client.watch("parcels", filter="x" * size))
                assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await everything(service.database) == before


curation = Curation(initial="New", transitions={"New": ("Wanted",), "Wanted": ()}, triggers=frozenset({"Wanted"}))
queue = QueueColumns.named("lookup")
metadata = MetaData()
notes = Table("notes", metadata, Column("slug", Text, primary_key=True), *item_columns(curation, queue, key="slug"))
note_details = Table("note_details", metadata, Column("slug", Text, primary_key=True))
NOTES = Workflow(
    resource="notes",
    source=notes,
    target=note_details,
    target_key="slug",
    curation=curation,
    queue=queue,
    enricher="tests.support.parcels:never",
)
SLUG = "a b/é\U0001f680' OR 1=1 --"


@asynccontextmanager
async def service_of_every_key(database_url: str) -> AsyncIterator[RunningService]:
    """A service of items with a key of each kind: `parcels` by UUID, `gadgets` by number, `notes` by text."""
    create_tables(database_url)
    async with running_service(database_url, beside=[GADGETS, NOTES]) as service:
        async with service.database.core() as connection:
            await connection.run_sync(metadata.create_all)
            await connection.execute(insert(GADGETS.source).values(id=1, name="one"))
            await connection.execute(insert(notes).values(slug=SLUG))
        await add_parcels(service.database, {})
        yield service


MALFORMED = {
    "parcels": ["", "1", "x", parcel_id(1)[:-1], f" {parcel_id(1)}", f"urn:uuid:{parcel_id(1)}", parcel_id(1) + "\0"],
    "gadgets": [
        "",
        "x",
        " 1",
        "1 ",
        "1.0",
        "1e0",
        "0x1",
        "\u0663",
        "1\0",
        "9223372036854775808",
        "9" * 5_000,
        parcel_id(1),
    ],
    "notes": ["", "a\0b", "x" * 1_001],
}
ABSENT = {"parcels": parcel_id(9), "gadgets": "-9223372036854775808", "notes": "x" * 1_000}
PRESENT = {"parcels": [parcel_id(1), parcel_id(1).upper()], "gadgets": ["1", "+1", "001"], "notes": [SLUG]}
STATUS = {"parcels": "Scan", "gadgets": "Wanted", "notes": "Wanted"}
TABLES = {"parcels": PARCELS.source, "gadgets": GADGETS.source, "notes": notes}


@pytest.mark.parametrize("resource", MALFORMED)
async def test_an_id_of_the_wrong_kind_is_refused_by_each_workflow(database_url: str, resource: str) -> None:
    async with service_of_every_key(database_url) as service:
        before = await everything(service.database, TABLES[resource])

        async def update_of(*ids: str, **fields: Any) -> pb.BatchUpdateStatusResponse:
            request = pb.BatchUpdateStatusRequest(resource=resource, status=STATUS[resource], ids=pb.ItemIds(ids=ids))
            request.MergeFrom(pb.BatchUpdateStatusRequest(**fields))
            return await service.stub.BatchUpdateStatus(request)

        for text in MALFORMED[resource]:
            assert [field for field, _ in (await refused(update_of(text))).fields] == ["ids.ids[0]"]
            asked = service.stub.GetItem(pb.GetItemRequest(resource=resource, id=text))
            assert [field for field, _ in (await refused(asked)).fields] == ["id"]
            watch = service.stub.WatchStatus(pb.WatchStatusRequest(resource=resource, ids=pb.ItemIds(ids=[text])))
            assert [field for field, _ in (await refused(watch.read())).fields] == ["ids.ids[0]"]
        absent = await refused(update_of(ABSENT[resource]))
        assert [reason for reason, _, _ in absent.items] == ["NOT_FOUND"]
        for spelling in PRESENT[resource]:
            assert (await update_of(spelling, validate_only=True)).batch.changed_count == 1
        if len(PRESENT[resource]) > 1:
            assert [field for field, _ in (await refused(update_of(*PRESENT[resource][:2]))).fields] == ["ids.ids[1]"]
        assert await everything(service.database, TABLES[resource]) == before


async def test_a_page_token_is_of_one_query_of_one_resource(database_url: str) -> None:
    async with service_of_every_key(database_url) as service:
        await add_parcels(service.database, *({"id": f"00000000-0000-0000-0000-00000000000{n}"} for n in range(2, 6)))
        asked: dict[str, Any] = {
            "resource": "parcels",
            "filter": "name:parcel",
            "order_by": "size desc",
            "page_size": 1,
        }
        token = (await service.stub.ListItems(pb.ListItemsRequest(**asked))).next_page_token
        assert (await service.stub.ListItems(pb.ListItemsRequest(**asked, page_token=token))).items
        others = [{"resource": "gadgets", "filter": "", "order_by": ""}, {"filter": "name:a"}, {"order_by": "size"}]
        requests = [asked | other | {"page_token": token} for other in others]
        requests += [asked | {"page_token": bad} for bad in (token[:-1], token + "A", token.swapcase(), "é", "\0")]
        for request in requests:
            refusal = await refused(service.stub.ListItems(pb.ListItemsRequest(**request)))
            assert [field for field, _ in refusal.fields] == ["page_token"]


async def test_a_deadline_that_passes_in_the_transaction_lets_go_of_rows_and_request_id(
    service: RunningService,
) -> None:
    await add_parcels(service.database, {}, {})
    before = await everything(service.database)
    request = update("Scan", 1, 2, request_id=REQUEST_ID)
    async with service.database.transaction() as connection:
        await connection.execute("SELECT FROM parcels WHERE id = %s FOR UPDATE", (parcel_id(2),))
        call = asyncio.ensure_future(service.stub.BatchUpdateStatus(request, timeout=1))
        await somebody_waits_for_a_lock(service.database)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await somebody_waits_for_a_lock(service.database, waiting=False)
        assert await everything(service.database) == before
        # Parcel 1 was locked by the call that timed out.
        assert (await service.stub.BatchUpdateStatus(update("Selected", 1))).batch.changed_count == 1
    answer = await service.stub.BatchUpdateStatus(request)
    assert (answer.replayed, answer.batch.changed_count) == (False, 2)


async def test_a_call_without_a_deadline_that_waits_too_long_is_ended_and_changes_nothing(database_url: str) -> None:
    async with running_service(database_url, call_age_max_s=0.2) as service, Database(database_url) as own:
        await add_parcels(own, {}, {})
        before = await everything(own)
        async with own.transaction() as connection:
            await connection.execute("SELECT FROM parcels FOR UPDATE")
            for call in (service.stub.BatchUpdateStatus(update("Scan", *numbers)) for numbers in ((1,), (1, 2))):
                refusal = await refused(call)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "CALL_TOO_LONG")
            await waiting_calls(own, 0)
        assert await everything(own) == before


async def test_a_full_pool_is_told_from_a_mistake_and_changes_nothing(database_url: str) -> None:
    async with (
        running_service(database_url, pool_size=4, pool_timeout_s=0.05) as service,
        Database(database_url) as own,
    ):
        await add_parcels(own, {})
        before = await everything(own)
        async with own.transaction() as connection:
            await connection.execute("SELECT FROM parcels FOR UPDATE")
            held = [
                asyncio.ensure_future(service.stub.BatchUpdateStatus(update(status, 1))) for status in ("New", "Scan")
            ]
            await waiting_calls(own, len(held))
            refusal = await refused(service.stub.BatchUpdateStatus(update("Scan", 1)))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            for call in held:
                call.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            await waiting_calls(own, 0)
        assert await everything(own) == before
        # Room again: nothing of the pool was lost with the calls.
        assert (await service.stub.BatchUpdateStatus(update("Scan", 1))).batch.changed_count == 1


async def waiting_calls(database: Database, size: int) -> None:
    """Returns once so many calls wait for a lock."""
    async with asyncio.timeout(20), database.transaction() as connection:
        while True:
            cursor = await connection.execute(
                "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            )
            if await cursor.fetchall() == [(size,)]:
                return
