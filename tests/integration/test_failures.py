"""What has failed, over the wire: listed in groups, and queued again; an error changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc
import psycopg
import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.log_keeper import LogKeeper
from shared.db.claim import claim
from shared.db.engine import Database
from shared.db.finish import Result, finish
from shared.failure import Failure
from shared.table import transition_table
from tests.integration.test_partitions import name_of, today
from tests.support.batches import parcel_id
from tests.support.parcels import PARCELS
from tests.support.service import (
    RunningService,
    add_parcels,
    all_parcels,
    refused,
    running_service,
    somebody_waits_for_a_lock,
)

TABLE = transition_table(PARCELS)
REQUEST_ID = "6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11"
pytestmark = pytest.mark.postgres_versions


def ids(*numbers: int) -> pb.ItemIds:
    return pb.ItemIds(ids=map(parcel_id, numbers))


def retry(**fields: Any) -> pb.RetryFailedRequest:
    return pb.RetryFailedRequest(resource="parcels", **fields)


async def scan(service: RunningService, *numbers: int) -> str:
    """Queues parcels as a batch. Returns its id."""
    request = pb.BatchUpdateStatusRequest(resource="parcels", status="Scan", ids=ids(*numbers))
    return (await service.stub.BatchUpdateStatus(request)).batch.batch_id


async def fail(database: Database, errors: Sequence[str], kind: str = "HTTP 400") -> None:
    """Claims as many queued parcels as there are errors, in order of key, and lets each fail with its own."""
    async with database.transaction() as connection:
        claimed = (await claim(connection, PARCELS, TABLE, session=1, limit=len(errors))).items
        items = sorted(claimed, key=lambda item: str(item.key))
        results = [
            Result(item, "fail", error=error, failure=Failure.of("parcels API", kind, error))
            for item, error in zip(items, errors, strict=True)
        ]
        assert (await finish(connection, PARCELS, TABLE, results)).dropped == 0


async def groups(service: RunningService, **fields: Any) -> list[pb.FailureGroup]:
    request = pb.ListFailureGroupsRequest(resource="parcels", **fields)
    return list((await service.stub.ListFailureGroups(request)).groups)


async def queue_statuses(service: RunningService) -> list[str | None]:
    return [row["scan_status"] for row in await all_parcels(service.database)]


async def everything(service: RunningService) -> tuple[object, ...]:
    """All that a retry may write."""
    async with service.database.transaction() as connection:
        counted = "SELECT (SELECT count(*) FROM status_batch), (SELECT count(*) FROM status_event)"
        counts = await (await connection.execute(counted.encode())).fetchone()
    return await all_parcels(service.database), counts


async def test_failures_that_are_alike_are_one_group(service: RunningService) -> None:
    await add_parcels(service.database, *[{}] * 6)
    await scan(service, 1, 2, 3, 4, 5, 6)
    await fail(service.database, ["no parcel 'a'", "no parcel 'b'", "too big", "no parcel 'c'", "too big"])
    first, second = await groups(service)
    assert (first.upstream, first.kind, first.message) == ("parcels API", "HTTP 400", "no parcel …")
    assert (first.item_count, first.sample_item_id, first.sample_error) == (3, parcel_id(1), "no parcel 'a'")
    assert (second.message, second.item_count, second.sample_item_id) == ("too big", 2, parcel_id(3))
    assert first.first_seen_time.ToDatetime() <= first.last_seen_time.ToDatetime()
    matching = f'queue_status = "failed" AND failure_group_id = {second.failure_group_id}'
    listed = await service.stub.ListItems(pb.ListItemsRequest(resource="parcels", filter=matching))
    assert [item.id for item in listed.items] == [parcel_id(3), parcel_id(5)]
    assert {item.failure_group_id for item in listed.items} == {second.failure_group_id}


async def test_a_group_says_when_it_was_seen_last(service: RunningService) -> None:
    await add_parcels(service.database, {})
    await scan(service, 1)
    await fail(service.database, ["too big"])
    (before,) = await groups(service)
    await service.stub.RetryFailed(retry(ids=ids(1)))
    await fail(service.database, ["too big"])
    (after,) = await groups(service)
    assert after.first_seen_time == before.first_seen_time
    assert after.last_seen_time.ToDatetime() > before.last_seen_time.ToDatetime()


@pytest.mark.parametrize(("retention_days", "left"), [(365, {"used", "young"}), (500, None), (None, None)])
async def test_a_group_goes_when_nothing_was_in_it_for_as_long_as_batches_are_kept(
    service: RunningService, retention_days: int | None, left: set[str] | None
) -> None:
    await add_parcels(service.database, {}, {}, {})
    await scan(service, 1, 2, 3)
    await fail(service.database, ["used", "left", "young"])
    await service.stub.RetryFailed(retry(ids=ids(2, 3)))
    with psycopg.connect(service.database.url, autocommit=True) as connection:
        connection.execute(
            "UPDATE failure_group SET last_seen_at = now() - interval '400 days' WHERE message <> 'young'"
        )
        connection.execute("INSERT INTO failure_group SELECT 7, 'others', '', '', 'theirs', now(), '-infinity'")
        connection.execute(f"DROP TABLE {name_of(today(connection) + timedelta(days=1))}")
        keeper = LogKeeper(
            url=service.database.url, retention_days=30, batch_retention_days=retention_days, workflows=[PARCELS]
        )
        keeper._keep()
        messages = {message for (message,) in connection.execute("SELECT message FROM failure_group")}
    assert messages == (left or {"used", "left", "young"}) | {"theirs"}


async def test_workers_that_see_the_same_failures_in_opposite_orders_do_not_deadlock(service: RunningService) -> None:
    def of(error: str) -> int:
        return Failure.of("parcels API", "HTTP 400", error).group("parcels")

    await add_parcels(service.database, {}, {})
    await scan(service, 1, 2)
    first, second = sorted(["too big", "too small"], key=of)
    insert = "INSERT INTO failure_group (id, resource, upstream, kind, message) VALUES (%s, 'parcels', '', '', '')"
    async with service.database.transaction() as connection:
        await connection.execute(insert, (of(first),))
        failing = asyncio.create_task(fail(service.database, [second, first]))
        await somebody_waits_for_a_lock(service.database)
        await connection.execute(insert, (of(second),))
    await failing


async def test_the_sample_of_a_group_is_none_that_waits_for_another_attempt(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    await scan(service, 1, 2)
    failure = Failure.of("parcels API", "HTTP 500", "down")
    async with service.database.transaction() as connection:
        items = (await claim(connection, PARCELS, TABLE, session=1, limit=2)).items
        results = [
            Result(item, "retry" if str(item.key) == parcel_id(1) else "fail", "down", failure, 60) for item in items
        ]
        assert (await finish(connection, PARCELS, TABLE, results)).dropped == 0
    (group,) = await groups(service)
    assert (group.item_count, group.sample_item_id) == (1, parcel_id(2))


async def test_an_item_that_a_later_run_mends_leaves_its_group(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    await scan(service, 1, 2)
    await fail(service.database, ["too big", "too big"])
    await service.stub.RetryFailed(retry(ids=ids(1)))
    assert [group.item_count for group in await groups(service)] == [1]
    async with service.database.transaction() as connection:
        (item,) = (await claim(connection, PARCELS, TABLE, session=1, limit=1)).items
        await finish(connection, PARCELS, TABLE, [Result(item, "find_nothing")])
    (group,) = await groups(service)
    assert (group.item_count, group.sample_item_id) == (1, parcel_id(2))
    await service.stub.RetryFailed(retry(ids=ids(2)))
    assert await groups(service) == []


async def test_groups_are_listed_by_batch_and_in_pages(service: RunningService) -> None:
    await add_parcels(service.database, *[{}] * 9)
    first = await scan(service, 1, 2, 3)
    await fail(service.database, ["a", "b", "b"])
    second = await scan(service, 4, 5, 6, 7, 8, 9)
    await fail(service.database, ["a", "a", "a", "b", "c", "c"])
    assert [(g.message, g.item_count) for g in await groups(service, batch_id=first)] == [("b", 2), ("a", 1)]
    of_second = await groups(service, batch_id=second)
    assert [(g.message, g.item_count, g.sample_item_id) for g in of_second] == [
        ("a", 3, parcel_id(4)),
        ("c", 2, parcel_id(8)),
        ("b", 1, parcel_id(7)),
    ]
    seen: list[tuple[str, int]] = []
    token = ""
    while token or not seen:
        request = pb.ListFailureGroupsRequest(resource="parcels", page_size=2, page_token=token)
        page = await service.stub.ListFailureGroups(request)
        seen += [(group.message, group.item_count) for group in page.groups]
        token = page.next_page_token
    assert seen == [("a", 4), ("b", 3), ("c", 2)]


async def test_what_has_failed_is_queued_again_as_a_batch_that_can_be_watched(service: RunningService) -> None:
    await add_parcels(service.database, {}, {}, {})
    await scan(service, 1, 2, 3)
    await fail(service.database, ["too big", "too big", "too big"])
    answer = await service.stub.RetryFailed(retry(ids=ids(1, 3), actor="ann", reason="it was mended"))
    batch = answer.batch
    assert (batch.resource, batch.status, batch.actor, batch.reason) == ("parcels", "", "ann", "it was mended")
    assert (batch.requested_count, batch.changed_count, batch.queued_count) == (2, 2, 2)
    rows = await all_parcels(service.database)
    assert [(row["scan_status"], row["scan_attempts"], row["scan_error"]) for row in rows] == [
        ("queued", 0, None),
        ("failed", 1, "too big"),
        ("queued", 0, None),
    ]
    assert {row["status"] for row in rows} == {"Scan"}
    await fail(service.database, ["no", "no"])
    watching = pb.WatchStatusRequest(
        resource="parcels", batch_id=batch.batch_id, resume_token=answer.resume_token, end_when_done=True
    )
    kinds: list[str] = []
    call: Any = service.stub.WatchStatus(watching)
    async with aclosing(aiter(call)) as parts:
        async for part in parts:
            kinds += [event.kind for event in part.events.events]
    assert sorted(kinds) == ["claim", "claim", "fail", "fail"]
    history = (await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1)))).history
    assert [event.kind for event in history] == ["fail", "claim", "requeue", "fail", "claim", "curate"]
    assert history[2].reason == "it was mended"
    assert (await service.stub.GetBatch(pb.GetBatchRequest(batch_id=batch.batch_id))).progress.failed == 2


async def test_a_retry_takes_what_failed_of_a_filter_a_batch_or_a_group(service: RunningService) -> None:
    await add_parcels(service.database, *[{"size": n} for n in range(1, 7)])
    first, second = await scan(service, 1, 2, 3), await scan(service, 4, 5)
    await fail(service.database, ["a", "a", "b", "a", "b"])
    answer = await service.stub.RetryFailed(retry(filter="size <= 1 OR size >= 6"))
    assert (answer.batch.requested_count, answer.batch.queued_count) == (1, 1)
    assert (await service.stub.RetryFailed(retry(batch_id=first))).batch.queued_count == 2
    (group_a, group_b) = sorted(await groups(service), key=lambda group: group.message)
    assert (await service.stub.RetryFailed(retry(failure_group_id=group_a.failure_group_id))).batch.queued_count == 1
    assert await queue_statuses(service) == ["queued", "queued", "queued", "queued", "failed", None]
    assert (await service.stub.RetryFailed(retry(batch_id=second, validate_only=True))).batch.queued_count == 1
    assert (await service.stub.RetryFailed(retry(failure_group_id=group_b.failure_group_id))).batch.queued_count == 1
    assert (await service.stub.RetryFailed(retry(batch_id=second))).batch.requested_count == 0


async def test_what_cannot_be_retried_is_named_or_refuses_all(service: RunningService) -> None:
    await add_parcels(service.database, {}, {}, {})
    await scan(service, 1, 2)
    await fail(service.database, ["too big", "too big"])
    left = pb.BatchUpdateStatusRequest(resource="parcels", status="Selected", ids=ids(2))
    await service.stub.BatchUpdateStatus(left)
    before = await everything(service)
    refusal = await refused(service.stub.RetryFailed(retry(ids=ids(1, 2, 9))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ITEMS_REFUSED")
    assert refusal.items == (
        ("ILLEGAL_TRANSITION", parcel_id(2), "from Selected (failed, version 5) to queued"),
        ("NOT_FOUND", parcel_id(9), "there is no such item"),
    )
    assert "cannot be retried" in refusal.message
    dry = await service.stub.RetryFailed(retry(ids=ids(1, 2, 3), allow_partial=True, validate_only=True))
    assert (dry.batch.batch_id, dry.batch.queued_count) == ("", 1)
    assert await everything(service) == before
    answer = await service.stub.RetryFailed(retry(ids=ids(1, 2, 3), allow_partial=True))
    assert [(outcome.item_id, outcome.reason) for outcome in answer.outcomes] == [
        (parcel_id(2), pb.OUTCOME_REASON_ILLEGAL_TRANSITION),
        (parcel_id(3), pb.OUTCOME_REASON_ILLEGAL_TRANSITION),
    ]
    assert await queue_statuses(service) == ["queued", "failed", None]
    again = await service.stub.RetryFailed(retry(ids=ids(1)))
    assert [outcome.reason for outcome in again.outcomes] == [pb.OUTCOME_REASON_UNCHANGED]


async def test_the_same_request_id_retries_once(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    await scan(service, 1, 2)
    await fail(service.database, ["too big", "too big"])
    request = retry(ids=ids(1), request_id=REQUEST_ID)
    first = await service.stub.RetryFailed(request)
    await fail(service.database, ["too big"])
    before = await everything(service)
    again = await service.stub.RetryFailed(request)
    assert again.replayed
    assert again.batch == first.batch
    assert (await refused(service.stub.RetryFailed(retry(ids=ids(2), request_id=REQUEST_ID)))).reason == (
        "REQUEST_ID_REUSED"
    )
    same_fields = pb.BatchUpdateStatusRequest(resource="parcels", status="Scan", ids=ids(1), request_id=REQUEST_ID)
    assert (await refused(service.stub.BatchUpdateStatus(same_fields))).reason == "REQUEST_ID_REUSED"
    assert await everything(service) == before


async def test_no_error_changes_anything(database_url: str) -> None:
    async with running_service(database_url, items_max=3) as service:
        await add_parcels(service.database, *[{}] * 4)
        await scan(service, 1, 2, 3)
        await scan(service, 4)
        await fail(service.database, ["too big"] * 4)
        (group,) = await groups(service)
        async with service.database.transaction() as connection:
            await connection.execute("INSERT INTO status_batch (resource, status) VALUES ('places', 'New')")
            await connection.execute("INSERT INTO failure_group SELECT 7, 'places', '', '', '', now(), now()")
        before = await everything(service)
        for reason, request in [
            ("UNKNOWN_RESOURCE", pb.RetryFailedRequest(resource="nope", filter="id:*")),
            ("INVALID_REQUEST", retry()),
            ("INVALID_REQUEST", retry(filter="")),
            ("INVALID_REQUEST", retry(filter="size = x")),
            ("INVALID_REQUEST", retry(ids=ids(1, 1))),
            ("INVALID_REQUEST", retry(ids=ids(1), request_id="x")),
            ("INVALID_REQUEST", retry(ids=ids(1), actor="a" * 201)),
            ("INVALID_REQUEST", retry(failure_group_id="")),
            ("INVALID_REQUEST", retry(failure_group_id=group.failure_group_id)),
            ("UNKNOWN_BATCH", retry(batch_id="99")),
            ("UNKNOWN_BATCH", retry(batch_id="3")),
            ("UNKNOWN_FAILURE_GROUP", retry(failure_group_id="99")),
            ("UNKNOWN_FAILURE_GROUP", retry(failure_group_id="x")),
            ("UNKNOWN_FAILURE_GROUP", retry(failure_group_id="7")),
            ("ITEMS_REFUSED", retry(ids=ids(1, 9))),
        ]:
            assert (await refused(service.stub.RetryFailed(request))).reason == reason, request
        ((_, ways),) = (await refused(service.stub.RetryFailed(retry()))).fields
        assert ways == "one of items, ids, filter, batch_id, failure_group_id is required"
        listed = service.stub.ListFailureGroups
        for reason, query in [
            ("UNKNOWN_RESOURCE", pb.ListFailureGroupsRequest(resource="nope")),
            ("UNKNOWN_BATCH", pb.ListFailureGroupsRequest(resource="parcels", batch_id="99")),
            ("UNKNOWN_BATCH", pb.ListFailureGroupsRequest(resource="parcels", batch_id="3")),
            ("INVALID_REQUEST", pb.ListFailureGroupsRequest(resource="parcels", page_token="x")),
            ("INVALID_REQUEST", pb.ListFailureGroupsRequest(resource="parcels", page_size=-1)),
            ("INVALID_REQUEST", pb.ListFailureGroupsRequest()),
        ]:
            assert (await refused(listed(query))).reason == reason, query
        too_many = await refused(service.stub.RetryFailed(retry(failure_group_id=group.failure_group_id)))
        assert too_many.fields == (("failure_group_id", "matches more than 3 items; narrow it down"),)
        assert await everything(service) == before
