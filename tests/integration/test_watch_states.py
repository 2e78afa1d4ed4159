"""What keeps workers from claiming is told to whoever watches: at the start, and in its place among the events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from curation.v1 import curation_pb2 as pb
from curation_client.aio import CurationClient
from shared.db.log import append_state
from tests.integration.test_watch import Response, Stream, update
from tests.support.batches import parcel_id as key
from tests.support.service import RunningService, add_parcels

SELECTIONS: list[dict[str, Any]] = [
    {"skip_snapshot": True},
    {"skip_snapshot": True, "ids": pb.ItemIds(ids=[key(1)])},
    {"skip_snapshot": True, "batch_id": "1"},
    {"skip_snapshot": True, "filter": 'name = "parcel 1"'},
    {"skip_snapshot": True, "skip_progress": True},
    {},
]


async def pause(service: RunningService, reason: str = "") -> None:
    await service.stub.PauseWorkflow(pb.PauseWorkflowRequest(resource="parcels", actor="ann", reason=reason))


async def resume(service: RunningService) -> None:
    await service.stub.ResumeWorkflow(pb.ResumeWorkflowRequest(resource="parcels"))


def told(messages: Sequence[Response]) -> list[str]:
    """States, and the statuses of events, in order."""
    found: list[str] = []
    for message in messages:
        if message.HasField("workflow"):
            found.append("paused" if message.workflow.paused else "running")
        found += [event.status for event in message.events.events]
    return found


@asynccontextmanager
async def told_of(service: RunningService, **fields: Any) -> AsyncIterator[Stream]:
    """A stream that has begun: the state is the first it tells, behind a snapshot."""
    stream = Stream(service, **fields)
    await stream.part("workflow")
    yield stream
    stream.call.cancel()


async def until_told(stream: Stream, *wanted: str) -> None:
    """Reads until all of it was told, and nothing else was."""
    await stream.until(lambda: len(told(stream.messages)) >= len(wanted))
    assert told(stream.messages) == list(wanted)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda selection: " ".join(selection) or "snapshot")
async def test_a_stream_says_the_state_at_its_start_and_in_its_place_among_the_events(
    service: RunningService, selection: dict[str, Any]
) -> None:
    await add_parcels(service.database, {"status": "Selected"})
    async with service.database.transaction() as connection:
        await connection.execute("INSERT INTO status_batch (resource, status) VALUES ('parcels', 'Selected')")
    async with told_of(service, **selection) as stream:
        of_batch = "batch_id" in selection
        await update(service, "Scan", 1)
        await pause(service)
        seen = ["running", "paused"] if of_batch else ["running", "Scan", "paused"]
        await until_told(stream, *seen)
        await update(service, "Archived", 1)
        await resume(service)
        await until_told(stream, *seen, *([] if of_batch else ["Archived"]), "running")
        states = [message for message in stream.messages if message.HasField("workflow")]
        assert states[1].workflow.paused_by == "ann"
        assert all(message.resume_token for message in states[1:])


async def test_who_goes_on_from_any_token_misses_nothing_and_sees_nothing_twice(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with told_of(service, skip_snapshot=True) as stream:
        whole = ["running"]
        for number, status in enumerate(("Selected", "New", "Selected")):
            await update(service, status, 1)
            await (resume(service) if number % 2 else pause(service))
            whole += [status, "running" if number % 2 else "paused"]
            await until_told(stream, *whole)
    tokens = {n: message.resume_token for n, message in enumerate(stream.messages) if message.resume_token}
    resumed = {n: Stream(service, resume_token=token) for n, token in tokens.items()}
    await update(service, "Archived", 1)
    for n, again in resumed.items():
        await again.until(lambda again=again: "Archived" in told(again.messages))  # type: ignore[misc]
        rest = [word for word in told(stream.messages[n + 1 :]) if word not in ("paused", "running")]
        assert [word for word in told(again.messages) if word not in ("paused", "running")] == [*rest, "Archived"]
        # Of the states, what is so now: at the start, and where changes are caught up with.
        assert {message.workflow.paused for message in again.messages if message.HasField("workflow")} == {True}
        again.call.cancel()


async def test_changes_that_came_at_once_are_told_once_and_before_what_followed(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with told_of(service, skip_snapshot=True) as stream:
        async with service.database.transaction() as connection:
            for _ in range(3):
                await append_state(connection, "parcels")
        await until_told(stream, "running", "running")
        await update(service, "Selected", 1)
        await until_told(stream, "running", "running", "Selected")


async def test_who_was_paused_by_an_earlier_call_sees_so_and_others_are_not_told(service: RunningService) -> None:
    await add_parcels(service.database, {})
    await pause(service, reason="too dear")
    async with told_of(service) as stream:
        started = stream.messages[-1].workflow
        assert (started.paused, started.pause_reason) == (True, "too dear")
        async with service.database.transaction() as connection:
            await append_state(connection, "places")
        await update(service, "Selected", 1)
        await until_told(stream, "paused", "Selected")


async def test_the_client_passes_states_on(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with CurationClient(service.address) as client, aclosing(client.watch("parcels")) as updates:
        states: list[bool] = []
        async for one in updates:
            if isinstance(one.part, pb.WorkflowState):
                states.append(one.part.paused)
                if len(states) == 1:
                    await pause(service)
                else:
                    assert one.resume_token
                    break
    assert states == [False, True]
