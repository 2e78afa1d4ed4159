"""Rows of a source that others change, hold, or keep from changing: no item is lost by it, and no other one waits."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.worker import World

LEAVE_OUT = """
CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE TRIGGER leave_out BEFORE UPDATE ON gadgets FOR EACH ROW
    WHEN (NEW.name = 'kept' AND NEW.lookup_status = '{}') EXECUTE FUNCTION leave_out()"""


async def test_an_item_whose_completion_a_trigger_leaves_out_fails_and_says_why(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute(LEAVE_OUT.format("completed").encode())
    await world.queue("one", "kept", "two")
    async with world.worker(flush_age_s=1) as worker:
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "failed", "completed"]
    assert "a trigger of the source table has left out or altered 1 of 1 updates" in rows[1]["lookup_error"]
    assert [row["code"] for row in await world.details()] == ["one", "two"]


async def test_a_trigger_that_leaves_out_claims_ends_the_worker_as_one_that_raises(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute(LEAVE_OUT.format("processing").encode())
    await world.queue("one", "kept")
    with pytest.raises(psycopg.DataError, match="has left out or altered 1 of 2 updates"):
        async with world.worker() as worker:
            await worker.died()
    assert {row["lookup_status"] for row in await world.gadgets()} == {"queued"}
    assert await world.rows("worker_claim", "position") == []
