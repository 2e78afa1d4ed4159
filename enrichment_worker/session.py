"""This worker's session: one row that says it lives. Items name their session; one that stops beating loses them.

A worker that was taken for dead, frozen or cut off for too long, begins a new session: what it had is somebody else's
by now, and its results would be dropped by their versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from enrichment_worker.pulse import Numbers, Pulse
from shared.db.sessions import beat, close_session, open_session
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe

log = logging.getLogger(__name__)


class Session(Part):
    """Opens a session, has it beat, opens another when it is lost, and closes it at the end."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        pinned: Pinned,
        pulse_pinned: Callable[[], Pinned],
        on_lost: Callable[[], None],
        host: str,
        version: str,
        beat_s: float,
        expiry_s: float = 30.0,
        probe: Probe | None = None,
    ) -> None:
        """`pulse_pinned` makes the connection that beats; `on_lost` is called when what this worker holds is lost."""
        super().__init__()
        self._lanes, self._pinned, self._pulse_pinned, self._on_lost = lanes, pinned, pulse_pinned, on_lost
        self._host, self._version = host, version
        self._beat_s, self._expiry_s, self._probe = beat_s, expiry_s, probe or Probe()
        self._id: int | None = None
        self._over: asyncio.Future[None] | None = None
        self._before = Numbers(0, 0, 0)
        """What earlier sessions of this process did."""

    @property
    def id(self) -> int:
        """The session's number, once the part is ready."""
        assert self._id is not None, "not started"
        return self._id

    async def stop(self) -> None:
        """Closes the session."""
        self._end()
        await super().stop()

    async def _run(self) -> None:
        while await self._open():
            self.ready()
            self._over = asyncio.get_running_loop().create_future()
            pulse = Pulse(
                self.id,
                pinned=self._pulse_pinned,
                beat_s=self._beat_s,
                blocked_max_s=max(lane.workflow.limits.timeout_s for lane in self._lanes) + self._expiry_s,
                numbers=self._numbers,
                heard=self._hear,
            )
            pulse.start()
            try:
                if not self.stopping.is_set():
                    await self._over
            finally:
                await pulse.stop()
        await self._close()

    async def _open(self) -> bool:
        """Opens a session, as soon as there is a database. Returns False when the worker stops first."""
        resources = [lane.workflow.resource for lane in self._lanes]
        while not self.stopping.is_set():
            try:
                async with self._pinned.transaction() as connection:
                    opened = await open_session(
                        connection, host=self._host, version=self._version, resources=resources, expiry_s=self._expiry_s
                    )
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)
            else:
                self._id, self._before = opened, Numbers(0, *self._totals())
                return True
        return False

    def _hear(self, news: bool | Exception) -> None:
        """What came of a beat."""
        if isinstance(news, Exception):
            self._end(news)
        elif news:
            self._probe.mark("beat")
        else:
            log.warning("session %s was taken for dead; its items are rescued, this worker begins a new one", self.id)
            self._on_lost()
            self._probe.mark("session lost", self.id)
            self._end()

    def _end(self, error: Exception | None = None) -> None:
        if self._over is not None and not self._over.done():
            if error is not None:
                self._over.set_exception(error)
            else:
                self._over.set_result(None)

    def _totals(self) -> tuple[int, int]:
        return sum(lane.done for lane in self._lanes), sum(lane.failed for lane in self._lanes)

    def _numbers(self) -> Numbers:
        done, failed = self._totals()
        in_flight = sum(len(lane.held) for lane in self._lanes)
        return Numbers(in_flight, done - self._before.done, failed - self._before.failed)

    async def _close(self) -> None:
        if self._id is None:
            return
        try:
            async with self._pinned.transaction() as connection:
                await beat(connection, self.id, **self._numbers()._asdict())  # its last numbers
                await close_session(connection, self.id)
        except DatabaseUnavailable:
            log.warning("session %s could not be closed; it will expire", self.id)
