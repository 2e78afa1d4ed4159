"""The pool of a process and the edges of its transactions.

SQLAlchemy owns the pool and the composed reads; the hot statements run on the psycopg connection underneath, in the
same transaction. Whoever runs a statement is given its connection, in a transaction or where each statement is one, and
never commits.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from select import POLLIN, poll
from typing import Any, Self, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import event, exc
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection as CoreConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import shared.db.times  # noqa: F401 - registers how times are read
from shared.db.errors import changed_table, database_errors, is_outdated
from shared.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

Connection: TypeAlias = psycopg.AsyncConnection[Any]
"""A psycopg connection."""

PORT_MAX = 65_535
SESSION_OPTIONS = (
    "-c plan_cache_mode=force_custom_plan -c jit=off -c random_page_cost=1.1 -c work_mem=32MB -c timezone=UTC "
    "-c datestyle=ISO -c intervalstyle=postgres -c client_encoding=UTF8 "
    "-c default_transaction_isolation=read\\ committed -c array_nulls=on -c idle_session_timeout=0"
)
"""A generic plan guesses ten rows for an array of any length; a custom plan sees its true length. Rows are found by key
as on a disk without moving parts, not by reading the whole table; what judging 100,000 rows needs stays in memory.
What a database or a role may have set otherwise is set back: how texts, times and arrays are written; the isolation, so
that a statement which waited for a row sees the row as it then is, instead of failing; and the end of idle sessions,
for a connection that listens may say nothing for long."""

KEEPALIVE_OPTIONS = "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3"
"""For connections that hold locks: when their machine is gone, the server frees the locks within seconds."""
REACH: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""After how long a server is given up that has vanished without a word, or the network with it: libpq's own names, the
last one in milliseconds. A server that hangs while its machine still answers is bounded by each caller."""

PLANNED_ONCE = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
"""One plan for every call: by index, also where it is made while the table is still empty."""


class Database:
    """One process's pool. `async with Database(...)`; leaving closes it."""

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        pool_timeout_s: float = 10.0,
        prepare_threshold: int | None = 5,
        idle_in_transaction_s: float = 60.0,
        lock_s: float = 1.0,
        name: str = "curation",
    ) -> None:
        """A pool that makes its connections when they are first needed.

        Args:
            url: the address.
            pool_size: connections at most.
            pool_timeout_s: how long to wait for a free one.
            prepare_threshold: runs of a statement before it is prepared on the server; None for never.
            idle_in_transaction_s: after so long without a statement the server ends a transaction and its connection:
                one that has written holds back every stream.
            lock_s: for so long a statement of many callers waits for what others hold.
            name: what the server calls them.
        """
        self.url = driver_url(url)
        """A libpq address, for connections of one's own (LISTEN, the worker's pinned ones)."""
        idle = f"-c idle_in_transaction_session_timeout={int(idle_in_transaction_s * 1000)}"

        def engine(size: int, more_options: str = "", **options: Any) -> AsyncEngine:
            made = create_async_engine(
                make_url(self.url).set(drivername="postgresql+psycopg"),
                pool_size=size,
                max_overflow=0,
                pool_timeout=pool_timeout_s,
                connect_args={
                    "application_name": name,
                    "options": session_options(self.url, idle, more_options),
                    "prepare_threshold": prepare_threshold,
                    **REACH,
                },
                **options,
            )
            event.listen(made.sync_engine, "checkout", _refuse_if_cut)
            return made

        self._engine = engine(pool_size)
        autocommit: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}
        self._planned_once = engine(max(1, pool_size // 2), PLANNED_ONCE, **autocommit)
        self._of_many = engine(pool_size, f"{PLANNED_ONCE} -c lock_timeout={int(lock_s * 1000)}", **autocommit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._engine.dispose()
        await self._planned_once.dispose()
        await self._of_many.dispose()

    @asynccontextmanager
    async def core(self, *, isolation: str | None = None) -> AsyncIterator[CoreConnection]:
        """A SQLAlchemy connection in a transaction: commits on leaving, rolls back on an error.

        Args:
            isolation: e.g. `REPEATABLE READ`; the server's default (READ COMMITTED) when None.
        Raises:
            DatabaseUnavailable: no server, or no connection free in time.
        """
        async with _connected(self._engine) as connection:
            if isolation is not None:
                connection = await connection.execution_options(isolation_level=isolation)
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def autocommit(self, *, planned_once: bool = False) -> AsyncIterator[Connection]:
        """The psycopg connection without a transaction: each statement is one, and takes one round trip.

        Args:
            planned_once: for statements on a few rows, where planning would take longer than running; half as many
                connections more are kept for them.

        Raises:
            DatabaseUnavailable: as `core`.
        """
        async with _connected(self._planned_once if planned_once else self._engine) as connection:
            if not planned_once:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield await driver_connection(connection)

    @asynccontextmanager
    async def autocommit_of_many(self) -> AsyncIterator[Connection]:
        """The same for statements that many callers wait for, who must not wait for the row of one of them.

        No other statement takes these connections, planned once too; a lock that is not had in time is an error
        (`psycopg.errors.LockNotAvailable`, as the cause).

        Raises:
            DatabaseUnavailable: as `core`.
        """
        async with _connected(self._of_many) as connection:
            yield await driver_connection(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """The same as `core`, but the psycopg connection, which the hot statements take."""
        async with self.core() as connection:
            yield await driver_connection(connection)


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[CoreConnection]:
    async with AsyncExitStack() as stack:
        stack.enter_context(database_errors())
        try:
            connection = await stack.enter_async_context(engine.connect())
        except exc.InvalidRequestError as error:  # what the pool raises when its new connections are cut as well
            raise DatabaseUnavailable("the database ends its connections") from error
        try:
            yield connection
        except (psycopg.Error, exc.DBAPIError) as error:
            if is_outdated(error):
                await connection.invalidate()
            if (lacking := changed_table(error)) is None:
                raise
            log.error("a table is not as it was at the start: %s", lacking)
            raise DatabaseUnavailable(f"a table was changed meanwhile: {lacking}") from error


def _refuse_if_cut(driver: Any, *_: object) -> None:
    """Has the pool connect anew where the server ended a connection that waited: its socket then has something to read.

    A statement to find out would be one more round trip for each use.
    """
    if driver.driver_connection.closed or _has_something_to_read(driver.driver_connection.fileno()):
        raise exc.DisconnectionError("the server ended this connection")


def _has_something_to_read(file: int) -> bool:
    asked = poll()  # unlike `select`, it takes files above the 1,023rd: a service has one for each client
    asked.register(file, POLLIN)
    return bool(asked.poll(0))


async def driver_connection(connection: CoreConnection) -> Connection:
    """The psycopg connection under a SQLAlchemy one, in the same transaction."""
    raw: Connection | None = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    return raw


async def connect(url: str, *, name: str, autocommit: bool = True, options: str = "") -> Connection:
    """One connection outside the pool, for LISTEN or to be pinned. Raises `DatabaseUnavailable`.

    Args:
        url: the address.
        name: what the server calls it.
        autocommit: each statement is a transaction, unless the caller opens one.
        options: more settings of the session, `-c name=value`.
    """
    with database_errors():
        return await psycopg.AsyncConnection.connect(
            driver_url(url),
            autocommit=autocommit,
            application_name=name,
            options=session_options(url, options),
            **REACH,
        )


def session_options(url: str, *more: str) -> str:
    """The `options` of a connection: what its address asks for, e.g. a `search_path`, and what all sessions need."""
    asked = str(conninfo_to_dict(driver_url(url)).get("options") or "")
    return " ".join([asked, SESSION_OPTIONS, *more]).rstrip()  # PgBouncer refuses a blank at the end


def driver_url(url: str) -> str:
    """The address as libpq takes it, whether it came as `postgresql://` or in SQLAlchemy's form.

    Raises:
        ValueError: it is no address of PostgreSQL; the message does not repeat it.
    """
    try:
        parsed = make_url(url)
        plain = parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        # libpq looks at ports only when it connects: who starts would wait for a database that cannot come.
        ports = [int(port) for port in str(conninfo_to_dict(plain).get("port", "")).split(",") if port]
        fits = parsed.get_backend_name() in ("postgresql", "postgres") and all(0 < port <= PORT_MAX for port in ports)
    except (exc.ArgumentError, ValueError, psycopg.ProgrammingError):
        fits = False
    if not fits:
        raise ValueError("is no address of PostgreSQL, `postgresql://user:password@host:port/database`")
    return plain
