"""A worker's session: when it is opened and closed, and what it says of its worker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.session import Session
from shared.db.engine import Database
from tests.support.eventually import eventually
from tests.support.proxy import proxied
from tests.support.service import somebody_waits_for_a_lock
from tests.support.worker import World


@asynccontextmanager
async def made(url: str, *lanes: Lane) -> AsyncIterator[Session]:
    """A session that is not begun yet, of a worker that beats once an hour."""

    def pinned() -> Pinned:
        return Pinned(url, name="a test", random=lambda: 0.0, timeout_s=20)

    async with pinned() as own:
        yield Session(
            lanes=lanes,
            pinned=own,
            pulse_pinned=pinned,
            on_lost=lambda: None,
            host="h",
            version="1",
            beat_s=3600,
        )


def lane_of(world: World) -> Lane:
    return Lane(world.workflow, world.table, ahead_max=0)


async def only_session(world: World) -> dict[str, Any]:
    (row,) = await world.rows("worker_session", "id")
    return row


async def test_a_session_counts_what_was_done_since_it_began_to_the_last(world: World) -> None:
    lane = lane_of(world)
    lane.done, lane.failed = 3, 1
    async with made(world.url, lane) as session, session:
        lane.done, lane.failed = 5, 2
    row = await only_session(world)
    assert (row["done"], row["failed"], row["ended_at"] is not None) == (2, 1, True)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pulse")]


async def test_a_session_that_finds_no_database_ends_when_it_is_told_to(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with made("postgresql://postgres@127.0.0.1:1/none", lane_of(world)) as session:
        entering = asyncio.create_task(session.__aenter__())
        await eventually(lambda: "no database" in caplog.text)
        await session.stop()
        with pytest.raises(RuntimeError, match="Session ended before it was ready"):
            await entering
    assert "did not stop" not in caplog.text


async def test_a_session_that_is_told_to_end_while_it_is_opened_is_closed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with made(world.url, lane_of(world)) as session, Database(world.url) as database:
        async with world.transaction() as other:
            await other.execute("LOCK TABLE worker_session")
            entering = asyncio.create_task(session.__aenter__())
            await somebody_waits_for_a_lock(database, relation="worker_session")
            stopping = asyncio.create_task(session.stop())
            await session.stopping.wait()
        await asyncio.gather(entering, stopping)
    assert (await only_session(world))["ended_at"] is not None
    assert "did not stop" not in caplog.text


async def test_a_session_that_cannot_be_closed_is_left_to_expire(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(world.url) as (proxy, url), made(url, lane_of(world)) as session:
        async with session:
            proxy.refuse()
        await session.ended()
    assert "could not be closed; it will expire" in caplog.text
    assert (await only_session(world))["ended_at"] is None
