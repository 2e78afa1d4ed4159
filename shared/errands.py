"""Work that goes on to its end when whoever asked for it has gone.

A statement that is cancelled half-way costs its connection, and one that is cancelled while its connection is being
made leaves that connection to the garbage collector. Streams are cancelled all the time. So what a stream asks of the
database is done by tasks of this part: the stream stops waiting at once, the errand ends in its own time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.lifecycle import Part

T = TypeVar("T")


class Errands(Part):
    """Runs errands, so many at once, the others in turn; a stop waits for those that have begun."""

    def __init__(self, *, at_once: int) -> None:
        super().__init__()
        self._turns = asyncio.Semaphore(at_once)
        self._tasks: set[asyncio.Task[object]] = set()

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """What the work returns or raises. Cancelled, it leaves at once; the work goes on if it has begun."""
        wanted = True

        async def unless_gone() -> T:
            if not wanted:
                raise asyncio.CancelledError
            return await work()

        task = self.start(unless_gone)
        try:
            await asyncio.wait({task})
        finally:
            wanted = False
        return task.result()

    def start(self, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Has it done, whether or not somebody waits for the task."""

        async def carry_out() -> T:
            async with self._turns:
                return await work()

        task = asyncio.create_task(carry_out())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _run(self) -> None:
        self.ready()
        await self.stopping.wait()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        # Taken note of, or an abandoned errand that failed would be reported as forgotten.
        if not task.cancelled():
            task.exception()
