"""Named moments inside a part that a test can wait for, instead of sleeping and hoping.

A part marks a moment where something has truly happened ("claimed", "flushed"). Nobody listens in production, and
then a mark costs one look at an empty dictionary. A test expects the moment first, acts, and awaits it: no race.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any


class Probe:
    """Where a part marks its moments; made by whoever builds the part, never shared by a module."""

    def __init__(self) -> None:
        self._expected: dict[str, list[_Expected]] = {}

    def mark(self, moment: str, fact: Any = None) -> None:
        """Called by a part: this has just happened, and `fact` is what a test may want to know of it."""
        if not self._expected:
            return
        waiting = self._expected.get(moment, [])
        for expected in list(waiting):
            expected.times_left -= 1
            if not expected.times_left:
                waiting.remove(expected)
                if not expected.fact.done():
                    expected.fact.set_result(fact)

    def expect(self, moment: str, *, times: int = 1) -> asyncio.Future[Any]:
        """Called by a test before it acts: await the answer for the fact of the mark that is `times`-th from now."""
        fact: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._expected.setdefault(moment, []).append(_Expected(times, fact))
        return fact


@dataclass(slots=True, eq=False)
class _Expected:
    """A mark that a test waits for."""

    times_left: int
    fact: asyncio.Future[Any]
