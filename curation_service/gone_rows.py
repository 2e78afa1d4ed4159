"""Looks for rows that are gone, so that no batch that somebody waits for stays open for their sake.

Which batches: those whose progress somebody was told within the last minute, and that were not done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial

import psycopg

from shared.db.batches import Progress
from shared.db.engine import REACH, driver_url, session_options
from shared.db.errors import in_a_line
from shared.db.gone import count_gone
from shared.lifecycle import Part
from shared.thread import in_own_thread
from shared.workflow import Workflow

log = logging.getLogger(__name__)

INTERVAL_S = 60.0
SHARE = 0.05
"""A look reads all that is queued; looks take no more of the time than this."""


class GoneRows(Part):
    """The looks of this process."""

    def __init__(self, *, url: str, workflows: Iterable[Workflow]) -> None:
        super().__init__()
        self._url, self._workflows = driver_url(url), tuple(workflows)
        self._open: set[int] = set()

    def told(self, batch: int, progress: Progress) -> None:
        """Somebody was told how far a batch is."""
        if not progress.done:
            self._open.add(batch)

    async def _run(self) -> None:
        self.ready()
        clock = asyncio.get_running_loop().time
        rest_s = INTERVAL_S
        while not self.stopping.is_set():
            await self.pause(rest_s)
            began_s = clock()
            await self._look()
            rest_s = max(INTERVAL_S, (clock() - began_s) / SHARE)

    async def _look(self) -> None:
        batches, self._open = self._open, set()
        for workflow in self._workflows if batches else ():
            if self.stopping.is_set():
                return
            try:
                # A server that says nothing keeps no process from ending.
                await in_own_thread(partial(self._count, workflow, sorted(batches)), name="gone rows")
            except psycopg.Error as error:
                log.warning("%s: whether rows are gone is left for later: %s", workflow.resource, in_a_line(error))

    def _count(self, workflow: Workflow, batches: Sequence[int]) -> None:
        options = session_options(self._url)
        with psycopg.connect(self._url, application_name="curation gone rows", options=options, **REACH) as connection:
            count = count_gone(connection, workflow, batches)
        if count:
            log.info("%s: rows of %s open batches are gone", workflow.resource, count)
