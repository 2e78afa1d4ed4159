"""Keeps the partitions of the event log: makes tomorrow's, drops those beyond the retention, and then old batches.

Every replica tries; an advisory lock lets one at a time do it. Nothing is lost while nobody does. The one that makes
tomorrow's, once a day, also looks through the sources for items that are with a worker and in no claim, which nobody
would rescue, drops groups of failures that nothing has been in for as long as batches are kept, and looks whether old
batches are still open because rows of theirs are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import psycopg

from shared.db.engine import REACH, driver_url, session_options
from shared.db.errors import in_a_line
from shared.db.failure_groups import drop_failure_groups
from shared.db.gone import count_gone
from shared.db.in_hand import note_claims
from shared.db.old_batches import drop_batches
from shared.db.partitions import keep_partitions
from shared.lifecycle import Part
from shared.thread import in_own_thread
from shared.workflow import Workflow

log = logging.getLogger(__name__)

INTERVAL_S = 600.0


class LogKeeper(Part):
    """Looks after the partitions, and after old batches, every ten minutes."""

    def __init__(
        self, *, url: str, retention_days: int, batch_retention_days: int | None, workflows: Iterable[Workflow]
    ) -> None:
        """The log is kept for `retention_days`; batches and failures for ever without `batch_retention_days`."""
        super().__init__()
        self._url, self._workflows = driver_url(url), tuple(workflows)
        self._retention_days, self._batch_retention_days = retention_days, batch_retention_days

    async def _run(self) -> None:
        self.ready()
        while not self.stopping.is_set():
            try:
                # In a thread of its own: a server that never answers must not keep the process from ending.
                await in_own_thread(self._keep, name="log keeper")
            except psycopg.Error as error:
                log.warning("the log's partitions, or old batches, are left for later: %s", in_a_line(error))
            await self.pause(INTERVAL_S)

    def _keep(self) -> None:
        options = session_options(self._url)
        with psycopg.connect(self._url, application_name="curation log keeper", options=options, **REACH) as connection:
            kept = keep_partitions(connection, retention_days=self._retention_days)
            connection.commit()
            if kept.created or kept.dropped:
                log.info("partitions of the log: %s created, %s dropped", kept.created, kept.dropped)
            for workflow in self._workflows if kept.created else ():
                try:
                    self._look_through(connection, workflow)
                except psycopg.Error as error:
                    connection.rollback()
                    log.warning("%s is not looked through before tomorrow: %s", workflow.resource, in_a_line(error))
            if self._batch_retention_days is not None:
                self._drop_batches(connection, self._batch_retention_days, look=bool(kept.created))

    def _look_through(self, connection: psycopg.Connection[Any], workflow: Workflow) -> None:
        if noted := note_claims(connection, workflow):
            log.warning("%s: %s items are in processing and in no claim", workflow.resource, noted)
        connection.commit()
        if (days := self._batch_retention_days) is not None:
            dropped = drop_failure_groups(connection, workflow, retention_days=days)
            connection.commit()
            if dropped:
                log.info("%s: %s old groups of failures were dropped", workflow.resource, dropped)

    def _drop_batches(self, connection: psycopg.Connection[Any], retention_days: int, *, look: bool) -> None:
        count = 0
        through: int | None = 0
        while through is not None and not self.stopping.is_set():
            dropped = drop_batches(connection, retention_days=retention_days, after=through)
            connection.commit()
            count, through = count + dropped.count, dropped.through
            for workflow in self._workflows if look and dropped.kept else ():
                count_gone(connection, workflow, dropped.kept)
                connection.commit()
        if count:
            log.info("%s old batches were dropped", count)
