"""A batch over the wire, on a real PostgreSQL: what it changes, what it says, and that an error changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from shared.db.engine import Database
from shared.db.log import log_identity
from shared.db.token import decode_token
from tests.support.batches import everything, parcel_id, update, with_version
from tests.support.log import cut
from tests.support.service import (
    RunningService,
    add_parcels,
    all_parcels,
    refused,
    running_service,
    somebody_waits_for_a_lock,
)

REQUEST_ID = "6f0c1c86-5b5e-4c0f-9d0a-3a8f6d2b7e11"


async def pairs(database: Database) -> list[tuple[str, str | None, int]]:
    """Status, queue status and version of each parcel, by key."""
    return [(row["status"], row["scan_status"], row["version"]) for row in await all_parcels(database)]


def outcomes(response: Any) -> list[tuple[str, str]]:
    return [(outcome.item_id, pb.OutcomeReason.Name(outcome.reason)) for outcome in response.outcomes]


def counts(response: pb.BatchUpdateStatusResponse) -> dict[str, int]:
    return {pb.OutcomeReason.Name(count.reason): count.count for count in response.outcome_counts}


async def test_a_trigger_status_queues_the_items_it_is_set_on(service: RunningService) -> None:
    await add_parcels(service.database, {}, {}, {})
    response = await service.stub.BatchUpdateStatus(update("Scan", 1, 3, actor="ann", reason="for the fair"))
    assert await pairs(service.database) == [("Scan", "queued", 2), ("New", None, 1), ("Scan", "queued", 2)]
    batch = response.batch
    assert (batch.resource, batch.status, batch.actor, batch.reason) == ("parcels", "Scan", "ann", "for the fair")
    assert (batch.requested_count, batch.changed_count, batch.queued_count) == (2, 2, 2)
    assert batch.HasField("create_time")
    assert not response.outcomes
    assert not response.outcome_counts
    assert not response.next_outcomes_page_token
    assert not response.replayed
    assert {str(row["scan_batch"]) for row in await all_parcels(service.database)} == {batch.batch_id, "None"}


async def test_a_status_that_is_no_trigger_queues_nothing(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    response = await service.stub.BatchUpdateStatus(update("Selected", 1, 2))
    assert (response.batch.changed_count, response.batch.queued_count) == (2, 0)
    assert await pairs(service.database) == [("Selected", None, 2), ("Selected", None, 2)]


async def test_a_filter_selects_all_that_match(service: RunningService) -> None:
    await add_parcels(service.database, {"size": 1}, {"size": 2}, {}, {"size": 3, "name": "100% of it"})
    response = await service.stub.BatchUpdateStatus(update("Scan", filter='size = 2 OR name:"0% "'))
    assert response.batch.requested_count == 2
    assert [status for status, _, _ in await pairs(service.database)] == ["New", "Scan", "New", "Scan"]


async def test_a_filter_with_or_does_not_reach_beyond_its_brackets(service: RunningService) -> None:
    await add_parcels(service.database, {"size": 1}, {"size": 2}, {"size": 3})
    response = await service.stub.BatchUpdateStatus(update("Selected", filter="NOT size = 1 OR size = 3"))
    assert response.batch.changed_count == 2


async def test_the_resume_token_is_the_position_of_the_batch(service: RunningService) -> None:
    await add_parcels(service.database, {})
    response = await service.stub.BatchUpdateStatus(update("Scan", 1))
    async with service.database.transaction() as connection:
        position = decode_token(response.resume_token, (await log_identity(connection)).id)
        cursor = await connection.execute("SELECT max(position) FROM status_event")
        assert await cursor.fetchone() == (position,)


async def test_one_item_that_cannot_change_refuses_all(service: RunningService) -> None:
    await add_parcels(
        service.database,
        {},
        {"status": "Archived"},
        {"status": "Scan", "scan_status": "processing", "scan_attempts": 1},
        {"status": "Selected"},
    )
    before = await everything(service.database)
    refusal = await refused(service.stub.BatchUpdateStatus(update("Selected", 1, 2, 3, 4, 9)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ITEMS_REFUSED")
    assert refusal.items == (
        ("ILLEGAL_TRANSITION", parcel_id(2), "from Archived (not queued, version 1) to Selected"),
        ("IN_FLIGHT", parcel_id(3), "from Scan (processing, version 1) to Selected"),
        ("NOT_FOUND", parcel_id(9), "there is no such item"),
    )
    assert refusal.metadata == {"status": "Selected", "illegalTransition": "1", "inFlight": "1", "notFound": "1"}
    assert await everything(service.database) == before


async def test_with_allow_partial_the_rest_changes_and_each_other_item_is_named(service: RunningService) -> None:
    await add_parcels(service.database, {}, {"status": "Archived"}, {"status": "Selected", "version": 4})
    response = await service.stub.BatchUpdateStatus(update("Selected", 1, 2, 3, 9, allow_partial=True))
    assert [status for status, _, _ in await pairs(service.database)] == ["Selected", "Archived", "Selected"]
    assert outcomes(response) == [
        (parcel_id(2), "OUTCOME_REASON_ILLEGAL_TRANSITION"),
        (parcel_id(9), "OUTCOME_REASON_NOT_FOUND"),
        (parcel_id(3), "OUTCOME_REASON_UNCHANGED"),
    ]
    assert (response.outcomes[2].status, response.outcomes[2].version) == ("Selected", 4)
    assert (response.outcomes[2].queue_status, response.outcomes[1].queue_status) == (pb.QUEUE_STATUS_NONE, 0)
    assert set(counts(response).values()) == {1}
    assert (response.batch.requested_count, response.batch.changed_count) == (4, 1)


async def test_an_expected_version_lets_nobody_overwrite_what_they_have_not_seen(service: RunningService) -> None:
    await add_parcels(service.database, {"version": 4}, {"version": 4})
    refusal = await refused(service.stub.BatchUpdateStatus(update("Selected", **with_version(1, 3))))
    assert [reason for reason, _, _ in refusal.items] == ["STALE_VERSION"]
    await service.stub.BatchUpdateStatus(update("Selected", **with_version(2, 4)))
    assert [version for _, _, version in await pairs(service.database)] == [4, 5]


async def test_an_item_in_flight_is_taken_away_only_when_asked(service: RunningService) -> None:
    await add_parcels(service.database, {"status": "Scan", "scan_status": "processing", "scan_attempts": 1})
    await refused(service.stub.BatchUpdateStatus(update("Archived", 1)))
    await service.stub.BatchUpdateStatus(update("Archived", 1, cancel_in_flight=True))
    assert await pairs(service.database) == [("Archived", None, 2)]


async def test_nothing_to_change_is_no_error(service: RunningService) -> None:
    await add_parcels(service.database, {"status": "Selected"})
    response = await service.stub.BatchUpdateStatus(update("Selected", 1))
    assert (response.batch.changed_count, counts(response)) == (0, {"OUTCOME_REASON_UNCHANGED": 1})
    assert not response.resume_token


async def test_validate_only_says_what_would_happen_and_changes_nothing(service: RunningService) -> None:
    await add_parcels(service.database, {}, {"status": "Archived"})
    before = await everything(service.database)
    dry = update("Scan", 1, 2, allow_partial=True, validate_only=True, request_id=REQUEST_ID)
    response = await service.stub.BatchUpdateStatus(dry)
    assert (response.batch.batch_id, response.resume_token) == ("", "")
    assert (response.batch.requested_count, response.batch.changed_count, response.batch.queued_count) == (2, 1, 1)
    assert outcomes(response) == [(parcel_id(2), "OUTCOME_REASON_ILLEGAL_TRANSITION")]
    assert (await refused(service.stub.BatchUpdateStatus(update("Scan", 2, validate_only=True)))).items
    assert await everything(service.database) == before
    real = update("Scan", 1, 2, allow_partial=True, request_id=REQUEST_ID)
    assert not (await service.stub.BatchUpdateStatus(real)).replayed


async def test_validate_only_waits_for_nobody(service: RunningService) -> None:
    await add_parcels(service.database, {}, {"status": "Selected"})
    async with service.database.transaction() as connection:
        await connection.execute("SELECT FROM parcels FOR UPDATE")
        chosen: list[dict[str, Any]] = [{"ids": pb.ItemIds(ids=[parcel_id(1)])}, {"filter": "id:*"}, with_version(1, 1)]
        for selection in chosen:
            response = await service.stub.BatchUpdateStatus(update("Selected", validate_only=True, **selection))
            assert response.batch.changed_count == 1


async def test_the_same_request_id_gets_the_first_answer_again(service: RunningService) -> None:
    await add_parcels(service.database, {}, {"status": "Archived"})
    request = update("Scan", 1, 2, allow_partial=True, request_id=REQUEST_ID, reason="once")
    first = await service.stub.BatchUpdateStatus(request)
    await service.stub.BatchUpdateStatus(update("Archived", 1))
    before = await everything(service.database)
    again = await service.stub.BatchUpdateStatus(request)
    assert again.replayed
    again.replayed = False
    assert again == first
    assert await everything(service.database) == before


async def test_calls_at_once_with_one_request_id_act_once(service: RunningService) -> None:
    await add_parcels(service.database, {})
    request = update("Scan", 1, request_id=REQUEST_ID)
    answers = await asyncio.gather(*(service.stub.BatchUpdateStatus(request) for _ in range(8)))
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 7
    assert len({answer.batch.batch_id for answer in answers}) == 1
    assert await pairs(service.database) == [("Scan", "queued", 2)]


@pytest.mark.parametrize("partial", [False, True], ids=["all or nothing", "in part"])
async def test_a_call_that_waited_for_another_with_its_request_id_gets_that_ones_answer(
    service: RunningService, partial: bool
) -> None:
    await add_parcels(service.database, {}, {})
    request = update("Scan", 1, 2, allow_partial=partial, request_id=REQUEST_ID)
    async with service.database.core() as connection:
        await connection.execute(text("SELECT FROM parcels FOR UPDATE"))
        calls = [asyncio.ensure_future(service.stub.BatchUpdateStatus(request)) for _ in range(2)]
        await somebody_waits_for_a_lock(service.database, count=2)
    answers = await asyncio.gather(*calls)
    assert sorted(answer.replayed for answer in answers) == [False, True]
    assert [answer.batch.changed_count for answer in answers] == [2, 2]
    assert len({answer.batch.batch_id for answer in answers}) == 1
    assert await pairs(service.database) == [("Scan", "queued", 2)] * 2


async def test_another_request_under_the_same_request_id_is_refused(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    await service.stub.BatchUpdateStatus(update("Scan", 1, request_id=REQUEST_ID))
    before = await everything(service.database)
    refusal = await refused(service.stub.BatchUpdateStatus(update("Scan", 2, request_id=REQUEST_ID)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert await everything(service.database) == before


async def test_a_refused_call_may_be_made_again_under_its_request_id(service: RunningService) -> None:
    await add_parcels(service.database, {"status": "Archived"})
    request = update("Scan", 1, request_id=REQUEST_ID)
    await refused(service.stub.BatchUpdateStatus(request))
    await service.stub.BatchUpdateStatus(update("New", 1))
    assert not (await service.stub.BatchUpdateStatus(request)).replayed


async def test_outcomes_beyond_the_bound_come_in_pages(database_url: str) -> None:
    async with running_service(database_url, outcomes_max=2) as service:
        await add_parcels(service.database, *[{"status": "Archived"}] * 7)
        request = update("Scan", *range(1, 8), allow_partial=True, request_id=REQUEST_ID)
        response = await service.stub.BatchUpdateStatus(request)
        assert counts(response) == {"OUTCOME_REASON_ILLEGAL_TRANSITION": 7}
        for answer in (response, await service.stub.BatchUpdateStatus(request)):
            seen, token = outcomes(answer), answer.next_outcomes_page_token
            assert len(seen) == 2
            while token:
                page = await service.stub.ListBatchOutcomes(
                    pb.ListBatchOutcomesRequest(batch_id=answer.batch.batch_id, page_size=2, page_token=token)
                )
                assert len(page.outcomes) in (1, 2)
                seen += outcomes(page)
                token = page.next_page_token
            assert [item for item, _ in seen] == [parcel_id(n) for n in range(1, 8)]
        other = pb.ListBatchOutcomesRequest(batch_id="99", page_token=response.next_outcomes_page_token)
        assert (await refused(service.stub.ListBatchOutcomes(other))).reason == "INVALID_REQUEST"


async def test_what_refuses_a_call_is_named_before_what_is_as_it_should_be(database_url: str) -> None:
    async with running_service(database_url, outcomes_max=2) as service:
        settled = {"status": "Selected"}
        in_flight = {"status": "Scan", "scan_status": "processing", "scan_attempts": 1}
        await add_parcels(service.database, settled, settled, settled, in_flight)
        request = update("Selected", 1, 2, 3, 4)
        refusal = await refused(service.stub.BatchUpdateStatus(request))
        assert [(reason, item) for reason, item, _ in refusal.items] == [("IN_FLIGHT", parcel_id(4))]
        assert "violationsLeftOut" not in refusal.metadata
        request.MergeFrom(pb.BatchUpdateStatusRequest(allow_partial=True))
        first = await service.stub.BatchUpdateStatus(request)
        rest = pb.ListBatchOutcomesRequest(batch_id=first.batch.batch_id, page_token=first.next_outcomes_page_token)
        assert outcomes(first) + outcomes(await service.stub.ListBatchOutcomes(rest)) == [
            (parcel_id(4), "OUTCOME_REASON_IN_FLIGHT"),
            *((parcel_id(n), "OUTCOME_REASON_UNCHANGED") for n in (1, 2, 3)),
        ]


RULES = {
    "one_selected": "CREATE UNIQUE INDEX one_selected ON parcels (status) WHERE status = 'Selected'",
    "has_a_size": "ALTER TABLE parcels ADD CONSTRAINT has_a_size CHECK (status <> 'Selected' OR size IS NOT NULL)",
    "not on Sundays": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF NEW.status = 'Selected' THEN RAISE 'not on Sundays'; END IF; RETURN NEW; END$$;
        CREATE TRIGGER sundays BEFORE UPDATE ON parcels FOR EACH ROW EXECUTE FUNCTION refuse()""",
    "an error of their own": """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN RAISE 'an error of their own' USING ERRCODE = 'U0001'; END$$;
        CREATE TRIGGER refused BEFORE UPDATE ON parcels FOR EACH ROW WHEN (NEW.status = 'Selected')
        EXECUTE FUNCTION refuse()""",
    "too long": """UPDATE parcels SET status = 'Scan' WHERE status = 'Selected';
        ALTER TABLE parcels ALTER status TYPE varchar(7)""",
    "left out": """CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
        CREATE TRIGGER out BEFORE UPDATE ON parcels FOR EACH ROW WHEN (NEW.status = 'Selected')
        EXECUTE FUNCTION leave_out()""",
    "altered 1 of": """CREATE FUNCTION alter_it() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN NEW.status := OLD.status; RETURN NEW; END$$;
        CREATE TRIGGER altered BEFORE UPDATE ON parcels FOR EACH ROW
        WHEN (NEW.status = 'Selected' AND NEW.name = 'parcel 2') EXECUTE FUNCTION alter_it()""",
}


@pytest.mark.parametrize("rule", RULES)
async def test_what_a_rule_of_the_table_itself_forbids_is_refused_and_others_go_on(
    service: RunningService, rule: str
) -> None:
    await add_parcels(service.database, {"status": "Selected", "size": 1}, {}, {})
    async with service.database.transaction() as connection:
        await connection.execute(RULES[rule].encode())
    before = await everything(service.database)
    for numbers, request_id in product([(2,), (2, 3)], ["", REQUEST_ID]):
        request = update("Selected", *numbers, request_id=request_id, allow_partial=True)
        refusal = await refused(service.stub.BatchUpdateStatus(request))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TABLE_REFUSED")
        assert rule in refusal.message
    assert await everything(service.database) == before
    assert (await service.stub.BatchUpdateStatus(update("Scan", 2, request_id=REQUEST_ID))).batch.changed_count == 1


async def test_a_filter_may_match_just_as_many_items_as_are_allowed(database_url: str) -> None:
    async with running_service(database_url, items_max=3) as service:
        await add_parcels(service.database, {"size": 1}, {"size": 1}, {"size": 1}, {})
        assert (await service.stub.BatchUpdateStatus(update("Scan", filter="size = 1"))).batch.changed_count == 3
        refusal = await refused(service.stub.BatchUpdateStatus(update("Archived", filter="id:*")))
        assert refusal.fields == (("filter", "matches more than 3 items; narrow it down"),)


async def test_a_batch_is_found_with_its_progress(service: RunningService) -> None:
    await add_parcels(service.database, {}, {}, {})
    made = await service.stub.BatchUpdateStatus(update("Scan", 1, 2, 3))
    await service.stub.BatchUpdateStatus(update("Archived", 3))
    found = await service.stub.GetBatch(pb.GetBatchRequest(batch_id=made.batch.batch_id))
    assert found.batch == made.batch
    progress = found.progress
    assert (progress.total, progress.queued, progress.dequeued, progress.done) == (3, 2, 1, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda stub: stub.GetBatch(pb.GetBatchRequest(batch_id="99")),
        lambda stub: stub.GetBatch(pb.GetBatchRequest(batch_id="no number")),
        lambda stub: stub.ListBatchOutcomes(pb.ListBatchOutcomesRequest(batch_id="99")),
    ],
)
async def test_an_unknown_batch_is_not_found(service: RunningService, call: Callable[[Any], Any]) -> None:
    refusal = await refused(call(service.stub))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_BATCH")


async def test_batches_are_listed_newest_first_in_pages(service: RunningService) -> None:
    await add_parcels(service.database, {})
    made = [
        (await service.stub.BatchUpdateStatus(update(status, 1))).batch.batch_id
        for status in ("Selected", "Scan", "Archived", "New", "Selected")
    ]
    seen: list[str] = []
    token = ""
    while token or not seen:
        request = pb.ListBatchesRequest(resource="parcels", page_size=2, page_token=token)
        page = await service.stub.ListBatches(request)
        seen += [batch.batch_id for batch in page.batches]
        token = page.next_page_token
    assert seen == made[::-1]
    assert len((await service.stub.ListBatches(pb.ListBatchesRequest())).batches) == 5
    assert (await refused(service.stub.ListBatches(pb.ListBatchesRequest(resource="x")))).reason == "UNKNOWN_RESOURCE"
    assert (await refused(service.stub.ListBatches(pb.ListBatchesRequest(page_token="x")))).reason == "INVALID_REQUEST"


async def test_an_item_comes_with_its_history_newest_first(service: RunningService) -> None:
    await add_parcels(service.database, {"size": 5}, {})
    first = await service.stub.BatchUpdateStatus(update("Selected", 1, 2, reason="looks good"))
    second = await service.stub.BatchUpdateStatus(update("Scan", 1, reason="be sure"))
    found = await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1)))
    assert (found.item.status, found.item.queue_status, found.item.version) == ("Scan", pb.QUEUE_STATUS_QUEUED, 3)
    assert (found.item.batch_id, found.item.data["size"]) == (second.batch.batch_id, 5)
    seen = [(e.kind, e.previous_status, e.status, e.version, e.cause_batch_id, e.reason) for e in found.history]
    assert seen == [
        ("curate", "Selected", "Scan", 3, second.batch.batch_id, "be sure"),
        ("curate", "New", "Selected", 2, first.batch.batch_id, "looks good"),
    ]
    assert found.history[0].batch_id == second.batch.batch_id
    assert found.history[1].batch_id == ""
    short = await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1), history_size=1))
    assert [event.version for event in short.history] == [3]
    async with service.database.transaction() as connection:
        await connection.execute("DELETE FROM status_event WHERE kind = 'curate' AND to_status = 'Selected'")
    kept = await service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1)))
    assert [event.version for event in kept.history] == [3], "as far back as the log is kept"


async def test_an_unknown_item_is_not_found(service: RunningService) -> None:
    refusal = await refused(service.stub.GetItem(pb.GetItemRequest(resource="parcels", id=parcel_id(1))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_ITEM")


async def test_a_list_brings_counts_of_all_that_match(service: RunningService) -> None:
    await add_parcels(service.database, {"size": 1}, {"size": 1}, {"size": 1}, {})
    await service.stub.BatchUpdateStatus(update("Scan", 1))
    request = pb.ListItemsRequest(resource="parcels", filter="size = 1", page_size=1, with_counts=True)
    response = await service.stub.ListItems(request)
    assert [item.id for item in response.items] == [parcel_id(1)]
    wanted = [("New", pb.QUEUE_STATUS_NONE, 2), ("Scan", pb.QUEUE_STATUS_QUEUED, 1)]
    assert [(c.status, c.queue_status, c.count) for c in response.counts] == wanted
    counted = await service.stub.CountItems(pb.CountItemsRequest(resource="parcels", filter="size = 1"))
    assert list(counted.counts) == list(response.counts)


async def test_a_call_that_is_cancelled_while_it_waits_changes_nothing(service: RunningService) -> None:
    await add_parcels(service.database, {})
    before = await everything(service.database)
    async with service.database.core() as connection:
        await connection.execute(text("SELECT FROM parcels FOR UPDATE"))
        call = service.stub.BatchUpdateStatus(update("Scan", 1))
        await somebody_waits_for_a_lock(service.database)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await somebody_waits_for_a_lock(service.database, waiting=False)
    assert await everything(service.database) == before


async def test_connections_that_were_cut_while_nobody_used_them_cost_no_call(service: RunningService) -> None:
    await add_parcels(service.database, {})
    for status in ("Selected", "New"):
        assert (await service.stub.BatchUpdateStatus(update(status, 1))).batch.changed_count == 1
        assert len((await service.stub.ListItems(pb.ListItemsRequest(resource="parcels"))).items) == 1
        async with Database(service.database.url, name="a test") as own:
            await cut(own, "curation service")


async def test_items_that_more_batches_queued_than_a_smallint_counts_change_together(service: RunningService) -> None:
    count = 33_000
    async with service.database.core() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO parcels (name, status, scan_batch)"
            f" SELECT 'p', 'Selected', n FROM generate_series(1, {count}) n"
        )
    request = pb.BatchUpdateStatusRequest(resource="parcels", filter='status = "Selected"', status="Archived")
    assert (await service.stub.BatchUpdateStatus(request)).batch.changed_count == count
