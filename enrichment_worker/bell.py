"""Something may have happened: a wait that a part of the same process can cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """Rung by anybody, waited for by the tasks of one part. A ring while nobody waits ends the next wait at once."""

    def __init__(self) -> None:
        self._is_rung = False
        self._waiting: dict[asyncio.Future[bool], Callable[[], bool] | None] = {}

    @property
    def is_rung(self) -> bool:
        """Whether the next wait ends at once."""
        return self._is_rung

    def ring(self) -> None:
        """Ends the waits that are under way, or the next one."""
        self._is_rung = True
        for waiting, at_once in self._waiting.items():
            if waiting.done():
                continue
            is_done = at_once is not None and at_once()
            waiting.set_result(is_done)
            if is_done:
                self._is_rung = False  # who rings again before the task runs may do so for something newer

    async def wait(self, seconds: float, at_once: Callable[[], bool] | None = None) -> bool:
        """Returns when rung, or after so many seconds; says whether it was rung.

        `at_once` is called by whoever rings, before any task gets to run, unless the bell was rung before this wait. It
        says whether that was all there is to do for this ring: then one that follows, however soon, ends the next wait.
        It must not raise.
        """
        if not self._is_rung:
            # An event and a timeout around it take twice as many steps, for which a new item would wait.
            loop = asyncio.get_running_loop()
            waiting = loop.create_future()
            timer = loop.call_later(seconds, _end, waiting)
            self._waiting[waiting] = at_once
            try:
                if await waiting:
                    return True
            finally:
                del self._waiting[waiting]
                timer.cancel()
        was_rung, self._is_rung = self._is_rung, False
        return was_rung


def _end(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(False)
