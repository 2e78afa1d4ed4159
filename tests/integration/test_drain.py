"""A workflow that drains: workers give back what they have not begun, what runs gets to end, nothing begins."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from curation.v1 import curation_pb2 as pb
from tests.support.service import RunningService, refused, running_service
from tests.support.worker import GADGETS, Gate, Reply, World, details, world  # noqa: F401 - a fixture

NAMES = [f"gadget-{n}" for n in range(6)]
DRAIN = pb.DrainWorkflowRequest(resource="gadgets", actor="ann", reason="a new release")


@pytest.fixture
async def service(world: World) -> AsyncIterator[RunningService]:  # noqa: F811
    """A service for the gadgets; one of them runs at once."""
    world.limit(concurrency=1)
    async with running_service(world.url, workflow=GADGETS) as running:
        yield running


async def gadgets(world: World) -> list[tuple[str | None, int]]:  # noqa: F811
    return [(row["lookup_status"], row["lookup_attempts"]) for row in await world.gadgets()]


@pytest.mark.parametrize("poll_s", [30, 0.02], ids=["told", "polling"])
async def test_what_has_not_begun_is_given_back_and_what_runs_gets_to_end(
    service: RunningService,
    world: World,  # noqa: F811
    poll_s: float,
) -> None:
    gate = Gate(world)
    await world.queue(*NAMES)
    async with world.worker(poll_s=poll_s, claim_ahead_max=3) as worker:
        await worker.see(worker.listening)
        await worker.see(gate.asked.wait())
        held = (await service.stub.GetWorkflow(pb.GetWorkflowRequest(resource="gadgets"))).workflow
        assert held.in_flight_count >= 2, "or there is nothing to give back"
        flushed = worker.probe.expect("flushed")
        drained = await service.stub.DrainWorkflow(DRAIN)
        assert drained.changed
        assert (drained.state.paused, drained.state.draining, drained.state.paused_by) == (True, True, "ann")
        # A claim ahead may have come in between.
        in_flight = drained.in_flight_count
        assert in_flight >= held.in_flight_count
        released = await worker.see(flushed)
        assert {result.trigger for result in released} == {"release"}
        assert len(released) == in_flight - 1
        assert await gadgets(world) == [("processing", 1), *[("queued", 0)] * 5]
        flushed = worker.probe.expect("flushed")
        gate.open.set()
        await worker.see(flushed)
        assert await gadgets(world) == [("completed", 1), *[("queued", 0)] * 5]
        still = (await service.stub.GetWorkflow(pb.GetWorkflowRequest(resource="gadgets"))).workflow
        assert (still.in_flight_count, still.queued_count, still.state.draining) == (0, 5, True)
        assert not (await service.stub.DrainWorkflow(DRAIN)).changed
        resumed = await service.stub.ResumeWorkflow(pb.ResumeWorkflowRequest(resource="gadgets"))
        assert (resumed.changed, resumed.state.paused, resumed.state.draining) == (True, False, False)
        await world.ended(worker)
    assert await gadgets(world) == [("completed", 1)] * 6


async def test_what_is_paused_can_be_drained(service: RunningService) -> None:
    await service.stub.PauseWorkflow(pb.PauseWorkflowRequest(resource="gadgets", actor="bob"))
    drained = await service.stub.DrainWorkflow(DRAIN)
    assert (drained.changed, drained.state.draining, drained.state.paused_by) == (True, True, "ann")
    paused = await service.stub.PauseWorkflow(pb.PauseWorkflowRequest(resource="gadgets", actor="bob"))
    assert (paused.changed, paused.state.draining, paused.state.paused_by) == (False, True, "ann")


async def test_what_cannot_be_drained_is_refused_and_nothing_changes(service: RunningService) -> None:
    drain = service.stub.DrainWorkflow
    assert (await refused(drain(pb.DrainWorkflowRequest(resource="nope")))).reason == "UNKNOWN_RESOURCE"
    too_long = pb.DrainWorkflowRequest(resource="gadgets", reason="r" * 1001)
    assert (await refused(drain(too_long))).reason == "INVALID_REQUEST"
    workflow = (await service.stub.GetWorkflow(pb.GetWorkflowRequest(resource="gadgets"))).workflow
    assert not workflow.state.paused
