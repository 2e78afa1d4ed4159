"""How long attempts may keep the event loop in one go: enrichers that wait for nothing would keep it for all items.

Meanwhile no answer of the database would be read, and no claim or commit sent.
"""

from __future__ import annotations

import asyncio
from math import inf

SLICE_S = 0.004
"""Some three hundred attempts that call nobody; a commit of as many results takes twice as long."""


class Slices:
    """Shared by the places of a runner. Each turn of the event loop has one slice, from the first question in it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._until_s = loop, inf

    def is_over(self) -> bool:
        """Whether this turn's slice has passed: then let the event loop turn before the next attempt."""
        now_s = self._loop.time()
        if self._until_s == inf:
            self._until_s = now_s + SLICE_S
            self._loop.call_soon(self._end)
        return now_s > self._until_s

    def _end(self) -> None:
        self._until_s = inf
