"""The tail of a replica that leaves PostgreSQL alone: another reads the log and passes it on over NATS.

Positions are those of the log, so a token is good at every replica, with NATS or without. Readings follow one another
without a gap; where there is one (the stream was away for longer than it reaches back, or another version wrote what
cannot be read), the table has what is missing.
"""

from __future__ import annotations

import logging
import time
from contextlib import aclosing
from datetime import datetime

from curation_service.backbone import SILENCE_S, connected
from curation_service.readings import Relayed
from shared.db.engine import Database
from shared.db.log import Mark, check_contains, log_identity, newest_mark
from shared.db.ring import Reading
from shared.db.tail import ITEMS_MAX, Tail
from shared.errors import BackboneUnavailable, DatabaseUnavailable, LogRewound, TokenExpired

log = logging.getLogger(__name__)


class BackboneTail(Tail):
    """Follows the log as it is relayed."""

    def __init__(self, *, database: Database, nats_url: str, items_max: int = ITEMS_MAX) -> None:
        super().__init__(url=database.url, items_max=items_max)
        self._database, self._nats_url = database, nats_url
        self._since: datetime | None = None
        """The time of the last message, by the clock of NATS."""
        self._heard_s = time.monotonic()
        self._lag_s = 0.0
        self._relay = ""
        self._last: Mark | None = None
        """The mark of the last entry that was passed on, or that the log had at the start."""

    @property
    def lag_s(self) -> float:
        """For how long an open transaction, or the silence of NATS, has held the stream back."""
        silence_s = time.monotonic() - self._heard_s
        return max(self._lag_s, silence_s if silence_s > SILENCE_S else 0.0)

    async def _follow(self) -> None:
        while True:
            try:
                if not self.log_id.int:
                    async with self._database.transaction() as connection:
                        self.log_id = (await log_identity(connection)).id
                async with (
                    connected(self._nats_url, self.log_id, name="curation tail") as backbone,
                    aclosing(backbone.readings(self._since)) as readings,
                ):
                    async for since, reading in readings:
                        self._heard_s, self._lag_s = time.monotonic(), reading.lag_s
                        if reading.relay != self._relay:
                            await self._check()
                        await self._take(reading)
                        self._since, self._relay, self._failures = since, reading.relay, 0
            except LogRewound as error:
                log.error("%s; the service ends, clients start again with a snapshot", error)
                raise
            except (BackboneUnavailable, DatabaseUnavailable) as error:
                log.warning("the log is not heard now: %s", error)
            await self._back_off()

    async def _check(self) -> None:
        """Raises `LogRewound` when another log is read now: a relay that goes on behind the same one looks the same."""
        if self._last is not None:
            async with self._database.transaction() as connection:
                await check_contains(connection, self._last)

    async def _take(self, reading: Relayed) -> None:
        if self._since is None:
            async with self._database.transaction() as connection:
                self._last = await newest_mark(connection, through=reading.through)
            self._begin(reading.through)
            self.ready()
            return
        missing = reading.after if reading.entries is not None else reading.through
        while self.position < missing:
            try:
                self._pass_on(await self._from_table(self.position, missing))
            except TokenExpired:
                # Everybody that far behind misses it too, and is told when reading.
                self._begin(missing)
        if reading.through > self.position:
            new = [entry for entry in reading.entries or () if entry.position > self.position]
            self._pass_on(Reading(new, reading.through))

    def _pass_on(self, reading: Reading) -> None:
        if reading.entries:
            self._last = reading.entries[-1].position, reading.entries[-1].xid
        self._keep(reading)
