"""Says that the worker lives, from a thread with a connection of its own: an enricher that blocks the event loop must
not cost the worker its items.

And sees to it that a dead one does not look alive: an event loop that has not answered for longer than any attempt may
take is blocked for good, and ends with its process.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from enrichment_worker.pinned import Pinned
from shared.db.sessions import beat, close_session
from shared.errors import DatabaseUnavailable
from shared.thread import in_own_thread

log = logging.getLogger(__name__)

BLOCKED_EXIT = 70
"""The exit code of a process whose event loop is blocked: an internal error, as `sysexits.h` has it."""
JOIN_S = 1.0
"""A stopping pulse waits so long for a beat that is under way."""


class Numbers(NamedTuple):
    """What a beat tells of its worker."""

    in_flight: int
    done: int
    failed: int


class Pulse:
    """The beats of one session. `heard` gets what came of each, in the event loop of whoever starts it."""

    def __init__(
        self,
        session: int,
        *,
        pinned: Callable[[], Pinned],
        beat_s: float,
        blocked_max_s: float,
        numbers: Callable[[], Numbers],
        heard: Callable[[bool | Exception], None],
    ) -> None:
        """A pulse that does not beat yet.

        Args:
            session: whose.
            pinned: makes the connection, in the thread that uses it.
            beat_s: seconds between two beats.
            blocked_max_s: for so long the event loop may not answer.
            numbers: read at each beat, in the thread.
            heard: told whether the session still lives, or what the pulse died of.
        """
        self._session, self._pinned, self._beat_s = session, pinned, beat_s
        self._blocked_max_s, self._numbers, self._heard = blocked_max_s, numbers, heard
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._unanswered_s = 0.0
        self._thread = threading.Thread(target=self._run, name=f"pulse of session {session}", daemon=True)

    def start(self) -> None:
        """Begins to beat."""
        self._thread.start()

    async def stop(self) -> None:
        """Beats no more."""
        self._stopping.set()
        await in_own_thread(partial(self._thread.join, JOIN_S), name="end of a pulse")  # enrichers may use up the pool

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._beat_on())
        except Exception as error:  # noqa: BLE001 - raised by the session, which would else go on without a pulse
            self._tell(self._heard, error)

    async def _beat_on(self) -> None:
        async with self._pinned() as pinned:
            wait_s = self._beat_s
            while not self._stopping.wait(wait_s):
                self._unanswered_s += wait_s
                if self._unanswered_s > self._blocked_max_s:
                    await self._end_process(pinned)
                self._tell(self._answer)
                try:
                    async with pinned.transaction() as connection:
                        is_alive = await beat(connection, self._session, **self._numbers()._asdict())
                except DatabaseUnavailable:
                    wait_s = pinned.backoff_s
                    continue
                wait_s = self._beat_s
                self._tell(self._heard, is_alive)
                if not is_alive:
                    return

    def _answer(self) -> None:
        self._unanswered_s = 0.0

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(callback, *arguments)

    async def _end_process(self, pinned: Pinned) -> None:
        log.critical("the event loop has been blocked for longer than an attempt may take; this process ends here:")
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
        with suppress(DatabaseUnavailable):
            async with pinned.transaction() as connection:
                await close_session(connection, self._session)
        logging.shutdown()
        os._exit(BLOCKED_EXIT)
