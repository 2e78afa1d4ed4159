"""A time limit that many attempts share: one timer for all of them, where `asyncio.timeout` sets and clears one each.

Setting and clearing costs 10 us; an attempt that calls nobody takes as long as that altogether.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


class Deadline:
    """Bounds each of many awaits, of tasks of one event loop, by the same time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until_s: dict[asyncio.Task[Any], float] = {}
        """When the time of each is over. All have equally much, so that who began first is over first."""
        self._expired: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Awaitable[Any], task: asyncio.Task[Any] | None = None) -> Any:
        """Awaits it in the current task. Raises `TimeoutError` when it was cancelled because its time was over."""
        task = task or asyncio.current_task()
        assert task is not None, "in no task"
        assert task not in self._until_s, "a task awaits one thing at a time"
        loop, cancelling = task.get_loop(), task.cancelling()
        self._until_s[task] = until_s = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(until_s, self._expire)
        try:
            return await work
        except asyncio.CancelledError as error:
            if self._took_back(task) and task.cancelling() <= cancelling:
                raise TimeoutError from error
            raise
        finally:
            del self._until_s[task]
            if self._expired:
                self._took_back(task)  # where it ended by itself all the same

    def _took_back(self, task: asyncio.Task[Any]) -> bool:
        """Whether the task's time was over; it is no longer cancelled for that."""
        if task not in self._expired:
            return False
        self._expired.remove(task)
        task.uncancel()
        return True

    def _expire(self) -> None:
        self._timer = None
        for task, until_s in list(self._until_s.items()):
            loop = task.get_loop()
            if until_s > loop.time():
                self._timer = loop.call_at(until_s, self._expire)
                return
            if task not in self._expired:
                self._expired.add(task)
                task.cancel()
