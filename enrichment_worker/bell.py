"""Something may have happened: a wait that a part of the same process can cut short."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung by anybody, waited for by one part. A ring while nobody waits ends the next wait at once."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Ends the wait that is under way, or the next one."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Returns when rung, or after so many seconds; says whether it was rung."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            pass
        was_rung = self._rung.is_set()
        self._rung.clear()
        return was_rung
