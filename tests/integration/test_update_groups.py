"""Calls for one item each that come together: one commit for all, and each is answered as if it had come alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import grpc
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation_service.batch_request import read_batch_update
from curation_service.batch_update import BatchAnswer, BatchUpdates
from curation_service.failures import read_retry_failed
from curation_service.update_groups import SIZE_MAX, UpdateGroups
from shared.db.batches import list_batches, read_progress
from shared.db.curate import CurateCall, Curated, NewBatch, curate
from shared.db.engine import Database
from shared.db.log import Entry, log_identity, read_history, read_log
from shared.db.models import status_batch
from shared.db.token import decode_token
from shared.errands import Errands
from shared.errors import DatabaseUnavailable, ItemsRefused, RequestIdReused, StatementCanceled, TableRefused
from shared.registry import Registry
from shared.table import transition_table
from tests.support.batches import everything, parcel_id, update, with_version
from tests.support.log import cut
from tests.support.parcels import PARCELS
from tests.support.service import (
    RunningService,
    add_many,
    add_parcels,
    all_parcels,
    parcel_database,
    running_service,
    somebody_waits_for_a_lock,
)

REGISTRY, TABLE = Registry(PARCELS), transition_table(PARCELS)
Request: TypeAlias = pb.BatchUpdateStatusRequest | pb.RetryFailedRequest
pytestmark = pytest.mark.postgres_versions


class Alone(UpdateGroups):
    """Has every call carried out by itself."""

    async def carry_out(self, call: CurateCall) -> Curated | None:
        return None


class Desk:
    """Where calls of a test come in."""

    def __init__(self, database: Database, groups_of: type[UpdateGroups] = UpdateGroups) -> None:
        self.database, self.errands = database, Errands(at_once=1)
        self.groups = groups_of(database=database, workflow=PARCELS, table=TABLE, errands=self.errands)
        self.updates = BatchUpdates(
            database=database,
            tables={"parcels": TABLE},
            groups={"parcels": self.groups},
            items_max=1_000,
            outcomes_max=10,
        )

    async def call(self, request: Request) -> BatchAnswer:
        """One call, as the servicer passes it on."""
        read: Any = read_batch_update if isinstance(request, pb.BatchUpdateStatusRequest) else read_retry_failed
        return await self.updates.carry_out(read(request, REGISTRY, items_max=1_000))

    async def together(self, *requests: Request) -> list[Any]:
        """Calls of which the first is yet to begin when the last comes. Answers and errors, in order."""
        return await asyncio.gather(*map(self.call, requests), return_exceptions=True)

    async def log(self) -> list[Entry]:
        """All of it."""
        async with self.database.transaction() as connection:
            return await read_log(connection, after=0, through=2**62, limit=10_000)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """No batch can be made meanwhile."""
        async with self.database.core() as connection:
            await connection.execute(text("LOCK TABLE status_batch IN SHARE MODE"))
            yield


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    """On the tables of `parcels`."""
    async with parcel_database(database_url) as database:
        desk = Desk(database)
        async with desk.errands:
            yield desk


async def test_calls_that_come_together_are_one_commit_and_have_a_batch_each(desk: Desk) -> None:
    await add_many(desk.database, 5)
    requests = [update("Scan", n, actor=f"user {n}", reason=f"for {n}", request_id=str(uuid4())) for n in range(1, 5)]
    answers = await desk.together(*requests, update("Selected", 5, priority=pb.BATCH_PRIORITY_HIGH))
    log = await desk.log()
    assert {entry.position for entry in log} == {answers[0].batch.position}
    assert sorted((entry.cause, *entry.items, entry.reason) for entry in log) == [
        (answer.batch.id, parcel_id(n), answer.batch.reason) for n, answer in enumerate(answers, 1)
    ]
    async with desk.database.transaction() as connection:
        assert await list_batches(connection, resource=None, before=None, limit=10) == [a.batch for a in answers[::-1]]
        identity = await log_identity(connection)
        for n, answer in enumerate(answers, 1):
            batch = answer.batch
            assert (answer.requested, answer.changed, answer.queued, answer.replayed) == (1, 1, n < 5, False)
            assert decode_token(answer.resume_token, identity.id) == batch.position
            progress = await read_progress(connection, batch.id)
            assert (progress.total, progress.queued) == (answer.queued, answer.queued)
            history = await read_history(connection, parcel_id(n), last=batch.position, limit=10)
            assert [(entry.cause, entry.items[place]) for entry, place in history] == [(batch.id, parcel_id(n))]


async def test_a_group_leaves_what_the_same_calls_leave_one_by_one(desk: Desk) -> None:
    ids = [str(UUID(int=n)) for n in range(1, 4)]
    requests: list[Request] = [
        update("Scan", 1, actor="ann", reason="for the fair", request_id=ids[0], priority=pb.BATCH_PRIORITY_LOW),
        update("Archived", 2, allow_partial=True),
        update("Scan", 3, request_id=ids[1]),
        update("Selected", 4),
        update("Scan", **with_version(5, 1)),
        pb.RetryFailedRequest(resource="parcels", ids=pb.ItemIds(ids=[parcel_id(6)]), request_id=ids[2]),
    ]
    waiting = {"status": "Scan", "scan_status": "queued", "scan_turn": 7.5, "scan_batch": 0, "version": 2}
    failed = {"status": "Scan", "scan_status": "failed", "scan_error": "away", "scan_attempts": 3, "version": 4}
    items: list[dict[str, Any]] = [{}, {}, {"status": "Selected"}, waiting, {}, failed, {**waiting, "scan_turn": 3.5}]

    async def state() -> tuple[object, ...]:
        """All that they leave, but for times and positions; and nothing of it stays."""
        rows = [{**row, "scan_event": None} for row in await all_parcels(desk.database)]
        same = set(Entry.__slots__) - {"position", "part", "xid", "at"}
        entries = [{name: getattr(entry, name) for name in same} for entry in await desk.log()]
        async with desk.database.core() as connection:
            found = await connection.execute(text("SELECT * FROM status_batch ORDER BY id"))
            batches = [{**row._asdict(), "created_at": None, "position": None} for row in found]
            await connection.execute(text("TRUNCATE parcels, status_batch, status_event RESTART IDENTITY"))
        return rows, sorted(entries, key=lambda entry: entry["cause"]), batches

    await add_parcels(desk.database, *items)
    answers = await desk.together(*requests)
    assert len({answer.batch.position for answer in answers}) == 1
    together = await state()
    await add_parcels(desk.database, *items)
    for request, answer in zip(requests, answers, strict=True):
        lone = await Desk(desk.database, Alone).call(request)
        assert lone.batch is not None
        batch = replace(lone.batch, created_at=answer.batch.created_at, position=answer.batch.position)
        assert replace(lone, batch=batch, resume_token=answer.resume_token) == answer
    assert await state() == together


async def test_watches_tell_the_batches_of_a_group_apart_and_begin_behind_all_of_it(service: RunningService) -> None:
    await add_many(service.database, 4)
    desk = Desk(service.database)
    everybody = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", skip_snapshot=True))
    await everybody.read()
    first, second, _ = await desk.together(*(update("Scan", n) for n in (1, 2, 3)))
    assert sorted(await told(everybody, 3)) == [(parcel_id(n), 2) for n in (1, 2, 3)]
    behind = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", resume_token=first.resume_token))
    own = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", batch_id=str(second.batch.id)))
    snapshot: Any = await own.read()
    assert [item.id for item in snapshot.snapshot.items] == [parcel_id(2)]
    await desk.together(*(update("Selected", n) for n in (1, 2, 4)))
    assert await told(own, 1) == [(parcel_id(2), 3)]
    assert sorted(await told(behind, 3)) == [(parcel_id(1), 3), (parcel_id(2), 3), (parcel_id(4), 2)]
    for stream in (everybody, behind, own):
        stream.cancel()


async def test_what_cannot_be_done_is_the_matter_of_its_own_call(desk: Desk) -> None:
    await add_parcels(desk.database, {}, {"status": "Archived"}, {"status": "Selected"}, {}, {}, {})
    missing, illegal, unchanged, stale, *good = await desk.together(
        update("Selected", 99),
        update("Scan", 2),
        update("Selected", 3),
        update("Selected", **with_version(4, 7)),
        update("Selected", 5),
        update("Scan", 6),
    )
    assert [dict(error.counts) for error in (missing, illegal, stale)] == [
        {"not_found": 1},
        {"illegal_transition": 1},
        {"stale_version": 1},
    ]
    assert all(isinstance(error, ItemsRefused) for error in (missing, illegal, stale))
    assert (unchanged.changed, dict(unchanged.counts)) == (0, {"unchanged": 1})
    assert [answer.changed for answer in good] == [1, 1]
    assert len({entry.position for entry in await desk.log()}) == 1
    assert [row["version"] for row in await all_parcels(desk.database)] == [1, 1, 1, 1, 2, 2]
    async with desk.database.transaction() as connection:
        batches = await list_batches(connection, resource=None, before=None, limit=10)
    assert {batch.id for batch in batches} == {answer.batch.id for answer in (unchanged, *good)}


async def curse(database: Database, body: str) -> None:
    """Has an update of the parcel that is called so do something first."""
    async with database.core() as connection:
        await connection.exec_driver_sql(
            f"CREATE FUNCTION curse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; RETURN NEW; END$$"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER curse BEFORE UPDATE ON parcels FOR EACH ROW WHEN (OLD.name = 'cursed')"
            " EXECUTE FUNCTION curse()"
        )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("RAISE raise_exception", TableRefused),
        ("RETURN NULL", TableRefused),
        ("RAISE deadlock_detected", DatabaseUnavailable),
        ("RAISE query_canceled", StatementCanceled),
    ],
)
async def test_an_error_that_one_call_causes_is_its_own(desk: Desk, body: str, told: type[Exception]) -> None:
    await add_parcels(desk.database, {}, {"name": "cursed"}, {})
    await curse(desk.database, body)
    first, cursed, last = await desk.together(*(update("Selected", n) for n in (1, 2, 3)))
    assert isinstance(cursed, told)
    assert (first.changed, last.changed) == (1, 1)
    assert [row["version"] for row in await all_parcels(desk.database)] == [2, 1, 2]


async def test_of_calls_for_the_same_item_each_sees_what_the_one_before_has_done(desk: Desk) -> None:
    await add_parcels(desk.database, {}, {})
    answers = await desk.together(
        update("Selected", 1), update("Scan", 1), update("Archived", 2), update("Archived", 1), update("Scan", 1)
    )
    assert [getattr(answer, "changed", 0) for answer in answers] == [1, 1, 1, 1, 0]
    assert dict(answers[-1].counts) == {"illegal_transition": 1}
    assert [answer.batch.position - answers[0].batch.position for answer in answers[:-1]] == [0, 1, 0, 2]


async def test_a_request_id_acts_once_within_a_group_and_across(desk: Desk) -> None:
    await add_many(desk.database, 3)
    same, other = (update("Scan", n, request_id=str(UUID(int=7))) for n in (1, 2))
    first, again, reused, beside = await desk.together(same, same, other, update("Scan", 3))
    assert (first.replayed, again.replayed, beside.replayed) == (False, True, False)
    assert again.batch == first.batch
    assert isinstance(reused, RequestIdReused)
    later, reused, beside = await desk.together(same, other, update("Selected", 3))
    assert later.batch == first.batch
    assert later.replayed
    assert isinstance(reused, RequestIdReused)
    assert beside.changed == 1
    assert [row["version"] for row in await all_parcels(desk.database)] == [2, 1, 3]


async def test_a_request_id_that_is_used_meanwhile_acts_once(desk: Desk) -> None:
    await add_many(desk.database, 3)
    same, other = (update("Scan", n, request_id=str(UUID(int=7))) for n in (1, 2))
    command = read_batch_update(same, REGISTRY, items_max=1)
    batch = NewBatch(status="Scan", request_id=command.request_id, digest=command.digest)
    async with desk.database.transaction() as connection:
        # Another replica's, which nobody can see yet.
        call = CurateCall(trigger=command.trigger, keys=[UUID(int=1)], batch=batch)
        first = await curate(connection, PARCELS, TABLE, call)
        calls = asyncio.create_task(desk.together(other, update("Scan", 3), same))
        await somebody_waits_for_a_lock(desk.database)
    reused, beside, again = await calls
    assert isinstance(reused, RequestIdReused)
    assert beside.changed == 1
    assert (again.batch.id, again.replayed) == (first.batch, True)
    assert [row["version"] for row in await all_parcels(desk.database)] == [2, 1, 2]


async def test_two_groups_with_the_same_request_ids_do_not_wait_for_each_other(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, 4)
    one, two = str(UUID(int=1)), str(UUID(int=2))
    here = update("Scan", 1, request_id=one), update("Scan", 2, request_id=two)
    there = update("Scan", 3, request_id=two), update("Scan", 4, request_id=one)
    async with Database(database_url) as another:
        async with desk.database.core() as connection:
            # Both come to this one, and have nothing that the other needs while they wait for it.
            made = status_batch.insert().values(
                resource="", status="", request_id=one, requested=0, changed=0, queued=0
            )
            await connection.execute(made)
            calls = [asyncio.create_task(desk.together(*here)), asyncio.create_task(Desk(another).together(*there))]
            await somebody_waits_for_a_lock(desk.database, count=2)
            await connection.rollback()
        answers = [answer for group in await asyncio.gather(*calls) for answer in group]
    assert sorted(type(answer).__name__ for answer in answers) == ["BatchAnswer"] * 2 + ["RequestIdReused"] * 2
    assert sum(row["version"] - 1 for row in await all_parcels(desk.database)) == 2


async def test_an_item_that_somebody_holds_keeps_nobody_else_waiting(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, 3)
    async with Database(database_url, lock_s=0) as patient, desk.database.core() as connection:
        clerk = Desk(patient)
        await connection.execute(text("SELECT FROM parcels WHERE name = 'parcel 2' FOR UPDATE"))
        waits = asyncio.create_task(clerk.call(update("Scan", 2)))
        answers = await clerk.together(update("Scan", 1), update("Scan", 3))
        await somebody_waits_for_a_lock(desk.database)
        assert (await clerk.call(update("Selected", 1))).changed == 1
        await connection.rollback()
        assert [answer.changed for answer in (*answers, await waits)] == [1, 1, 1]


async def test_items_that_somebody_holds_leave_a_connection_to_the_others(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, 4)
    async with Database(database_url, pool_size=2) as small, desk.database.core() as connection:
        await connection.execute(text("SELECT FROM parcels WHERE name IN ('parcel 1', 'parcel 2') FOR UPDATE"))
        clerk = Desk(small)
        waits = asyncio.create_task(clerk.together(update("Scan", 1), update("Scan", 2)))
        await somebody_waits_for_a_lock(desk.database)
        assert (await clerk.call(update("Scan", 3))).changed == 1
        await connection.rollback()
        assert [answer.changed for answer in await waits] == [1, 1]


async def test_who_waits_in_a_trigger_keeps_nobody_else_waiting(desk: Desk, database_url: str) -> None:
    await add_parcels(desk.database, {}, {"name": "cursed"}, {})
    await curse(desk.database, "PERFORM pg_advisory_xact_lock(7)")
    async with Database(database_url, lock_s=0.05) as hasty, desk.database.core() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        clerk = Desk(hasty)
        first, waits, last = (asyncio.create_task(clerk.call(update("Scan", n))) for n in (1, 2, 3))
        assert [(await first).changed, (await last).changed] == [1, 1]
        await somebody_waits_for_a_lock(desk.database)
        await connection.rollback()
        assert (await waits).changed == 1


async def test_where_no_connection_is_free_all_who_wait_are_told_at_once(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, SIZE_MAX + 1)
    async with Database(database_url, pool_size=1, pool_timeout_s=0.2) as small:
        async with small.autocommit_of_many():
            clerk = Desk(small)
            calls = [asyncio.create_task(clerk.call(update("Scan", n))) for n in range(1, SIZE_MAX + 2)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {DatabaseUnavailable}


async def test_who_was_told_so_is_not_carried_out_once_a_connection_is_free(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, 2)
    async with Database(database_url, pool_size=1, pool_timeout_s=0.2) as small:
        clerk = Desk(small)
        async with small.autocommit_of_many():
            answers = await clerk.together(update("Scan", 1), update("Selected", 1))  # one after the other
        assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 2
        assert (await clerk.call(update("Scan", 2))).changed == 1
    assert [row["version"] for row in await all_parcels(desk.database)] == [1, 2]


@pytest.mark.parametrize("is_first", [True, False])
async def test_groups_with_the_same_request_ids_in_opposite_orders_do_not_deadlock(desk: Desk, is_first: bool) -> None:
    await add_many(desk.database, 2)
    first, second = sorted(str(uuid4()) for _ in range(2))
    insert = "INSERT INTO status_batch (resource, status, request_id) VALUES ('parcels', 'Scan', :id)"
    async with desk.database.core() as connection:
        await connection.execute(text(insert), {"id": first})
        requests = [update("Scan", 1 + is_first, request_id=first), update("Scan", 2 - is_first, request_id=second)]
        calls = asyncio.create_task(desk.together(*requests[:: -1 if is_first else 1]))
        await somebody_waits_for_a_lock(desk.database)
        await connection.execute(text(insert), {"id": second})
        await connection.rollback()
    one, other = await calls
    assert one.batch.position == other.batch.position, "they went together"


async def test_more_calls_than_fit_into_one_statement_go_in_several(desk: Desk) -> None:
    await add_many(desk.database, SIZE_MAX + 1)
    answers = await desk.together(*(update("Scan", n) for n in range(1, SIZE_MAX + 2)))
    assert [answer.batch.position for answer in answers] == [
        *[answers[0].batch.position] * SIZE_MAX,
        answers[0].batch.position + 1,
    ]


async def test_who_goes_takes_nobody_along(desk: Desk, database_url: str) -> None:
    await add_many(desk.database, 5)
    async with Database(database_url, lock_s=0) as patient:
        clerk = Desk(patient)
        async with desk.held():
            calls = [asyncio.create_task(clerk.call(update("Scan", n))) for n in (1, 2)]
            await somebody_waits_for_a_lock(desk.database, relation="status_batch")
            later = [asyncio.create_task(clerk.call(update("Scan", n))) for n in (3, 4, 5)]
            await asyncio.wait(later, timeout=0)
            for gone in (calls[0], later[0]):
                gone.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gone
            assert clerk.groups.waiting_count == 2, "who has gone is kept while the others' statement is under way"
        assert [(await call).changed for call in (calls[1], *later[1:])] == [1, 1, 1]
    # What had begun goes on; what had not never does.
    assert [row["version"] for row in await all_parcels(desk.database)] == [2, 2, 1, 2, 2]


async def test_when_the_database_goes_away_each_is_told_and_who_waits_is_carried_out(desk: Desk) -> None:
    await add_many(desk.database, 2)
    before = await everything(desk.database)
    async with Database(desk.database.url, name="a test") as own, Desk(own).held():
        requests = update("Scan", 1), update("Scan", 2), update("Selected", 1)
        *calls, waits = [asyncio.create_task(desk.call(request)) for request in requests]
        await somebody_waits_for_a_lock(own, relation="status_batch")
        await cut(own, "curation")
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [DatabaseUnavailable] * 2
        assert await everything(desk.database) == before
    assert (await waits).changed == 1
    assert [answer.changed for answer in await desk.together(update("Scan", 1), update("Scan", 2))] == [1, 1]


async def test_calls_of_a_group_are_answered_while_the_service_stops(database_url: str) -> None:
    async with running_service(database_url, grace_s=25) as service:
        await add_many(service.database, 3)
        async with Desk(service.database).held():
            calls = [asyncio.ensure_future(service.stub.BatchUpdateStatus(update("Scan", n))) for n in (1, 2, 3)]
            await somebody_waits_for_a_lock(service.database, relation="status_batch")
            await service.stub.ListBatches(pb.ListBatchesRequest())  # came after all of them, on the same connection
            stopping = asyncio.create_task(service.server.stop())
            await service_refuses(service)
        answers = await asyncio.gather(*calls)
        await stopping
    assert [answer.batch.changed_count for answer in answers] == [1, 1, 1]


async def told(stream: Any, count: int) -> list[tuple[str, int]]:
    """Items and their versions, as events come: at least so many."""
    events: list[tuple[str, int]] = []
    while len(events) < count:
        events += [(event.item_id, event.version) for event in (await stream.read()).events.events]
    return events


async def service_refuses(service: RunningService) -> None:
    """Returns once it takes no new calls. One that comes in that very moment waits until the others have ended."""
    while True:
        try:
            await service.stub.ListWorkflows(pb.ListWorkflowsRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return
