"""Errands end in their own time, whoever asked for them."""

from __future__ import annotations

import asyncio

import pytest

from shared.errands import Errands


async def test_an_errand_gives_what_its_work_gives() -> None:
    async def work() -> int:
        return 7

    async def fail() -> int:
        raise KeyError("gone")

    async with Errands(at_once=1) as errands:
        assert await errands.run(work) == 7
        with pytest.raises(KeyError):
            await errands.run(fail)


async def test_whoever_is_cancelled_leaves_at_once_and_the_work_goes_on() -> None:
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        ended.set()
        raise KeyError("nobody is told")

    async with Errands(at_once=1) as errands:
        asking = asyncio.create_task(errands.run(work))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert not ended.is_set()
        go_on.set()
    assert ended.is_set()  # a stop waits


async def test_what_has_not_begun_is_dropped_with_whoever_asked_for_it() -> None:
    go_on, done = asyncio.Event(), []

    async def hold() -> None:
        await go_on.wait()

    async def note() -> None:
        done.append("done")

    async with Errands(at_once=1) as errands:
        holding = asyncio.create_task(errands.run(hold))
        dropped, wanted = asyncio.create_task(errands.run(note)), asyncio.create_task(errands.run(note))
        await asyncio.wait({dropped}, timeout=0)
        dropped.cancel()
        await asyncio.wait({dropped})
        go_on.set()
        await asyncio.gather(holding, wanted)
    assert done == ["done"]
