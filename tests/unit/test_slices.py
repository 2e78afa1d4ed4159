"""Attempts that wait for nothing let the event loop turn all the same."""

from __future__ import annotations

import asyncio

from enrichment_worker.slices import Slices


async def test_work_that_waits_for_nothing_lets_others_have_the_event_loop() -> None:
    slices, steps, others = Slices(asyncio.get_running_loop()), 0, asyncio.Event()
    asyncio.get_running_loop().call_soon(others.set)
    while not others.is_set():
        steps += 1
        if slices.is_over():
            await asyncio.sleep(0)  # noqa: TID251 - as a place does
    assert steps > 1, "each step turned the event loop"


async def test_a_slice_is_shared_and_ends_with_the_turn() -> None:
    slices = Slices(asyncio.get_running_loop())
    while not slices.is_over():
        pass
    assert slices.is_over()
    await asyncio.sleep(0)  # noqa: TID251 - one turn
    assert not slices.is_over()
