"""A database that refuses, hangs or is slow: the worker waits and goes on, saves what it has, and takes no more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import psycopg
import pytest

from enrichment_worker.claimer import BREATH_S, Claimer
from enrichment_worker.completer import Completer
from enrichment_worker.pinned import Pinned
from shared.errors import DatabaseUnavailable
from tests.support.eventually import DEADLINE_S, eventually_async
from tests.support.proxy import Proxy, proxied
from tests.support.worker import Gate, Reply, World

Network = tuple[Proxy, str]


@pytest.fixture
async def network(world: World) -> AsyncIterator[Network]:
    """A proxy before PostgreSQL, and the database's address through it."""
    async with proxied(world.url) as network:
        yield network


async def test_a_worker_waits_for_a_database_that_refuses_it_and_saves_what_it_has(
    world: World, network: Network
) -> None:
    proxy, url = network
    gate = Gate(world)
    await world.queue("before")
    async with world.worker(database_url=url, poll_s=60) as worker:
        await worker.see(worker.listening)
        await worker.see(gate.asked.wait())
        proxy.refuse()
        waiting = worker.probe.expect("waiting for the database", times=4)
        gate.open.set()
        await worker.see(waiting)
        listening = worker.probe.expect("listening")
        await proxy.accept()
        (row,) = await world.ended(worker)
        assert (row["lookup_status"], row["lookup_attempts"]) == ("completed", 1)
        # It hears again, or it would not look for a minute.
        await worker.see(listening)
        await world.queue("after")
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]
    assert world.api.requests == ["before", "after"], "nothing was asked for twice"


@pytest.mark.parametrize(("stop_s", "outcome"), [(3600.0, ("completed", 1)), (0.0, ("processing", 1))])
async def test_a_completer_that_stops_tries_for_a_while_to_save_what_it_has(
    world: World, network: Network, monkeypatch: pytest.MonkeyPatch, stop_s: float, outcome: tuple[str, int]
) -> None:
    monkeypatch.setattr("enrichment_worker.completer.STOP_S", stop_s)
    proxy, url = network
    gate = Gate(world)
    await world.queue("one")
    async with world.worker(database_url=url) as worker:
        await worker.see(gate.asked.wait())
        proxy.refuse()
        waiting = worker.probe.expect("waiting for the database", times=2)
        gate.open.set()
        await waiting
        (completer,) = [part for part in worker.parts if isinstance(part, Completer)]
        waiting = worker.probe.expect("waiting for the database")
        stopping = asyncio.create_task(completer.stop())
        if stop_s:
            await waiting
        else:
            await stopping
        await proxy.accept()
        await stopping
        (row,) = await world.gadgets()
    assert (row["lookup_status"], row["lookup_attempts"]) == outcome


async def test_what_a_worker_was_told_while_deaf_is_done_once_it_hears_again(
    world: World, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.claimer.about", lambda *_: 3600.0)  # not by a poll
    proxy, url = network
    async with world.worker(listen_url=url) as worker:
        await worker.see(worker.listening)
        proxy.refuse()
        await world.queue("meanwhile")
        await proxy.accept()
        (row,) = await world.ended(worker)
    assert row["lookup_status"] == "completed"


async def test_connections_that_hang_without_a_word_are_given_up_and_the_result_is_saved(
    world: World, network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("enrichment_worker.app.ANSWER_S_MIN", 0.3)
    monkeypatch.setattr("enrichment_worker.listener.SILENCE_S", 0.3)
    proxy, url = network
    gate = Gate(world)
    await world.queue("before")
    # Seconds pass until the hanging beat is given up; nobody rescues meanwhile.
    async with world.worker(database_url=url, beat_s=0.1, expiry_s=0.6) as worker:
        await worker.see(worker.listening)
        await worker.see(gate.asked.wait())
        listening = worker.probe.expect("listening")
        proxy.freeze()
        gate.open.set()
        await world.queue("after")
        rows = await world.ended(worker)
        await worker.see(listening)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]
    assert "completing: no database (no answer in 0.3 s)" in caplog.text


async def test_a_worker_that_was_cut_off_for_too_long_changes_nothing_and_goes_on(
    world: World, network: Network
) -> None:
    proxy, url = network
    asked, gate = asyncio.Event(), asyncio.Event()

    async def answer(name: str) -> Reply:
        if len(world.api.requests) > 1:
            return Reply({"code": name, "label": "in time"})
        asked.set()
        await gate.wait()
        return Reply({"code": name, "label": "late"})

    world.api.answer = answer
    await world.queue("one")
    async with world.worker(database_url=url, beat_s=0.1, expiry_s=1) as cut_off:
        await cut_off.see(asked.wait())
        proxy.refuse()
        waiting = cut_off.probe.expect("waiting for the database", times=2)
        gate.set()
        await cut_off.see(waiting)  # with the late result in hand
        async with world.worker(beat_s=0.1, expiry_s=1) as other:
            before = await world.ended(other)
        dropped, lost = cut_off.probe.expect("dropped"), cut_off.probe.expect("session lost")
        await proxy.accept()
        assert await cut_off.see(dropped) == 1
        await cut_off.see(lost)
        assert await world.gadgets() == before
        await world.queue("two")
        rows = await world.ended(cut_off)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 2), ("completed", 1)]
    assert [row["label"] for row in await world.details()] == ["in time", "in time"]


async def test_a_worker_that_cannot_save_claims_no_more_than_its_bound(world: World) -> None:
    world.limit(concurrency=4, timeout_s=60)
    await world.queue(*(f"g{n:03}" for n in range(200)))
    async with world.transaction() as saving:
        await saving.execute("LOCK TABLE gadget_details IN EXCLUSIVE MODE")
        async with world.worker(claim_ahead_max=10, poll_s=0.02) as worker:
            await worker.see(held_back(world))
            # It has looked for work, and for room, many more times.
            await worker.see(worker.probe.expect("looked at the switch", times=20))
            held = [row for row in await world.gadgets() if row["lookup_status"] == "processing"]
            assert len(held) <= 4 + 10
            assert len(world.api.requests) <= 4 + 10
            await saving.rollback()
            rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert len(world.api.requests) == 200


HANGS_WITH_MANY = """
CREATE FUNCTION hang_with_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) FROM saved) > 16 THEN PERFORM pg_sleep(3600); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER hang_with_many AFTER INSERT ON gadget_details REFERENCING NEW TABLE AS saved
    FOR EACH STATEMENT EXECUTE FUNCTION hang_with_many()
"""
NOTES_SIZES = """
CREATE TABLE sizes (size bigint);
CREATE OR REPLACE FUNCTION hang_with_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO sizes SELECT count(*) FROM saved;
    RETURN NULL;
END $$
"""


async def test_results_that_cannot_be_saved_in_time_together_are_saved_in_smaller_commits_until_they_can(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.app.ANSWER_S_MIN", 0.5)
    world.limit(concurrency=40)
    gate = Gate(world, calls=40)
    async with world.transaction() as connection:
        await connection.execute(HANGS_WITH_MANY)
    await world.queue(*(f"g{n:02}" for n in range(40)))
    async with world.worker(flush_age_s=1, beat_s=0.1, expiry_s=1, commits_at_once=1) as worker:
        await worker.see(gate.asked.wait())
        waiting = worker.probe.expect("waiting for the database")
        gate.open.set()
        await worker.see(waiting)
        rows = await world.ended(worker)
        assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 40
        async with world.transaction() as connection:
            await connection.execute(NOTES_SIZES)
        for turn in range(4):
            gate = Gate(world, calls=40)
            await world.queue(*(f"h{turn}{n:02}" for n in range(40)))
            await worker.see(gate.asked.wait())
            gate.open.set()
            await world.ended(worker)
    assert max(row["size"] for row in await world.rows("sizes", "size")) > 16


async def test_a_worker_is_connected_before_there_is_anything_to_commit(world: World) -> None:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'curation worker, completing'"

    async def are_there() -> bool:
        async with world.transaction() as connection:
            return await (await connection.execute(statement)).fetchone() == (2,)

    async with world.worker(commits_at_once=2):
        await eventually_async(are_there)


async def held_back(world: World) -> None:
    """Returns once results wait for the table."""
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        while not await (
            await connection.execute(
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'gadget_details'::regclass"
            )
        ).fetchone():
            pass


async def test_what_keeps_the_database_away_is_logged_once_in_a_while_and_anything_else_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def miss(*tables: str) -> list[str]:
        caplog.clear()
        for table in tables:
            with pytest.raises(DatabaseUnavailable):
                async with pinned.autocommit() as connection:
                    await connection.execute(f"SELECT FROM {table}".encode())
        return re.findall('relation "(.*)" does not exist', caplog.text)

    async with Pinned(world.url, name="a test", random=lambda: 1.0, timeout_s=DEADLINE_S) as pinned:
        assert await miss("one", "one", "other", "one") == ["one", "other"]
        monkeypatch.setattr("enrichment_worker.pinned.QUIET_S", 0.0)
        assert await miss("one", "other") == ["one", "other"]


async def test_a_frozen_worker_holds_no_locks_for_long(world: World) -> None:
    (key,) = await world.queue("one")
    lock = "SELECT FROM gadgets WHERE id = %s FOR UPDATE"
    async with Pinned(world.url, name="frozen", random=lambda: 1.0, timeout_s=0.2) as pinned:
        async with pinned.transaction() as connection:
            pass
        # From here on as if its process stood still: nobody looks at the clock of its transaction but the server.
        await connection.execute("BEGIN")
        await connection.execute(lock, [key])
        async with world.transaction() as other:
            await other.execute(lock, [key])  # waits for that one's end
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            await connection.execute("SELECT")


SLOW_COMMITS = """
CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.lookup_status = 'processing' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER hold_up AFTER UPDATE ON gadgets DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION hold_up()
"""
"""A claim is committed once nobody holds the lock any more, whatever became of its connection."""
HELD_UP = "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def test_items_of_a_claim_that_is_committed_long_after_its_connection_was_lost_are_done(
    world: World, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.claimer.LOOK_S", 0.1)
    proxy, url = network
    await world.queue("late")
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as holder:
        await holder.execute(SLOW_COMMITS)
        await holder.execute("SELECT pg_advisory_lock(1)")

        async def is_held_up() -> bool:
            return await (await holder.execute(HELD_UP)).fetchone() == (True,)

        async with world.worker(database_url=url) as worker:
            await eventually_async(is_held_up)
            looked = worker.probe.expect("looked for strays")
            proxy.cut()
            await worker.see(looked)
            assert await is_held_up(), "it has nothing to find yet"
            await holder.execute("SELECT pg_advisory_unlock(1)")
            (row,) = await world.ended(worker)
    assert row["lookup_status"] == "completed"


async def test_a_claimer_waits_longer_each_time_that_its_own_connection_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.app.PLANNED_ONCE", "-c no_such_setting=on")  # the server refuses it alone
    waits_s: list[float] = []
    enough = asyncio.Event()
    pause = Claimer.pause

    async def shorter(self: Claimer, seconds: float) -> None:
        if seconds != BREATH_S:
            waits_s.append(seconds)
        if len(waits_s) == 6:
            enough.set()
        await pause(self, 0.01)

    monkeypatch.setattr(Claimer, "pause", shorter)
    await world.queue("one")
    async with world.worker() as worker:
        await worker.see(enough.wait())
        (row,) = await world.ended(worker)
    assert waits_s[5] > 10 * waits_s[0]
    assert row["lookup_status"] == "completed"
