"""A shared time limit ends what takes too long, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from shared.deadline import Deadline

LONG_S = 3600.0


async def never() -> None:
    await asyncio.Event().wait()


async def test_what_ends_in_time_is_returned() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)  # noqa: TID251 - lets others run, and waits for nothing
        return 7

    assert await Deadline(LONG_S).run(answer()) == 7


async def test_what_is_too_slow_is_cancelled_and_its_task_goes_on() -> None:
    ended: list[str] = []

    async def slow() -> None:
        try:
            await never()
        finally:
            ended.append("slow")

    with pytest.raises(TimeoutError):
        await Deadline(0.01).run(slow())
    assert ended == ["slow"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_one_after_another_and_many_at_once_each_have_the_whole_time() -> None:
    deadline = Deadline(0.01)

    async def twice() -> int:
        late = 0
        for _ in range(2):
            try:
                await deadline.run(never())
            except TimeoutError:
                late += 1
        return late

    assert await asyncio.gather(*(twice() for _ in range(5))) == [2] * 5


async def test_what_ends_although_it_was_told_too_late_counts_and_leaves_no_cancellation_behind() -> None:
    async def stubborn() -> str:
        try:
            await never()
        except asyncio.CancelledError:
            return "all the same"
        raise AssertionError

    assert await Deadline(0.01).run(stubborn()) == "all the same"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_passes_through() -> None:
    running = asyncio.create_task(Deadline(LONG_S).run(never()))
    await asyncio.wait({running}, timeout=0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancellation_from_outside_wins_over_one_for_its_time() -> None:
    outer: asyncio.Task[None]

    async def ends_by_both() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            outer.cancel()
            raise

    outer = asyncio.create_task(Deadline(0.01).run(ends_by_both()))
    with pytest.raises(asyncio.CancelledError):
        await outer


async def test_an_error_stays_what_it_is() -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Deadline(LONG_S).run(broken())
