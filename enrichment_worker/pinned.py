"""One connection of a part's own, kept for its life and made anew when PostgreSQL was away.

Claims have one, commits of results two, and all the rest another: on a single one they would wait for one another,
which halves the worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Self

import psycopg

from enrichment_worker.refusal import is_refusal
from shared.db.engine import KEEPALIVE_OPTIONS, Connection, connect
from shared.db.errors import changed_table, in_a_line, is_outdated
from shared.errors import DatabaseUnavailable
from shared.waits import backoff

log = logging.getLogger(__name__)

QUIET_S = 30.0
"""For so long what keeps the database away is not logged again: a right or a table may be gone for hours."""


class Pinned:
    """A connection that outlives its server. `async with Pinned(...)`; leaving closes it."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        random: Callable[[], float],
        timeout_s: float,
        prepare_threshold: int | None = 5,
        options: str = "",
    ) -> None:
        """A connection that is made when it is first needed.

        Args:
            url: the address.
            name: what the server calls it.
            random: gives a number from 0 to 1, for the jitter.
            timeout_s: for the connection, and for each transaction. The server ends those of a frozen worker by the
                same measure, so that it holds no locks.
            prepare_threshold: runs of a statement before it is prepared on the server; None for never.
            options: more settings of its session, `-c name=value`.
        """
        self._url, self._name, self._random = url, name, random
        self._timeout_s, self._prepare_threshold, self._options = timeout_s, prepare_threshold, options
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._failures = 0
        self._logged_s: dict[str, float] = {}
        """When what was logged lately was, by its text."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next transaction, after one that found no database."""
        return backoff(self._failures, self._random)

    async def warm(self, run: Callable[[Connection], Awaitable[object]]) -> None:
        """Runs something that changes nothing: what comes next finds a connection, and a server that knows the tables.

        It may fail: whoever needs the connection then will be told.
        """
        with suppress(DatabaseUnavailable, psycopg.Error):
            async with self.autocommit() as connection:
                await run(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The connection in a transaction, for one part at a time: commits on leaving, rolls back on an error.

        Raises:
            DatabaseUnavailable: no server, a lost connection, a deadlock, or no answer in time. Whether a commit
                came through is then unknown.
        """
        async with self.autocommit() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def autocommit(self, *, is_seized: bool = False) -> AsyncIterator[Connection]:
        """The connection without a transaction: each statement is one, and takes one round trip.

        `is_seized`: the caller has it already.

        Raises:
            DatabaseUnavailable: as `transaction`.
        """
        if not is_seized:
            await self._lock.acquire()
        try:
            async with asyncio.timeout(self._timeout_s):
                yield await self._connected()
        except (TimeoutError, DatabaseUnavailable, psycopg.Error, ConnectionError) as error:
            if not self._is_away(error):
                raise
            await self._lost(error)
            raise DatabaseUnavailable("the database cannot be reached") from error
        else:
            self._failures = 0
        finally:
            self._lock.release()

    def seize(self, connection: Connection) -> bool:
        """Takes the connection without waiting, if it is still this one and nobody uses it; says whether it did.

        Whoever has seized it goes on with `autocommit(is_seized=True)`, or calls `give_up`.
        """
        if self._connection is not connection or connection.closed:
            return False
        acquiring = self._lock.acquire()
        try:
            acquiring.send(None)
        except StopIteration:
            return True  # a lock that is free is had without waiting
        acquiring.close()
        return False

    async def give_up(self) -> None:
        """Loses the connection that was seized: nobody reads what was sent over it."""
        try:
            await self._drop()
        finally:
            self._lock.release()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            timeout_ms = int(self._timeout_s * 1000)
            bounds = f"-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout={timeout_ms}"
            options = f"{bounds} {KEEPALIVE_OPTIONS} {self._options}"
            self._connection = await connect(self._url, name=self._name, options=options)
            self._connection.prepare_threshold = self._prepare_threshold
        return self._connection

    def _is_away(self, error: Exception) -> bool:
        if not isinstance(error, psycopg.Error):
            return True
        if self._connection is None or self._connection.closed:
            return True
        if is_outdated(error) or changed_table(error) is not None:
            return True
        return isinstance(error, psycopg.OperationalError) and not is_refusal(error)

    async def _lost(self, error: Exception) -> None:
        self._failures += 1
        why = f"no answer in {self._timeout_s:g} s" if isinstance(error, TimeoutError) else in_a_line(error)
        now_s = asyncio.get_running_loop().time()
        self._logged_s = {said: at_s for said, at_s in self._logged_s.items() if now_s - at_s < QUIET_S}
        if why not in self._logged_s:
            log.warning("%s: no database (%s)", self._name, why)
            self._logged_s[why] = now_s
        await self._drop()

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
