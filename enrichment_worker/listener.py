"""Hears of new work at once. Nothing depends on it: the claimers poll besides, and carry on when it is deaf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from enrichment_worker.lane import Lane
from shared.db.curate import TAKEN_CHANNEL
from shared.db.engine import Connection, connect
from shared.db.errors import in_a_line
from shared.db.libpq import Ear
from shared.db.workflow_states import STATE_CHANNEL
from shared.db.writer import CHANNEL
from shared.errors import DatabaseUnavailable
from shared.lifecycle import Part
from shared.probe import Probe
from shared.waits import backoff

log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""After so long without a notification the connection is tried: a broken one may just be silent. And so long it has for
an answer."""


class Listener(Part):
    """One LISTEN connection for all lanes of the process."""

    def __init__(
        self,
        *,
        lanes: Sequence[Lane],
        on_state: Callable[[], None],
        on_taken: Callable[[], None],
        url: str,
        random: Callable[[], float],
        probe: Probe | None = None,
    ) -> None:
        """`on_state` is called when a workflow was paused or resumed, `on_taken` when users took items from workers."""
        super().__init__()
        resources = [lane.workflow.resource for lane in lanes]
        self._calls: dict[tuple[str, str], Callable[[], None]] = {
            **{(CHANNEL, lane.workflow.resource): lane.work.ring for lane in lanes},
            **{(STATE_CHANNEL, resource): on_state for resource in resources},
            **{(TAKEN_CHANNEL, resource): on_taken for resource in resources},
        }
        self._url, self._random, self._probe = url, random, probe or Probe()
        self._failures = 0

    async def _run(self) -> None:
        self.ready()
        await self.work_until_stopped(self._hear())

    async def _hear(self) -> None:
        while True:
            try:
                await self._listen()
            except (DatabaseUnavailable, psycopg.Error, TimeoutError) as error:
                log.warning("deaf for now, polling goes on: %s", in_a_line(error))
            await self.pause(backoff(self._failures, self._random))
            self._failures += 1

    async def _listen(self) -> None:
        connection = await connect(self._url, name="curation worker, listening")
        try:
            for channel in (CHANNEL, STATE_CHANNEL, TAKEN_CHANNEL):
                await _ask(connection, sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            self._failures = 0
            for missed in self._calls.values():
                missed()  # what was said while deaf
            self._probe.mark("listening")
            ear = Ear(connection, self._call)
            while True:
                while await ear.hear(SILENCE_S):
                    pass
                await _ask(connection, sql.SQL("SELECT 1"))
        finally:
            await connection.close()

    def _call(self, channel: str, payload: str) -> None:
        if (call := self._calls.get((channel, payload))) is not None:
            call()
        self._probe.mark("heard")


async def _ask(connection: Connection, statement: sql.SQL | sql.Composed) -> None:
    async with asyncio.timeout(SILENCE_S):
        await connection.execute(statement)
