"""Rows of a source that others change, hold, or keep from changing: no item is lost by it, and no other one waits."""

from __future__ import annotations

import psycopg
import pytest

from shared.db.claim import claim
from shared.db.engine import connect
from shared.db.log import append_progress
from tests.support.worker import Gate, World

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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits wait but a moment for what others hold."""
    for module in ("app", "completer"):
        monkeypatch.setattr(f"enrichment_worker.{module}.LOCK_S", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_results_wait_for_no_other_whose_row_somebody_holds(world: World) -> None:
    gate = Gate(world, calls=3)
    await world.queue("one", "held", "two")
    async with world.worker(flush_age_s=1) as worker:
        await worker.see(gate.asked.wait())
        async with world.transaction() as holder:
            await holder.execute("SELECT FROM gadgets WHERE name = 'held' FOR UPDATE")
            aside, flushed = worker.probe.expect("set aside"), worker.probe.expect("flushed")
            gate.open.set()
            assert len(await worker.see(aside)) == 1
            await worker.see(flushed)
            assert [row["lookup_status"] for row in await world.gadgets()] == ["completed", "processing", "completed"]
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed"] * 3
    assert len(world.api.requests) == 3, "each was asked for once"


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_stops_leaves_to_rescue_what_somebody_holds(world: World) -> None:
    gate = Gate(world)
    await world.queue("held")
    async with world.transaction() as holder:
        async with world.worker() as worker:
            await worker.see(gate.asked.wait())
            await holder.execute("SELECT FROM gadgets WHERE name = 'held' FOR UPDATE")
            aside = worker.probe.expect("set aside")
            gate.open.set()
            await worker.see(aside)
        assert [row["lookup_status"] for row in await world.gadgets()] == ["processing"]
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 2)


async def test_progress_waits_for_no_row_that_somebody_holds(world: World) -> None:
    keys = await world.queue("held", "free")
    async with await connect(world.url, name="worker", options="-c lock_timeout=5s") as connection:
        claimed = await claim(connection, world.workflow, world.table, session=1, limit=2)
        async with world.transaction() as holder:
            await holder.execute("SELECT FROM gadgets WHERE name = 'held' FOR UPDATE")
            reports = [(item.key, item.version, "asking", 0.5) for item in claimed.items]
            await append_progress(connection, world.workflow, reports)
    (entry,) = [row for row in await world.rows("status_event", "position") if row["kind"] == "progress"]
    assert entry["items"] == [str(keys[1])]


async def test_a_trigger_that_leaves_out_claims_ends_the_worker_as_one_that_raises(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute(LEAVE_OUT.format("processing").encode())
    await world.queue("one", "kept")
    with pytest.raises(psycopg.DataError, match="has left out or altered 1 of 2 updates"):
        async with world.worker() as worker:
            await worker.died()
    assert {row["lookup_status"] for row in await world.gadgets()} == {"queued"}
    assert await world.rows("worker_claim", "position") == []
