"""What is done to the rows of a large table, for `benchmarks.growth`."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from uuid import UUID

import grpc.aio
import psycopg

from benchmarks.bed import RESOURCE, database, place_id, service, stub
from benchmarks.big import add_many_places
from curation.v1 import curation_pb2 as pb
from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.embedded import NO_SETTINGS
from shared.db.engine import Connection, connect
from shared.machine import curate_trigger
from shared.registry import load_registry
from shared.table import transition_table

FLOOR = "bare UPDATE"
SOME = 1_000
"""Items of a batch, and of a claim."""
PAGE = 100
QUEUED = 5_000
"""Of each table, so that only the table grows; fewer by what is on two of the pages."""
CLAIMS = 4
"""One after another, as in a drain."""
WORKFLOW = load_registry()[RESOURCE]
TABLE = transition_table(WORKFLOW)
BARE = "UPDATE places_staging SET status = 'Archived', version = version + 1 WHERE id = ANY(%b)"
"""The least that the batch update does to a row."""
BARE_CLAIM = """UPDATE places_staging SET deep_scan_status = 'processing', deep_scan_turn = NULL, version = version + 1
WHERE id = ANY(%b)"""
"""The least that a claim does to it."""
NEXT = "SELECT id FROM places_staging WHERE deep_scan_turn IS NOT NULL ORDER BY deep_scan_turn LIMIT %s"
SHOWN = "SELECT * FROM places_staging WHERE id >= %s AND deep_scan_status IS NULL ORDER BY id LIMIT %s"
THEIRS = "places_staging_external_id_key"
"""The index on the author's own column, which is in no order where the keys are in none."""
Work = Callable[[], Awaitable[float]]
"""Does it once, and says how many seconds it took."""
Change = Callable[[Connection, Sequence[UUID]], Awaitable[int]]
"""Changes rows, and says how many."""


@asynccontextmanager
async def of_rows(
    size: int, *, in_order: bool, only_ours: bool = False, settings: Mapping[str, str] = NO_SETTINGS
) -> AsyncIterator[Mapping[str, Work]]:
    """What is done to a table of so many rows; `only_ours` where it has no index but those that every source has."""
    async with database(more=settings) as url, service(url) as bed, bed.channel() as channel:
        if only_ours:
            await _run(url, f"ALTER TABLE places_staging DROP CONSTRAINT {THEIRS}")
        await add_many_places(url, size, in_order=in_order)
        async with (
            await connect(url, name="benchmark", autocommit=False) as connection,
            # Claims are prepared past the driver, which has the server forget all that is prepared when it rolls back
            # where it has prepared something itself.
            await connect(url, name="benchmark", autocommit=False) as claiming,
        ):
            rows = _Rows(url, size, in_order, connection, claiming, channel)
            await rows.queue()
            yield {
                f"batch update of {SOME:,}, pages that were shown": rows.changing(archive, rows.shown),
                f"{FLOOR} of {SOME:,}, pages that were shown": rows.changing(_update, rows.shown),
                f"batch update of {SOME:,}, anywhere": rows.changing(archive, rows.anywhere),
                f"{FLOOR} of {SOME:,}, anywhere": rows.changing(_update, rows.anywhere),
                f"claim of {SOME:,}": rows.claim,
                f"{FLOOR} of {SOME:,}, those that are next": rows.update_next,
                f"page of {PAGE}": rows.list_page,
            }


@dataclass(frozen=True, slots=True)
class _Rows:
    url: str
    size: int
    in_order: bool
    connection: Connection
    claiming: Connection
    channel: grpc.aio.Channel

    async def queue(self) -> None:
        for _ in range(0, QUEUED, SOME):
            assert await _curate(self.connection, "SelectedForDeepScan", await self.shown()) > 0
            await self.connection.commit()

    async def shown(self) -> list[UUID]:
        return await shown(self.connection, lambda: self._key(random.randint(1, self.size)))  # noqa: S311 - a sample

    async def anywhere(self) -> list[UUID]:
        return [self._key(number) for number in random.sample(range(1, self.size + 1), SOME)]

    def changing(self, change: Change, choose: Callable[[], Awaitable[list[UUID]]]) -> Work:
        async def work() -> float:
            return await timed(self.connection, change, await choose())

        return work

    async def claim(self) -> float:
        """It takes the same rows each time: what was rolled back of them is in nobody's way but here."""
        await _vacuum(self.url)
        turn = -inf
        began_s = time.perf_counter()
        for _ in range(CLAIMS):
            claimed = await claim(self.claiming, WORKFLOW, TABLE, session=1, limit=SOME, from_turn=turn)
            turn = claimed.turn
            assert len(claimed.items) == SOME
        taken_s = time.perf_counter() - began_s
        await self.claiming.rollback()
        return taken_s / CLAIMS

    async def update_next(self) -> float:
        """The same rows as claims take."""
        keys = [row[0] for row in await (await self.connection.execute(NEXT, [CLAIMS * SOME])).fetchall()]
        await self.connection.rollback()
        await _vacuum(self.url)
        began_s = time.perf_counter()
        for first in range(0, CLAIMS * SOME, SOME):
            await self.connection.execute(BARE_CLAIM, [keys[first : first + SOME]])
        taken_s = time.perf_counter() - began_s
        await self.connection.rollback()
        return taken_s / CLAIMS

    async def list_page(self) -> float:
        began_s = time.perf_counter()
        request = pb.ListItemsRequest(resource=RESOURCE, filter='status = "New"', page_size=PAGE)
        assert len((await stub(self.channel).ListItems(request)).items) == PAGE
        return time.perf_counter() - began_s

    def _key(self, number: int) -> UUID:
        return place_id(number, in_order=self.in_order)


async def shown(connection: Connection, some_key: Callable[[], UUID]) -> list[UUID]:
    """The keys of some pages of the list, which are in memory as they were shown."""
    keys: list[UUID] = []
    for _ in range(SOME // PAGE):
        found = await connection.execute(SHOWN, [some_key(), PAGE])
        keys += [row[0] for row in await found.fetchall()]
    await connection.rollback()
    return list(dict.fromkeys(keys))


async def archive(connection: Connection, keys: Sequence[UUID]) -> int:
    """Archives them by a batch update."""
    return await _curate(connection, "Archived", keys)


async def timed(connection: Connection, change: Change, keys: Sequence[UUID]) -> float:
    """Seconds for a thousand."""
    began_s = time.perf_counter()
    changed = await change(connection, keys)
    taken_s = time.perf_counter() - began_s
    await connection.rollback()
    return taken_s / changed * SOME


async def _curate(connection: Connection, status: str, keys: Sequence[UUID]) -> int:
    call = CurateCall(trigger=curate_trigger(status), keys=keys, batch=NewBatch(status=status), allow_partial=True)
    return (await curate(connection, WORKFLOW, TABLE, call)).changed


async def _update(connection: Connection, keys: Sequence[UUID]) -> int:
    return (await connection.execute(BARE, [keys])).rowcount


async def _vacuum(url: str) -> None:
    await _run(url, "VACUUM (INDEX_CLEANUP ON) places_staging")


async def _run(url: str, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(statement.encode())
