"""Rows of a source that others change, hold, or keep from changing: no item is lost by it, and no other one waits."""

from __future__ import annotations

import re

import pytest

from shared.db.claim import claim
from shared.db.engine import connect
from shared.db.log import append_progress
from shared.db.sessions import close_session, open_session
from tests.integration.test_cancel import metric
from tests.support.worker import WIDGETS, Gate, World

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
@pytest.mark.parametrize(("flush_size", "times"), [(500, 1), (1, 2)])
async def test_results_wait_for_no_other_whose_row_somebody_holds(
    world: World, flush_size: int, times: int, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(world, calls=4)
    await world.queue("one", "held", "two", "held too")
    async with world.worker(flush_age_s=1, flush_size=flush_size) as worker:
        await worker.see(gate.asked.wait())
        async with world.transaction() as holder:
            await holder.execute("SELECT FROM gadgets WHERE name LIKE 'held%' FOR UPDATE")
            aside = worker.probe.expect("set aside", times=times)
            gate.open.set()
            await worker.see(aside)
            while [row["lookup_status"] for row in await world.gadgets()] != ["completed", "processing"] * 2:
                pass
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed"] * 4
    assert len(world.api.requests) == 4, "each was asked for once"
    assert "left to rescue" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_results_wait_for_no_other_whose_row_of_the_target_somebody_holds(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute("INSERT INTO gadget_details (code, label) VALUES ('held', 'earlier')")
    gate = Gate(world, calls=3)
    await world.queue("one", "held", "two")
    async with world.worker(flush_age_s=1) as worker:
        await worker.see(gate.asked.wait())
        async with world.transaction() as holder:
            aside, flushed = worker.probe.expect("set aside"), worker.probe.expect("flushed")
            await holder.execute("SELECT FROM gadget_details WHERE code = 'held' FOR UPDATE")
            gate.open.set()
            assert len(await worker.see(aside)) == 1
            await worker.see(flushed)
            assert [row["lookup_status"] for row in await world.gadgets()] == ["completed", "processing", "completed"]
        rows = await world.ended(worker)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 3
    assert {row["label"] for row in await world.details()} == {"found"}


@pytest.mark.parametrize("mode", ["SHARE", "ACCESS EXCLUSIVE"])
@pytest.mark.usefixtures("impatient")
async def test_results_wait_for_a_target_that_somebody_holds_and_the_log_says_so(
    world: World, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(world, calls=2)
    await world.queue("one", "two")
    async with world.worker() as worker:
        await worker.see(gate.asked.wait())
        async with world.transaction() as holder:
            waiting = worker.probe.expect("waiting for the database", times=2)
            await holder.execute(f"LOCK TABLE gadget_details IN {mode} MODE".encode())
            gate.open.set()
            await worker.see(waiting)
        rows = await world.ended(worker)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 2
    assert "results wait, as somebody holds gadgets or gadget_details" in caplog.text


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


BODIES = {
    "leaves out": ("RETURN NULL", "has left out or altered 1 of 2 updates"),
    "raises": ("RAISE EXCEPTION 'not %', NEW.name", "not kept"),
}


async def refuse(world: World, condition: str, body: str = "RAISE EXCEPTION 'not %', NEW.name") -> None:
    """Lets a trigger of the gadgets refuse updates."""
    async with world.transaction() as connection:
        await connection.execute(
            f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {body}; END$$;
            CREATE TRIGGER refuse BEFORE UPDATE ON gadgets FOR EACH ROW
                WHEN ({condition}) EXECUTE FUNCTION refuse()""".encode()
        )


async def allow(world: World) -> None:
    async with world.transaction() as connection:
        await connection.execute("DROP FUNCTION refuse CASCADE")


@pytest.mark.parametrize("body", list(BODIES))
async def test_a_claim_that_a_trigger_does_not_allow_is_tried_again_and_other_workflows_go_on(
    world: World, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.others = [WIDGETS]
    function, message = BODIES[body]
    await refuse(world, "NEW.name = 'kept' AND NEW.lookup_status = 'processing'", function)
    await world.queue("one", "kept")
    async with world.worker(metrics_listen="127.0.0.1:0") as worker:
        await worker.see(worker.probe.expect("refused", times=2))
        flushed = worker.probe.expect("flushed")
        await world.queue("other", resource="widgets")
        await worker.see(flushed)
        assert [row["lookup_status"] for row in await world.items()] == ["queued", "queued", "completed"]
        assert {claim["resource"] for claim in await world.rows("worker_claim", "position")} <= {"widgets"}
        assert re.search(f"gadgets does not allow a claim: .*{message}", caplog.text)
        assert "CONTEXT" not in caplog.text, "it is told in a line"
        assert await metric(worker, "curation_statements_refused_total") >= 2
        await allow(world)
        rows = await world.ended(worker)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 3


async def test_a_rescue_that_a_trigger_does_not_allow_is_tried_again_and_its_worker_goes_on(world: World) -> None:
    await world.queue("kept")
    async with world.transaction() as connection:
        session = await open_session(connection, host="gone", version="0", resources=["gadgets"])
        await claim(connection, world.workflow, world.table, session=session, limit=1)
        await close_session(connection, session)
    await refuse(world, "OLD.lookup_status = 'processing'")
    async with world.worker(beat_s=0.1, expiry_s=0.5) as worker:
        await worker.see(worker.probe.expect("refused"))
        await allow(world)
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 2)


@pytest.mark.usefixtures("impatient")
async def test_a_result_that_a_trigger_does_not_allow_is_kept_until_it_does(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.queue("one", "kept", "two")
    await refuse(world, "NEW.name = 'kept' AND OLD.lookup_status = 'processing'")
    async with world.transaction() as connection:
        # Not even where its completion was refused just before it is allowed.
        await connection.execute(LEAVE_OUT.format("failed").encode())
    async with world.worker(flush_age_s=1) as worker:
        await worker.see(worker.probe.expect("refused", times=2))
        assert [row["lookup_status"] for row in await world.gadgets()] == ["completed", "processing", "completed"]
        await allow(world)
        rows = await world.ended(worker)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 3
    assert "left to rescue" not in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_stops_leaves_to_rescue_what_a_trigger_does_not_allow(world: World) -> None:
    await world.queue("kept")
    await refuse(world, "OLD.lookup_status = 'processing'")
    async with world.worker() as worker:
        await worker.see(worker.probe.expect("refused"))
    await allow(world)
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 2)


@pytest.mark.usefixtures("impatient")
async def test_results_that_a_trigger_does_not_allow_are_told_of_once_a_look(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.queue("one", "two", "three")
    await refuse(world, "OLD.lookup_status = 'processing'")
    async with world.worker(metrics_listen="127.0.0.1:0") as worker:
        await worker.see(worker.probe.expect("refused", times=9))
        told = caplog.text.count("gadgets does not allow a")
        assert 3 * told <= await metric(worker, "curation_statements_refused_total") + 2
        await allow(world)
        await world.ended(worker)
