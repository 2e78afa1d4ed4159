"""This worker's session: one row that says it lives. Items name their session; one that stops beating loses them.

A worker whose session was taken for dead must not go on: its items are somebody else's by now. It ends loudly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from enrichment_worker.lane import Lane
from enrichment_worker.pinned import Pinned
from shared.db.engine import Connection
from shared.db.sessions import beat, close_session, open_session
from shared.errors import DatabaseUnavailable, ProcessError
from shared.lifecycle import Part
from shared.probe import Probe

log = logging.getLogger(__name__)


class SessionLost(ProcessError):
    """Another worker took this one for dead and rescued its items."""

    reason = "SESSION_LOST"


class Session(Part):
    """Opens the session, beats, and closes it at the end."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        pinned: Pinned,
        host: str,
        version: str,
        beat_s: float,
        expiry_s: float = 30.0,
        probe: Probe | None = None,
    ) -> None:
        super().__init__()
        self._lanes, self._pinned, self._host, self._version = lanes, pinned, host, version
        self._beat_s, self._expiry_s, self._probe = beat_s, expiry_s, probe or Probe()
        self._id: int | None = None

    @property
    def id(self) -> int:
        """The session's number, once the part is ready."""
        assert self._id is not None, "not started"
        return self._id

    async def _run(self) -> None:
        while not self.stopping.is_set() and self._id is None:
            try:
                await self._open()
            except DatabaseUnavailable:
                await self.pause(self._pinned.backoff_s)
        self.ready()
        wait_s = self._beat_s
        while not self.stopping.is_set():
            await self.pause(wait_s)
            try:
                await self._beat()
                wait_s = self._beat_s
            except DatabaseUnavailable:
                wait_s = self._pinned.backoff_s
        await self._close()

    async def _open(self) -> None:
        resources = [lane.workflow.resource for lane in self._lanes]
        async with self._pinned.transaction() as connection:
            opened = await open_session(
                connection, host=self._host, version=self._version, resources=resources, expiry_s=self._expiry_s
            )
        self._id = opened

    async def _beat(self) -> None:
        async with self._pinned.transaction() as connection:
            alive = await self._say(connection)
        if not alive:
            raise SessionLost(f"session {self.id} was taken for dead; its items were rescued")
        self._probe.mark("beat")

    async def _say(self, connection: Connection) -> bool:
        return await beat(
            connection,
            self.id,
            in_flight=sum(len(lane.held) for lane in self._lanes),
            done=sum(lane.done for lane in self._lanes),
            failed=sum(lane.failed for lane in self._lanes),
        )

    async def _close(self) -> None:
        if self._id is None:
            return
        try:
            async with self._pinned.transaction() as connection:
                await self._say(connection)  # its last numbers
                await close_session(connection, self.id)
        except DatabaseUnavailable:
            log.warning("session %s could not be closed; it will expire", self.id)
