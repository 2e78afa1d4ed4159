"""What anybody was told of survives a crash of PostgreSQL: claims too, which do not wait for the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.snapshot import Snapshots
from curation_service.watch_request import read_watch
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.database_tail import DatabaseTail
from shared.db.durability import UNAWAITED
from shared.db.embedded import EmbeddedPostgres
from shared.db.embedded_site import find_site
from shared.db.engine import Database, connect
from shared.db.migrate import migrate
from shared.db.sessions import open_session
from shared.errands import Errands
from shared.machine import PROCESSING, QUEUED, curate_trigger
from shared.registry import Registry
from shared.table import transition_table
from tests.support.log import arrive
from tests.support.parcels import PARCELS
from tests.support.service import add_parcels, all_parcels, parcel_database
from tests.support.worker import World

TABLE = transition_table(PARCELS)
SETTINGS = {"fsync": "off", "full_page_writes": "off", "wal_writer_delay": "10s"}
"""What a commit waits for is written, and outlives the server though not the machine; what none waits for stays in the
server's memory for a while."""


@asynccontextmanager
async def crashing(folder: Path) -> AsyncIterator[Database]:
    """A queued parcel in a PostgreSQL of its own, which is killed at the end."""
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server:
        migrate(server.url, Registry(PARCELS))
        async with parcel_database(server.url) as database:
            await add_parcels(database, {})
            async with database.transaction() as connection:
                call = CurateCall(trigger=curate_trigger("Scan"), keys=[UUID(int=1)], batch=NewBatch(status="Scan"))
                await curate(connection, PARCELS, TABLE, call)
            yield database
            os.kill(int((find_site(folder, None).data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


Claim = Callable[[], Awaitable[int]]
"""Claims it as a worker does; gives the position."""


async def nobody_is_told(_: Database, claim_it: Claim) -> None:
    """Only the worker knows."""
    await claim_it()


async def a_tail_passes_it_on(database: Database, claim_it: Claim) -> None:
    """To the watchers of a service."""
    async with tail_of(database) as tail:
        await arrive(tail, await claim_it())


async def a_tail_starts_behind_it(database: Database, claim_it: Claim) -> None:
    """Tokens of its service skip it."""
    position = await claim_it()
    async with tail_of(database) as tail:
        assert tail.position == position


async def a_snapshot_shows_it(database: Database, claim_it: Claim) -> None:
    """To a new watcher."""
    await claim_it()
    registry, request = Registry(PARCELS), pb.WatchStatusRequest(resource="parcels")
    watch = read_watch(request, registry, log=UUID(int=0), items_max=10)
    async with Snapshots(database=database, errands=Errands(at_once=1)).taken(watch) as snapshot:
        (message,) = snapshot.messages()
    (item,) = pb.WatchStatusResponse.FromString(message).snapshot.items
    assert item.queue_status == pb.QUEUE_STATUS_PROCESSING


async def test_a_worker_does_not_wait_with_what_it_claims_but_with_what_it_has_done(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute(f"ALTER DATABASE {connection.info.dbname} SET synchronous_commit = local".encode())
        await connection.execute("CREATE TABLE seen AS SELECT ''::text AS status, ''::text AS setting LIMIT 0")
        await connection.execute(
            """CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                   INSERT INTO seen VALUES (new.lookup_status, current_setting('synchronous_commit'));
                   RETURN new;
               END $$"""
        )
        await connection.execute("CREATE TRIGGER see AFTER UPDATE ON gadgets FOR EACH ROW EXECUTE FUNCTION see()")
    await world.queue("one")
    async with world.worker() as worker:
        await world.ended(worker)
    seen = [(row["status"], row["setting"]) for row in await world.rows("seen", "status")]
    assert seen == [("completed", "local"), ("processing", "off")]


def tail_of(database: Database) -> DatabaseTail:
    return DatabaseTail(url=database.url, direct_url=database.url, poll_s=0.02)


@pytest.mark.parametrize(
    ("told", "then"),
    [
        (nobody_is_told, QUEUED),
        (a_tail_passes_it_on, PROCESSING),
        (a_tail_starts_behind_it, PROCESSING),
        (a_snapshot_shows_it, PROCESSING),
    ],
)
async def test_a_claim_is_on_disk_once_somebody_is_told_and_otherwise_it_was_never_made(
    postgres_folder: Path, told: Callable[[Database, Claim], Awaitable[None]], then: str
) -> None:
    folder = postgres_folder / f"crash-{told.__name__}"
    async with crashing(folder) as database:
        async with database.transaction() as connection:
            session = await open_session(connection, host="h", version="1", resources=["parcels"])

        async def claim_it() -> int:
            async with await connect(database.url, name="claiming few", options=UNAWAITED) as connection:
                return (await claim(connection, PARCELS, TABLE, session=session, limit=1)).position

        await told(database, claim_it)
    async with EmbeddedPostgres(folder, settings=SETTINGS) as server, parcel_database(server.url) as database:
        (row,) = await all_parcels(database)
        assert row["scan_status"] == then
