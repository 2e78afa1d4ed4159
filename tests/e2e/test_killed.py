"""Processes killed without a warning, in the middle of things: nothing is lost, nothing is doubled, streams go on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from curation.v1 import curation_pb2 as pb
from curation_cli.data import import_places
from curation_cli.processes import Child
from curation_client.aio import CurationClient
from curation_client.watch import Update
from shared.db.migrate import migrate
from shared.registry import load_registry
from tests.support.ports import free_port

pytestmark = pytest.mark.untraced

ITEMS = 300
ENDED = ("completed", "failed")
TRIGGER = "SelectedForDeepScan"


@dataclass(slots=True)
class Site:
    """A database with places, a place API, and processes that a test starts and kills."""

    folder: Path
    stack: AsyncExitStack
    environment: dict[str, str]
    address: str
    dead: list[Child] = field(default_factory=list)

    async def start(self, module: str) -> Child:
        """A service or a worker that is ready."""
        log = self.folder / f"{module}-{uuid4().hex[:6]}.log"
        return await self.stack.enter_async_context(
            Child(module, environment=self.environment, log=log, ready="ready,")
        )

    async def kill(self, child: Child) -> None:
        """Ends a process as a machine that loses its power does."""
        os.kill(child.pid, signal.SIGKILL)
        await child.ended()

    def rows(self, statement: str) -> list[tuple[object, ...]]:
        """What the database says."""
        with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
            return connection.execute(statement.encode()).fetchall()

    async def ids(self, client: CurationClient) -> list[str]:
        """Places that can be scanned."""
        page = await client.list_items(pb.ListItemsRequest(resource="places", filter='status = "New"', page_size=ITEMS))
        return [item.id for item in page.items]


@pytest.fixture
async def site(empty_database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Places, their API, and nothing else running yet."""
    migrate(empty_database_url, load_registry())
    await asyncio.to_thread(import_places, empty_database_url, on_progress=lambda _: None)
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "DATABASE_URL": empty_database_url,
        "CURATION_LISTEN": address,
        "CURATION_RESOURCES": "places",
        "CURATION_BEAT_S": "0.5",
        "CURATION_EXPIRY_S": "2",
        "GOOGLE_PLACES_API_KEY": "test",
        # What our sessions say themselves.
        "PGCLIENTENCODING": "LATIN1",
        "PGDATESTYLE": "German",
        "PGTZ": "Asia/Kolkata",
    }
    async with AsyncExitStack() as stack:
        api = Child("curation_cli.place_api", environment=environment, log=tmp_path / "api.log", ready="http://")
        await stack.enter_async_context(api)
        environment["GOOGLE_PLACES_URL"] = api.ready_line
        yield Site(tmp_path, stack, environment, address)


def told(updates: Sequence[Update]) -> dict[str, list[int]]:
    """The versions that a watcher was told of, by item, progress left out."""
    versions: dict[str, list[int]] = {}
    for update in updates:
        if isinstance(update.part, pb.StatusEvents):
            for event in update.part.events:
                if event.kind != "progress":
                    versions.setdefault(event.item_id, []).append(event.version)
    return versions


async def test_items_of_a_killed_worker_are_enriched_by_another_and_the_stream_outlives_the_service(site: Site) -> None:
    service, worker = await site.start("curation_service"), await site.start("enrichment_worker")
    updates: list[Update] = []
    async with CurationClient(site.address) as client:
        ids = await site.ids(client)
        answer = await client.set_status("places", TRIGGER, ids=ids)
        batch = answer.batch.batch_id
        killed = False
        async for update in client.watch(
            "places", batch_id=batch, resume_token=answer.resume_token, end_when_done=True
        ):
            updates.append(update)
            if not killed and isinstance(update.part, pb.StatusEvents):
                # Items are with the worker now.
                await site.kill(worker)
                await site.kill(service)
                await site.start("curation_service")
                await site.start("enrichment_worker")
                killed = True
        progress = (await client.get_batch(batch)).progress
    assert killed
    assert progress.completed + progress.failed == progress.total == len(ids) == ITEMS
    rows = site.rows(
        f"SELECT id::text, deep_scan_status, version, deep_scan_attempts, deep_scan_error FROM places_staging"
        f" WHERE deep_scan_batch = {batch}"
    )
    assert {row[1] for row in rows} <= set(ENDED)
    assert all(row[4] for row in rows if row[1] == "failed"), "every failure says why"
    # Each version once, in order, none left out: what was queued is the version behind which the watch began.
    assert told(updates) == {str(row[0]): list(range(3, int(str(row[2])) + 1)) for row in rows}
    ended = Counter(row[0] for row in site.rows("SELECT kind FROM status_event WHERE kind = 'rescue'"))
    assert ended["rescue"] > 0
    found = site.rows(
        "SELECT count(*) FILTER (WHERE deep_scan_result = 'found'), (SELECT count(*) FROM local_businesses)"
        " FROM places_staging"
    )
    assert found[0][0] == found[0][1] != 0


async def test_a_call_whose_service_is_killed_is_repeated_under_its_request_id_and_done_once(site: Site) -> None:
    service = await site.start("curation_service")
    request_id = str(uuid4())
    async with CurationClient(site.address) as client:
        ids = await site.ids(client)
        with psycopg.connect(site.environment["DATABASE_URL"]) as holder:
            # The call waits for this row, so that it is under way when the service dies.
            holder.execute("SELECT FROM places_staging WHERE id::text = %s FOR UPDATE", (ids[-1],))
            call = asyncio.create_task(client.set_status("places", TRIGGER, ids=ids, request_id=request_id))
            while not site.rows("SELECT FROM pg_locks WHERE NOT granted"):
                assert not call.done()
                await asyncio.to_thread(site.rows, "SELECT pg_sleep(0.02)")
            await site.kill(service)
        await site.start("curation_service")
        first = await call
        second = await client.set_status("places", TRIGGER, ids=ids, request_id=request_id)
    assert first.batch.changed_count == len(ids)
    assert (second.replayed, second.batch.batch_id) == (True, first.batch.batch_id)
    assert site.rows("SELECT count(*), count(DISTINCT id) FROM status_batch") == [(1, 1)]
    assert site.rows("SELECT DISTINCT version FROM places_staging WHERE deep_scan_status = 'queued'") == [(2,)]
