"""An idle worker whose next claim is held up at its commit: a trigger of the source waits while a test holds a lock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from enrichment_worker.canceller import Canceller
from tests.support.worker import RunningWorker, World

LOCK = 7
HELD_UP = f"""
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock_shared({LOCK}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hold_up AFTER UPDATE ON gadgets DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.lookup_status = 'queued' AND NEW.lookup_status = 'processing') EXECUTE FUNCTION hold_up();
"""
ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'curation worker, claiming'"


@dataclass(frozen=True, slots=True)
class HeldUp:
    """An idle worker, whose next claim is held up at its commit."""

    world: World
    worker: RunningWorker
    lock: psycopg.AsyncConnection[Any]

    async def let_commit(self) -> None:
        """Whoever waits to commit a claim does, and nobody waits from now on."""
        await self.lock.execute("SELECT pg_advisory_unlock_all()")

    async def end_claims(self) -> None:
        """Ends the connection over which claims are made, before it has committed."""
        await self.lock.execute(ENDED)

    async def found_lost(self) -> set[object]:
        """Has the worker look for items that are lost; gives the keys of those that it finds."""
        (canceller,) = (part for part in self.worker.parts if isinstance(part, Canceller))
        lost = self.worker.probe.expect("lost")
        canceller.ring()
        return {key for key, _ in await self.worker.see(lost)}


@asynccontextmanager
async def held_up(world: World, **settings: Any) -> AsyncIterator[HeldUp]:
    async with AsyncExitStack() as stack:
        lock = await stack.enter_async_context(await psycopg.AsyncConnection.connect(world.url, autocommit=True))
        await lock.execute(HELD_UP)
        worker = await stack.enter_async_context(world.worker(poll_s=60, **settings))
        stack.push_async_callback(lock.execute, "SELECT pg_advisory_unlock_all()")  # or it would wait as it stops
        await world.idle(worker)
        await lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield HeldUp(world, worker, lock)
