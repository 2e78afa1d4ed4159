"""Items begin while the claim of an idle worker is being committed; what becomes of them when it is not."""

from __future__ import annotations

import pytest

from tests.support.eventually import eventually_async
from tests.support.held_up import LOCK, held_up
from tests.support.proxy import proxied
from tests.support.worker import Gate, Reply, World

REFUSED = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not today'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON gadgets DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.lookup_status = 'queued' AND NEW.lookup_status = 'processing') EXECUTE FUNCTION refuse();
"""


async def statuses(world: World) -> list[str]:
    return [row["lookup_status"] for row in await world.gadgets()]


async def test_an_item_begins_while_its_claim_is_committed_and_is_saved_after_it(world: World) -> None:
    async with held_up(world) as held:
        withheld = held.worker.probe.expect("withheld")
        aside, dropped = held.worker.probe.expect("set aside"), held.worker.probe.expect("dropped")
        await world.queue("one")
        await held.worker.see(withheld)
        assert await statuses(world) == ["queued"]
        await held.let_commit()
        (row,) = await world.ended(held.worker)
        assert not aside.done()
        assert not dropped.done()
    assert (row["lookup_status"], row["lookup_attempts"], world.api.requests) == ("completed", 1, ["one"])
    assert [detail["code"] for detail in await world.details()] == ["one"]


async def test_a_claim_whose_answer_was_lost_and_that_was_committed_is_known_by_asking(world: World) -> None:
    gate = Gate(world)
    async with proxied(world.url) as (proxy, url), held_up(world, database_url=url) as held:
        lost = held.worker.probe.expect("not committed")
        await world.queue("one")
        await held.worker.see(gate.asked.wait())
        proxy.refuse()
        await held.let_commit()
        await eventually_async(lambda: has_status(world, "one", "processing"))
        gate.open.set()
        await proxy.accept()
        (row,) = await world.ended(held.worker)
        assert not lost.done()
    assert (row["lookup_status"], row["lookup_attempts"], world.api.requests) == ("completed", 1, ["one"])


async def test_an_item_whose_claim_was_not_committed_is_ended_and_then_claimed_as_if_it_had_never_been(
    world: World,
) -> None:
    gate = Gate(world)
    async with held_up(world) as held:
        lost, cancelled = held.worker.probe.expect("not committed"), held.worker.probe.expect("cancelled")
        await world.queue("one")
        await held.worker.see(gate.asked.wait())
        await held.end_claims()
        await held.worker.see(lost)
        await held.worker.see(cancelled)
        gate.open.set()
        await held.let_commit()
        (row,) = await world.ended(held.worker)
    assert (row["lookup_status"], row["lookup_attempts"], world.api.requests) == ("completed", 1, ["one", "one"])
    assert (await events(world)) == ["claim", "complete"]


async def test_what_was_brought_under_a_claim_that_was_not_committed_is_dropped(world: World) -> None:
    replies = iter(["before", "after"])

    async def answer(name: str) -> Reply:
        return Reply({"code": name, "label": next(replies), "size": 1})

    world.api.answer = answer
    async with held_up(world) as held:
        withheld, cancelled = held.worker.probe.expect("withheld"), held.worker.probe.expect("cancelled")
        dropped = held.worker.probe.expect("dropped")
        await world.queue("one")
        await held.worker.see(withheld)
        await held.end_claims()
        await held.worker.see(cancelled)
        await held.let_commit()
        await world.ended(held.worker)
        assert not dropped.done(), "it was sent, and the database had to refuse it"
    assert [detail["label"] for detail in await world.details()] == ["after"]


async def test_a_claim_that_is_committed_after_all_leaves_its_item_to_be_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enrichment_worker.claimer.LOOK_S", 0)
    gate = Gate(world)
    async with proxied(world.url) as (proxy, url), held_up(world, database_url=url) as held:
        lost, looked = held.worker.probe.expect("not committed"), held.worker.probe.expect("looked for strays")
        await world.queue("one")
        await held.worker.see(gate.asked.wait())
        proxy.cut()
        await held.worker.see(lost)
        await held.worker.see(looked)
        assert await statuses(world) == ["queued"]
        await held.let_commit()
        await eventually_async(lambda: has_status(world, "one", "processing"))
        gate.open.set()
        async with world.transaction() as other:
            await other.execute("SELECT pg_notify('curation', 'gadgets')")
        await world.ended(held.worker)
    assert world.api.requests == ["one", "one"]
    assert await events(world) == ["claim", "release", "claim", "complete"]


async def test_a_source_that_refuses_every_claim_at_its_commit_costs_one_call(world: World) -> None:
    async with world.worker(poll_s=60) as worker:
        await world.idle(worker)
        async with world.transaction() as other:
            await other.execute(REFUSED)
        lost = worker.probe.expect("not committed")
        await world.queue("one")
        await worker.see(lost)
        for _ in range(3):
            await worker.see(worker.probe.expect("refused"))
        assert await statuses(world) == ["queued"]
    assert world.api.requests == ["one"]


async def test_who_looks_for_lost_items_leaves_out_those_in_doubt(world: World) -> None:
    gate = Gate(world, calls=2)
    async with held_up(world) as held:
        await held.let_commit()
        claimed = held.worker.probe.expect("claimed")
        await world.queue("one")
        await held.worker.see(claimed)
        await world.idle(held.worker)
        await held.lock.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        await world.queue("two")
        await held.worker.see(gate.asked.wait())
        async with world.transaction() as other:
            await other.execute("UPDATE gadgets SET version = version + 1 WHERE name = 'one'")
        assert await held.found_lost() == {1}
        gate.open.set()
        await held.let_commit()
        await eventually_async(lambda: has_status(world, "two", "completed"))


async def test_a_worker_that_stops_in_doubt_leaves_an_item_as_its_claim_left_it(world: World) -> None:
    gate = Gate(world)
    async with held_up(world) as held:
        await world.queue("one")
        await held.worker.see(gate.asked.wait())
        await held.end_claims()
    assert await statuses(world) == ["queued"]
    assert world.api.requests == ["one"]


async def events(world: World) -> list[str]:
    """All but progress, which an attempt that was begun again may make for long enough to be told."""
    return [row["kind"] for row in await world.rows("status_event", "position") if row["kind"] != "progress"]


async def has_status(world: World, name: str, status: str) -> bool:
    return (name, status) in [(row["name"], row["lookup_status"]) for row in await world.gadgets()]
