"""A claim that is ready before there is anything to claim, and is sent by whoever rings: no task has to run for that.

After a sleep none of the worker's code is in the processor's caches; so what can be done before the item comes, is.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from enrichment_worker.bell import Bell
from enrichment_worker.pinned import Pinned
from shared.db.claim import Claimed, ReadyClaim


class Armed:
    """One such claim. Others may use its connection while it waits; it is not sent then."""

    def __init__(self, ready: ReadyClaim, pinned: Pinned, may_be_sent: Callable[[], bool]) -> None:
        """`may_be_sent` is asked when it is rung for; `pinned` has the connection of the claim."""
        self._ready, self._pinned, self._may_be_sent = ready, pinned, may_be_sent
        self._is_sent = False
        self._error: psycopg.Error | None = None

    async def wait(self, bell: Bell, seconds: float, take: Callable[[Claimed], None]) -> bool:
        """Waits for the bell, so many seconds at most. Says whether it was sent; then it is committed, and `take` was
        given what it got before that, by the event loop: its items begin while the commit waits for the disk.

        Raises:
            DatabaseUnavailable: the connection is lost. Whether it got anything is then unknown, and if `take` was
                called, whether it was committed.
            psycopg.Error: the source does not allow it, maybe at the commit, when `take` was called.
        """
        try:
            await bell.wait(seconds, self._send)
        except BaseException:
            if self._is_sent:
                await self._pinned.give_up()
            raise
        if self._is_sent:
            async with self._pinned.autocommit(is_seized=True):
                if self._error is not None:
                    raise self._error
                await self._ready.tell(take)
        return self._is_sent

    def _send(self) -> bool:
        if not self._may_be_sent() or not self._pinned.seize(self._ready.bound.connection):
            return False
        self._is_sent = True
        try:
            self._ready.bound.send_ahead()
        except psycopg.Error as error:
            self._error = error
        return True
