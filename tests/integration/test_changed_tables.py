"""Tables that somebody changes while service and worker run: these wait for them to be as they were, and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from curation.v1 import curation_pb2 as pb
from enrichment_worker.claimer import Claimer
from shared.db.errors import changed_table
from shared.waits import backoff
from tests.support.batches import everything, update
from tests.support.service import RunningService, add_parcels, refused
from tests.support.shops import execute
from tests.support.worker import WIDGETS, Gate, World

PARTITION = "to_char(clock_timestamp() AT TIME ZONE 'UTC', '\"status_event_\"YYYYMMDD')"
DETACH = f"""DO $$ BEGIN
    EXECUTE format('ALTER TABLE status_event DETACH PARTITION %I', {PARTITION});
    EXECUTE format('ALTER TABLE %I RENAME TO detached', {PARTITION});
END $$"""
ATTACH = """DO $$ DECLARE day bigint := (SELECT min(position) >> 40 FROM detached); BEGIN
    EXECUTE format('ALTER TABLE status_event ATTACH PARTITION detached FOR VALUES FROM (%s) TO (%s)',
                   day << 40, (day + 1) << 40);
END $$"""


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER TABLE gadget_details RENAME TO other", "ALTER TABLE other RENAME TO gadget_details"),
        ("ALTER TABLE gadget_details DROP label", "ALTER TABLE gadget_details ADD label text"),
        (
            "ALTER TABLE gadget_details DROP CONSTRAINT gadget_details_pkey",
            "ALTER TABLE gadget_details ADD PRIMARY KEY (code)",
        ),
        ("ALTER TABLE gadgets RENAME TO other", "ALTER TABLE other RENAME TO gadgets"),
        ("ALTER TABLE status_event RENAME TO other", "ALTER TABLE other RENAME TO status_event"),
        (DETACH, ATTACH),
    ],
)
async def test_a_worker_keeps_its_results_while_a_table_is_not_as_it_was(world: World, change: str, back: str) -> None:
    gate = Gate(world)
    await world.queue("one")
    async with world.worker() as worker:
        await worker.see(gate.asked.wait())
        execute(world.url, change)
        waiting = worker.probe.expect("waiting for the database", times=2)
        gate.open.set()
        await worker.see(waiting)
        execute(world.url, back)
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 1)
    assert world.api.requests == ["one"], "nothing was asked for twice"


async def test_what_a_workflow_lacks_is_looked_for_less_and_less_often_while_others_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.others = [WIDGETS]
    pause, waits_s, looked = Claimer.pause, [], asyncio.Event()

    async def pause_while_others_go_on(claimer: Claimer, seconds: float) -> None:
        if claimer.name != "Claimer of gadgets":
            await pause(claimer, seconds)
            return
        waits_s.append(seconds)
        if len(waits_s) > 3:
            looked.set()
            await claimer.stopping.wait()
            return
        flushed = worker.probe.expect("flushed")
        await world.queue("other", resource="widgets")
        await flushed  # so the connection has been of use since

    monkeypatch.setattr("enrichment_worker.app.random", lambda: 1.0)
    monkeypatch.setattr(Claimer, "pause", pause_while_others_go_on)
    async with world.worker() as worker:
        execute(world.url, "ALTER TABLE gadgets RENAME TO other")
        await worker.see(looked.wait())
    assert waits_s == [backoff(failures, lambda: 1.0) for failures in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("statement", "lacking"),
    [
        ("SELECT NULL::nowhere.kind", 'schema "nowhere" does not exist'),
        ("SET ROLE pg_monitor; SELECT FROM status_event", "permission denied for table status_event"),
        ("SELECT NULL::kind", None),
        ("SELECT 1 / 0", None),
    ],
)
def test_a_schema_or_a_right_that_is_lacking_is_such_a_change_too(
    statement: str, lacking: str | None, database_url: str
) -> None:
    with pytest.raises(DBAPIError) as raised:
        execute(database_url, statement)
    assert changed_table(raised.value) == lacking


async def test_a_call_that_needs_a_table_that_is_not_as_it_was_is_told_so_and_may_be_tried_again(
    service: RunningService, database_url: str
) -> None:
    await add_parcels(service.database, {}, {})
    execute(database_url, "ALTER TABLE parcels RENAME TO other")
    calls: list[Awaitable[object]] = [
        service.stub.BatchUpdateStatus(update("Scan", 1)),
        service.stub.BatchUpdateStatus(update("Scan", 1, 2)),
        service.stub.ListItems(pb.ListItemsRequest(resource="parcels")),
        service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels")).read(),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        assert 'relation "parcels" does not exist' in refusal.message
    execute(database_url, "ALTER TABLE other RENAME TO parcels")
    assert (await service.stub.BatchUpdateStatus(update("Scan", 1, 2))).batch.queued_count == 2


async def test_a_call_that_finds_no_partition_of_the_log_changes_nothing_and_is_told_so(
    service: RunningService, database_url: str
) -> None:
    await add_parcels(service.database, {}, {})
    await service.stub.BatchUpdateStatus(update("Scan", 1))
    execute(database_url, DETACH)
    before = await everything(service.database)
    for keys in ((2,), (1, 2)):
        refusal = await refused(service.stub.BatchUpdateStatus(update("Scan", *keys)))
        assert refusal.code.name == "UNAVAILABLE"
        assert 'no partition of relation "status_event"' in refusal.message
    assert await everything(service.database) == before
    execute(database_url, ATTACH)
    assert (await service.stub.BatchUpdateStatus(update("Scan", 2))).batch.queued_count == 1


async def test_a_database_that_is_only_read_for_a_while_is_written_again_without_a_restart(
    service: RunningService, database_url: str
) -> None:
    await add_parcels(service.database, {}, {})
    with psycopg.connect(database_url, autocommit=True) as operator:
        name = sql.Identifier(operator.info.dbname)
        operator.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for keys in ((1,), (1, 2)):
            refusal = await refused(service.stub.BatchUpdateStatus(update("Scan", *keys)))
            assert (refusal.code.name, refusal.message) == ("UNAVAILABLE", "the database lets nobody write now")
        operator.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
    assert (await service.stub.BatchUpdateStatus(update("Scan", 1))).batch.queued_count == 1
    assert (await service.stub.BatchUpdateStatus(update("Scan", 1, 2))).batch.queued_count == 1


async def test_connections_that_are_ended_as_fast_as_they_are_made_are_a_database_that_is_away(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.engine._has_something_to_read", lambda _: True)
    refusal = await refused(service.stub.ListItems(pb.ListItemsRequest(resource="parcels")))
    assert (refusal.code.name, refusal.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
