"""An external API that asks to wait, or is down: all workers leave it alone, and no item loses an attempt by that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

import pytest

from curation.v1 import curation_pb2 as pb
from curation_client.aio import CurationClient
from shared.metrics import MetricsServer
from tests.integration.test_limits import all_ended, workers
from tests.support.calls import Calls
from tests.support.service import RunningService, running_service
from tests.support.worker import Gate, Reply, RunningWorker, World, details, world  # noqa: F401 - a fixture

DOWN = Reply(status=503)
FAILURES = 4


@pytest.fixture
def calls(world: World) -> Calls:  # noqa: F811
    """What the API sees."""
    world.workflow = replace(world.workflow, enricher="tests.support.calls:enrich_timed")
    world.limit(concurrency=2, breaker_failures=FAILURES)
    seen = Calls()
    world.api.answer = seen.answer
    return seen


async def looked(running: list[RunningWorker], times: int = 3) -> None:
    """Waits until every worker has seen, several times, what the database says."""
    for worker in running:
        await worker.see(worker.probe.expect("looked at the switch", times=times))


async def api_state(world: World) -> dict[str, Any] | None:  # noqa: F811
    """What is known of the API."""
    rows = await world.rows("api_state", "api")
    return rows[0] if rows else None


async def until(world: World, running: list[RunningWorker], holds: Callable[[dict[str, Any]], bool]) -> None:  # noqa: F811
    """Waits until this holds of the API's state."""
    while (state := await api_state(world)) is None or not holds(state):
        await looked(running, times=1)


async def execute(world: World, statement: str) -> None:  # noqa: F811
    async with world.transaction() as connection:
        await connection.execute(statement.encode())
        await connection.execute("NOTIFY curation_state, 'gadgets'")


async def outcomes(world: World) -> set[tuple[str | None, int]]:  # noqa: F811
    return {(row["lookup_status"], row["lookup_attempts"]) for row in await world.gadgets()}


async def test_one_retry_after_stops_all_workers_until_it_is_over(world: World, calls: Calls) -> None:  # noqa: F811
    async def too_many(_: str) -> Reply:
        return Reply(status=429, headers={"Retry-After": "3600"})

    calls.then = too_many
    await world.queue("first")
    async with workers(world, 3, claim_ahead_max=4) as running:
        await until(world, running, lambda state: state["held_until"] is not None)
        calls.then = details
        await world.queue(*[f"gadget-{n}" for n in range(20)])
        await looked(running)
        assert [name for name, _, _ in calls.times] == ["first"]
        assert {row["lookup_attempts"] for row in (await world.gadgets())[1:]} == {0}
        await execute(
            world,
            "UPDATE api_state SET held_until = now();"
            "UPDATE gadgets SET lookup_run_at = now() WHERE lookup_run_at IS NOT NULL",
        )
        rows = await all_ended(world, running)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [
        ("completed", 2),
        *[("completed", 1)] * 20,
    ]


async def test_what_was_claimed_when_the_api_asks_to_wait_is_given_back(world: World, calls: Calls) -> None:  # noqa: F811
    gate, asked = asyncio.Event(), asyncio.Event()

    async def answer(_: str) -> Reply:
        asked.set()
        await gate.wait()
        return Reply(status=429, headers={"Retry-After": "3600"})

    calls.then = answer
    world.limit(concurrency=1)
    await world.queue("called", "behind", "last")
    async with world.worker(claim_ahead_max=5) as worker:
        await worker.see(asked.wait())
        released = worker.probe.expect("flushed")
        gate.set()
        await worker.see(released)
        await until(world, [worker], lambda state: state["held_until"] is not None)
        while ("processing", 1) in await outcomes(world):
            await looked([worker], times=1)
        assert await outcomes(world) == {("queued", 1), ("queued", 0)}
    assert len(calls.times) == 1


async def test_so_is_what_waits_behind_a_call_that_goes_on_when_another_worker_was_asked_to_wait(
    world: World,  # noqa: F811
) -> None:
    async def processing() -> int:
        return [row["lookup_status"] for row in await world.gadgets()].count("processing")

    gate = Gate(world)
    world.limit(concurrency=1)
    await world.queue("called", "behind", "last")
    async with world.worker(claim_ahead_max=5) as worker:
        await worker.see(gate.asked.wait())
        while await processing() < 2:
            await looked([worker], times=1)
        await execute(
            world, "INSERT INTO api_state (api, held_until) VALUES ('gadgets API', now() + interval '1 hour')"
        )
        while await processing() > 1:
            await looked([worker], times=1)
        gate.open.set()
    rows = [(row["lookup_status"], row["lookup_attempts"]) for row in await world.gadgets()]
    assert rows == [("completed", 1), ("queued", 0), ("queued", 0)]


async def test_an_api_that_is_down_costs_no_attempts_and_one_call_at_a_time_until_it_answers(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    probing, gate = asyncio.Event(), asyncio.Event()

    async def down(_: str) -> Reply:
        return DOWN

    async def still_down(_: str) -> Reply:
        probing.set()
        await gate.wait()
        return DOWN

    async def lost() -> int:
        """Attempts that were lost, those under way left out."""
        rows = await world.gadgets()
        assert {row["lookup_status"] for row in rows} <= {"queued", "processing"}
        return sum(row["lookup_attempts"] - (row["lookup_status"] == "processing") for row in rows)

    calls.then = down
    world.limit(attempts_max=9)
    await world.queue("one", "other")
    async with workers(world, 3) as running:
        await until(world, running, lambda state: state["broken_since"] is not None)
        await looked(running)  # everybody knows
        calls.then, calls.most_at_once = still_down, 0
        await running[0].see(probing.wait())
        await looked(running)
        before = await lost()
        gate.set()
        probed = len(calls.times)
        await until(world, running, lambda _: len(calls.times) >= probed + 20)  # more than there are attempts
        assert calls.most_at_once == 1
        assert await lost() == before
        state = await api_state(world)
        assert state is not None
        assert state["broken_since"] is not None
        assert state["error"] == "gadgets API answered 503 Service Unavailable"
        calls.then = details
        rows = await all_ended(world, running)
    assert {row["lookup_status"] for row in rows} == {"completed"}
    assert sum(row["lookup_attempts"] for row in rows) == before + 2
    state = await api_state(world)
    assert state is not None
    assert (state["broken_since"], state["failures"], state["probes"], state["probe_at"]) == (None, 0, 0, None)


async def test_outages_count_in_a_row_alone(world: World, calls: Calls) -> None:  # noqa: F811
    async def every_other(name: str) -> Reply:
        return DOWN if int(name.partition("-")[2]) % FAILURES else await details(name)

    calls.then = every_other
    world.limit(concurrency=1, attempts_max=1)
    await world.queue(*[f"gadget-{n}" for n in range(40)])
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert sum(row["lookup_status"] == "failed" for row in rows) == 30
    state = await api_state(world)
    assert state is None or state["broken_since"] is None


async def test_outages_of_several_workers_add_up(world: World, calls: Calls) -> None:  # noqa: F811
    async def down(_: str) -> Reply:
        return DOWN

    calls.then = down
    world.limit(breaker_failures=6, concurrency=1, attempts_max=3, backoff_s=3600, backoff_max_s=3600)
    await execute(world, "INSERT INTO api_state (api, failures) VALUES ('gadgets API', 3)")
    await world.queue("a", "b", "c")
    async with world.worker() as worker:
        await until(world, [worker], lambda state: state["broken_since"] is not None)
    assert len(calls.times) == 3


async def test_a_workflow_without_a_breaker_goes_on(world: World, calls: Calls) -> None:  # noqa: F811
    async def down(_: str) -> Reply:
        return DOWN

    calls.then = down
    world.limit(breaker_failures=None)
    await world.queue(*[f"gadget-{n}" for n in range(2 * FAILURES)])
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert {(row["lookup_status"], row["lookup_attempts"]) for row in rows} == {("failed", 3)}
    assert await api_state(world) is None


async def test_a_probe_that_its_worker_does_not_carry_out_is_made_by_another(
    world: World,  # noqa: F811
    calls: Calls,
) -> None:
    asked = asyncio.Event()

    async def hang(_: str) -> Reply:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    calls.then = hang
    await execute(
        world, "INSERT INTO api_state (api, failures, broken_since, probe_at) VALUES ('gadgets API', 9, now(), now())"
    )
    await world.queue("one", "two")
    async with world.worker(grace_s=0) as worker:
        await worker.see(asked.wait())
        state = await api_state(world)
        assert state is not None
        assert state["probes"] == 1
        assert sorted(row["version"] for row in await world.gadgets()) == [1, 2], "one is claimed to try it with"
    calls.then = details
    async with world.worker() as worker:
        rows = await world.ended(worker)
    assert [(row["lookup_status"], row["lookup_attempts"]) for row in rows] == [("completed", 1)] * 2


@asynccontextmanager
async def watching(service: RunningService) -> AsyncIterator[asyncio.Queue[pb.WorkflowState]]:
    """The states that a stream tells of gadgets."""
    states: asyncio.Queue[pb.WorkflowState] = asyncio.Queue()

    async def read() -> None:
        async with CurationClient(service.address) as client, aclosing(client.watch("gadgets")) as updates:
            async for update in updates:
                if isinstance(update.part, pb.WorkflowState):
                    states.put_nowait(update.part)

    reading = asyncio.create_task(read())
    yield states
    reading.cancel()
    await asyncio.wait({reading})


async def test_an_api_that_is_down_is_left_alone_while_there_is_no_item_to_try_it_with(
    world: World,  # noqa: F811
    calls: Calls,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("enrichment_worker.claimer.BREATH_S", 0.0)
    await execute(world, "INSERT INTO api_state (api, broken_since, probe_at) VALUES ('gadgets API', now(), now())")
    async with world.worker(poll_s=60) as worker:
        await worker.see(worker.listening)
        claimed = worker.probe.expect("claimed", times=20)
        for n in range(40):
            looked_at = worker.probe.expect("looked at the switch")
            await execute(world, "SELECT")
            await worker.see(looked_at)
            if n == 0:
                await execute(world, "NOTIFY curation, 'gadgets'")  # it tries, and finds nothing to try it with
        assert not claimed.done()
        await world.queue("gadget")
        (row,) = await world.ended(worker)
    assert row["lookup_status"] == "completed"


async def test_lists_metrics_and_streams_tell_of_a_breaker(world: World, calls: Calls) -> None:  # noqa: F811
    async def down(_: str) -> Reply:
        return DOWN

    def numbers(port: int) -> str:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            text: str = response.read().decode()
            return text

    calls.then = down
    async with (
        running_service(world.url, workflow=world.workflow) as service,
        watching(service) as states,
        world.worker(metrics_listen="127.0.0.1:0") as worker,
    ):
        (server,) = [part for part in worker.parts if isinstance(part, MetricsServer)]
        assert (await states.get()).breaker == pb.BREAKER_STATE_CLOSED
        await world.queue(*[f"gadget-{n}" for n in range(20)])
        told = await states.get()
        assert (told.breaker, told.breaker_error) == (
            pb.BREAKER_STATE_OPEN,
            "gadgets API answered 503 Service Unavailable",
        )
        assert told.HasField("next_probe_time")
        (workflow,) = (await service.stub.ListWorkflows(pb.ListWorkflowsRequest())).workflows
        assert (workflow.state.breaker, workflow.state.api) == (pb.BREAKER_STATE_OPEN, "gadgets API")
        (listed,) = (await service.stub.ListWorkers(pb.ListWorkersRequest())).workers
        assert [state.breaker for state in listed.workflows] == [pb.BREAKER_STATE_OPEN]
        assert 'curation_api_broken{api="gadgets API"} 1.0' in await asyncio.to_thread(numbers, server.port)
        calls.then = details
        while (told := await states.get()).breaker != pb.BREAKER_STATE_CLOSED:
            pass
        await world.ended(worker)
        assert 'curation_api_broken{api="gadgets API"} 0.0' in await asyncio.to_thread(numbers, server.port)
