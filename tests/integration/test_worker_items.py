"""What becomes of items: completed, failed alone, retried, timed out; on a real PostgreSQL and over real HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from curation.v1 import curation_pb2 as pb
from enrichment_worker.completer import FlushLimits
from shared.db.claim import claim
from shared.db.engine import connect
from shared.db.finish import Result, finish
from shared.db.sessions import open_session
from shared.db.writer import WATCH_CHANNEL
from shared.enrichment import Failed, Retry, Skip
from shared.errors import WorkflowError
from shared.failure import Failure
from shared.workflow import EnrichmentContext, Item, Values
from tests.support.eventually import DEADLINE_S
from tests.support.service import running_service
from tests.support.worker import Gate, Reply, World, details

INCOMPRESSIBLE = "".join(sha256(str(number).encode()).hexdigest() for number in range(200))
"""Too long for an index, which PostgreSQL reports like a server in trouble."""


async def test_every_queued_item_is_completed_and_its_values_saved(world: World) -> None:
    names = [f"g{number:03}" for number in range(300)]
    await world.queue(*names)
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert {row["lookup_result"] for row in rows} == {"found"}
    assert [row["code"] for row in await world.details()] == names
    assert sorted(world.api.requests) == names


async def test_more_results_than_a_commit_takes_are_saved_by_several(world: World) -> None:
    names = [f"g{number}" for number in range(8)]
    gate = Gate(world, calls=len(names))
    await world.queue(*names)
    async with world.worker(flush_size=3, flush_age_s=1) as worker:
        await worker.see(gate.asked.wait())
        gate.open.set()
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert [row["code"] for row in await world.details()] == names
    assert len(world.api.requests) == len(names), "none was lost and asked for again"


@pytest.mark.parametrize(("flush_size", "besides"), [(2, ["slow"]), (2000, [])], ids=["full", "last"])
async def test_results_wait_for_no_others_once_they_fill_a_commit_or_none_will_come(
    world: World, monkeypatch: pytest.MonkeyPatch, flush_size: int, besides: list[str]
) -> None:
    patient = {"age_s": 3600.0}  # beyond what a setting may be
    monkeypatch.setattr("enrichment_worker.app.FlushLimits", lambda **limits: FlushLimits(**{**limits, **patient}))
    slow = asyncio.Event()

    async def answer(name: str) -> Reply:
        if name == "slow":
            await slow.wait()
        if name == "second":
            await world.gadgets()  # the first is waited for by then
        return await details(name)

    world.api.answer = answer
    async with world.worker(flush_size=flush_size) as worker:
        flushed = worker.probe.expect("flushed")
        await world.queue("first", "second", *besides)
        assert len(await worker.see(flushed)) == 2
        slow.set()
        rows = await world.ended(worker)
    assert {row["lookup_status"] for row in rows} == {"completed"}


async def test_items_queued_later_are_claimed_without_waiting_for_the_poll(world: World) -> None:
    async with world.worker(poll_s=60) as worker:
        await worker.see(worker.listening)
        await world.queue("late")
        (row,) = await world.ended(worker)
    assert row["lookup_status"] == "completed"


async def test_an_idle_worker_claims_as_much_as_it_has_room_for_at_once(world: World) -> None:
    world.limit(concurrency=300)
    await world.queue(*(f"g{number:03}" for number in range(250)))
    async with world.worker() as worker:
        await world.ended(worker)
    async with world.transaction() as connection:
        query = "SELECT cardinality(items) FROM status_event WHERE kind = 'claim' ORDER BY position"
        claims = await (await connection.execute(query)).fetchall()
    assert claims == [(250,)]


async def test_a_claim_that_empties_the_queue_from_its_front_is_the_only_one(world: World) -> None:
    gate = Gate(world)
    await world.queue("only")
    async with world.worker(poll_s=60, listen_url="postgresql://127.0.0.1:1/nowhere") as worker:
        first, second = worker.probe.expect("claimed"), worker.probe.expect("claimed", times=2)
        assert [item.data["name"] for item in await worker.see(first)] == ["only"]
        await gate.asked.wait()
        for _ in range(20):  # longer than another claim would take
            await world.gadgets()
        assert not second.done()
        gate.open.set()
        await world.ended(worker)


async def test_watchers_are_told_of_a_claim_while_its_items_run(world: World) -> None:
    gate = Gate(world)
    async with await connect(world.url, name="a test") as listening:
        await listening.execute(f"LISTEN {WATCH_CHANNEL}".encode())
        await world.queue("one")
        async with world.worker(progress_s=60) as worker:  # or progress would be told of
            await worker.see(gate.asked.wait())
            heard = [told.payload async for told in listening.notifies(timeout=DEADLINE_S, stop_after=1)]
            gate.open.set()
            await world.ended(worker)
    assert heard == ["gadgets"]


async def test_they_are_claimed_by_the_poll_where_no_notification_is_heard(world: World) -> None:
    async with world.worker(poll_s=0.02, listen_url="postgresql://127.0.0.1:1/nowhere") as worker:
        await world.queue("late")
        (row,) = await world.ended(worker)
    assert row["lookup_status"] == "completed"


async def test_one_refused_row_in_a_full_batch_fails_alone_and_says_why(world: World) -> None:
    async def answer(name: str) -> Reply:
        return Reply({"code": name, "label": "much too long a label" if name == "g333" else "ok", "size": 1})

    world.api.answer = answer
    await world.queue(*(f"g{number:03}" for number in range(500)))
    async with world.worker(flush_age_s=1) as worker:
        rows = await world.ended(worker)
    (failed,) = [row for row in rows if row["lookup_status"] != "completed"]
    assert (failed["name"], failed["lookup_status"]) == ("g333", "failed")
    assert failed["lookup_error"] == (
        "gadget_details refused the values: value too long for type character varying(20) (see label)"
    )
    assert len(await world.details()) == 499


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label": "x", "size": "many"}, 'invalid input syntax for type integer: "many" (see size)'),
        ({"label": None}, 'null value in column "label" of relation "gadget_details" violates not-null constraint'),
        ({"label": "x", "colour": 1}, "the enricher returned columns that gadget_details does not have: colour"),
        ({"code": None, "label": "x"}, "the enricher returned no code, which names the row of gadget_details"),
        ({"label": "a\x00b"}, "(see label)"),
        ({"code": INCOMPRESSIBLE, "label": "x"}, "gadget_details refused the values: index row "),
        ({"label": {"not": "text"}}, "(see label)"),
    ],
)
async def test_values_that_the_target_cannot_take_are_that_items_failure(
    world: World, values: dict[str, object], message: str
) -> None:
    async def answer(name: str) -> Reply:
        good = (await details(name)).body
        assert isinstance(good, dict)
        return Reply(good if name == "good" else {"code": name, **values})

    world.api.answer = answer
    await world.queue("good", "bad")
    async with world.worker() as worker:
        good, bad = await world.ended(worker)
    assert good["lookup_status"] == "completed"
    assert bad["lookup_status"] == "failed"
    assert message in bad["lookup_error"]
    assert [row["code"] for row in await world.details()] == ["good"]


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside one that found nothing"])
@pytest.mark.parametrize("turned", [False, True], ids=["by key", "against the keys"])
async def test_of_results_with_one_target_key_the_last_is_saved(world: World, turned: bool, alone: bool) -> None:
    await world.queue("one", "two", "three")
    async with world.transaction() as connection:
        session = await open_session(connection, host="here", version="0", resources=["gadgets"])
        claimed = await claim(connection, world.workflow, world.table, session=session, limit=3)
        empty, *items = sorted(claimed.items, key=lambda item: item.key, reverse=turned)
        results = [
            Result(item, "complete", values={"code": "shared", "label": str(item.data["name"])}) for item in items
        ]
        if not alone:
            results.insert(0, Result(empty, "find_nothing"))
        assert (await finish(connection, world.workflow, world.table, results)).saved == len(results)
    assert [row["label"] for row in await world.details()] == [items[-1].data["name"]]


async def test_two_prepared_statements_end_attempts_whatever_is_left_out_and_no_results_prepare_the_usual_one(
    world: World,
) -> None:
    await world.queue("one", "two", "three", "four", "five")
    failure = Failure.of("the API", "HTTP 404", "not found")
    async with world.transaction() as connection:
        session = await open_session(connection, host="here", version="0", resources=["gadgets"])
        full, bare, other, failed, nothing = (
            await claim(connection, world.workflow, world.table, session=session, limit=5)
        ).items
        for results, count in (
            ([], 1),
            ([Result(full, "complete", values={"code": "full", "label": "full", "size": 1})], 1),
            ([Result(bare, "complete", values={"code": "bare", "label": "bare"})], 1),
            ([Result(failed, "fail", error="not found", failure=failure)], 2),
            (
                [
                    Result(nothing, "find_nothing"),
                    Result(other, "complete", values={"code": "other", "label": "other"}),
                ],
                2,
            ),
        ):
            assert (await finish(connection, world.workflow, world.table, results)).saved == len(results)
            cursor = await connection.execute(
                "SELECT FROM pg_prepared_statements WHERE statement LIKE '%finish gadgets%'"
            )
            assert cursor.rowcount == count


async def test_what_is_found_later_takes_the_place_of_what_was_saved(world: World) -> None:
    bodies = iter(({"code": "one", "label": "old", "size": 1}, {"code": "one", "label": "new"}))

    async def answer(name: str) -> Reply:
        return Reply(next(bodies))

    world.api.answer = answer
    async with world.worker() as worker:
        for _ in range(2):
            await world.queue("one")
            await world.ended(worker)
    assert await world.details() == [{"code": "one", "label": "new", "size": None}]


async def test_nothing_found_completes_without_a_target_row(world: World) -> None:
    async def answer(name: str) -> Reply:
        return Reply(None)

    world.api.answer = answer
    await world.queue("unknown")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_result"]) == ("completed", "nothing_found")
    assert await world.details() == []


async def test_an_answer_that_cannot_be_read_fails_at_the_first_attempt(world: World) -> None:
    async def answer(name: str) -> Reply:
        return Reply(["no", "mapping"])

    world.api.answer = answer
    await world.queue("odd")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("failed", 1)
    assert row["lookup_error"].startswith("the answer of gadgets API could not be read: TypeError")


async def test_an_api_that_recovers_costs_a_retry(world: World) -> None:
    async def answer(name: str) -> Reply:
        if len(world.api.requests) == 1:
            return Reply(status=503, headers={"Retry-After": "0"})
        return await details(name)

    world.api.answer = answer
    await world.queue("flaky")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"], row["lookup_error"]) == ("completed", 2, None)


async def test_an_api_that_stays_down_uses_the_attempts_up(world: World) -> None:
    async def answer(name: str) -> Reply:
        return Reply(status=503)

    world.api.answer = answer
    await world.queue("down")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"]) == ("failed", 3)
    assert row["lookup_error"] == "gadgets API answered 503 Service Unavailable (gave up after 3 attempts)"
    assert "s3cret" not in row["lookup_error"]


async def test_an_enricher_that_takes_too_long_is_timed_out(world: World) -> None:
    async def answer(name: str) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    world.api.answer = answer
    world.limit(timeout_s=0.05, attempts_max=1)
    await world.queue("slow")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert row["lookup_status"] == "failed"
    assert row["lookup_error"] == "gadgets API did not answer in time (gave up after 1 attempts)"


async def test_a_plain_function_runs_as_an_enricher_too(world: World) -> None:
    world.workflow = replace(world.workflow, enricher="tests.support.worker:enrich_plainly")
    await world.queue("one", "two")
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert [row["lookup_status"] for row in rows] == ["completed", "completed"]
    assert [row["label"] for row in await world.details()] == ["plain", "plain"]


async def test_an_enricher_that_is_not_there_keeps_the_worker_from_starting(world: World) -> None:
    world.workflow = replace(world.workflow, enricher="tests.support.worker:nowhere")
    with pytest.raises(WorkflowError, match=r"tests\.support\.worker:nowhere cannot be loaded"):
        async with world.worker():
            pass


async def test_an_enricher_says_itself_what_becomes_of_its_item(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = {
        "later": Retry("the register is closed", after_s=3600),
        "never": Failed("the company is no more"),
        "nothing": Skip("there is no entry"),
    }

    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        raise ends[item.data["name"]]

    monkeypatch.setattr("tests.support.worker.enrich", enrich)
    await world.queue("later", "never", "nothing")
    async with world.worker(flush_age_s=1) as worker:
        await worker.see(worker.probe.expect("flushed"))
        later, never, nothing = await world.gadgets()
    told = [
        (row["lookup_status"], row["lookup_error"], row["lookup_attempts"], row["lookup_result"])
        for row in (later, never, nothing)
    ]
    assert told == [
        ("queued", "the register is closed", 1, None),
        ("failed", "the company is no more", 1, None),
        ("completed", None, 1, "nothing_found"),
    ]
    assert later["lookup_run_at"] - datetime.now(UTC) > timedelta(minutes=59)


async def test_the_next_attempt_at_an_item_is_visible_wherever_it_is_looked_for(world: World) -> None:
    async def answer(name: str) -> Reply:
        return Reply(status=503, headers={"Retry-After": "3600"})

    world.api.answer = answer
    (key,) = await world.queue("later")
    async with running_service(world.url, workflow=world.workflow) as service:
        async with world.worker() as worker:
            await worker.see(worker.probe.expect("flushed"))
        got = await service.stub.GetItem(pb.GetItemRequest(resource="gadgets", id=str(key), history_size=10))
        why = await service.stub.ExplainItem(pb.ExplainItemRequest(resource="gadgets", id=str(key)))
    at = got.item.next_attempt_time.ToDatetime(UTC)
    assert at - datetime.now(UTC) > timedelta(minutes=59)
    (event,) = [event for event in got.history if event.kind == "retry"]
    assert event.next_attempt_time.ToDatetime(UTC) == at
    assert at in [cause.until_time.ToDatetime(UTC) for cause in why.causes if cause.kind == pb.CAUSE_KIND_BACKING_OFF]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_what_the_api_refuses_fails_at_the_first_attempt(world: World, status: int) -> None:
    async def answer(name: str) -> Reply:
        return Reply(status=status)

    world.api.answer = answer
    await world.queue("refused")
    async with world.worker() as worker:
        (row,) = await world.ended(worker)
    assert (row["lookup_status"], row["lookup_attempts"], len(world.api.requests)) == ("failed", 1, 1)
    assert row["lookup_error"].startswith(f"gadgets API answered {status} ")


async def test_never_more_enrichers_run_at_once_than_the_limit_allows(world: World) -> None:
    now = most = 0
    everybody = asyncio.Event()

    async def answer(name: str) -> Reply:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == world.workflow.limits.concurrency:
            everybody.set()
        await everybody.wait()
        now -= 1
        return await details(name)

    world.api.answer = answer
    await world.queue(*(f"g{number}" for number in range(50)))
    async with world.worker() as worker:
        await world.ended(worker)
    assert most == world.workflow.limits.concurrency
