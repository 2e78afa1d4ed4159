"""What libpq is asked for directly, where somebody waits for it: the answer to a statement, and notifications.

A cursor of the driver takes many steps, and after a sleep none of them is in the processor's caches. Without one, an
item in an idle worker and an event in a service wait a quarter less (docs/performance/drain.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from shared.db.engine import Connection

CANCEL_S = 5.0
"""So long may it take to tell the server that nobody waits any more."""


async def answer(connection: Connection) -> list[PGresult]:
    """The results of what was just sent over `connection.pgconn`, one for each statement.

    Nobody else may use the connection meanwhile. Whoever stops waiting has the server stop, and loses the connection.

    Raises:
        psycopg.Error: a statement failed, or the connection is lost.
    """
    libpq = connection.pgconn
    results: list[PGresult] = []

    def take() -> bool:
        while not libpq.is_busy():
            if (result := libpq.get_result()) is None:
                return True
            results.append(result)
        return False

    await _receive(connection, take, results)
    if failure := _failure(results):
        raise failure
    return results


async def answer_before_commit(connection: Connection, tell: Callable[[PGresult], None]) -> None:
    """The same of one statement that was sent in a pipeline with a flush behind it; returns once it is committed.

    `tell` is given its result before, by the event loop at once: no task has to run for that.

    Raises:
        psycopg.Error: it failed, or its commit did, or the connection is lost, and it may be committed all the same.
    """
    libpq = connection.pgconn
    results: list[PGresult] = []

    def take() -> bool:
        while not libpq.is_busy():
            result = libpq.get_result()
            if result is None:  # the statement has no more, or the connection has none any more
                if libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection is lost")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return True
            else:
                results.append(result)
                if result.status == ExecStatus.TUPLES_OK:
                    tell(result)
        return False

    try:
        await _receive(connection, take, results)
        libpq.exit_pipeline_mode()
    except BaseException:
        await connection.close()  # or the next one would find it in the pipeline
        raise
    if failure := _failure(results):
        raise failure


async def _receive(connection: Connection, take: Callable[[], bool], results: Sequence[PGresult]) -> None:
    """Has `take` take `results` out of libpq as they come, until it says that it has all."""
    libpq = connection.pgconn

    def read() -> bool:
        libpq.consume_input()
        return take()

    def make_room() -> bool:
        libpq.consume_input()  # the server may not read on before its own words are read
        return True

    try:
        while libpq.flush():
            await _ready(libpq.socket, make_room, writing=True)
        if not take():
            await _ready(libpq.socket, read)
    except asyncio.CancelledError:
        try:
            with suppress(psycopg.Error):
                await connection.cancel_safe(timeout=CANCEL_S)
        finally:
            await connection.close()  # or the next one would take this answer for its own
        raise
    except psycopg.Error as error:
        raise _failure(results) or error from None  # before it went, the server has said why


def _failure(results: Sequence[PGresult]) -> psycopg.Error | None:
    failed = next((result for result in results if result.status == ExecStatus.FATAL_ERROR), None)
    return None if failed is None else error_from_result(failed)


class Adapter:
    """Turns values into what is sent, and results into rows, as the cursors of a connection do."""

    def __init__(self, connection: Connection) -> None:
        # Not of the connection itself: that would be kept alive by those who have this only for as long as it lives.
        self._transformer: abc.Transformer = Transformer(connection.adapters)

    def dump(self, values: Sequence[Any]) -> tuple[Sequence[abc.Buffer | None], tuple[int, ...], Sequence[int]]:
        """The parameters of a statement, their types, and their formats."""
        sent = self._transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        return sent, self._transformer.types or (), self._transformer.formats or ()

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result."""
        self._transformer.set_pgresult(result)
        rows = self._transformer.load_rows(0, result.ntuples, tuple)
        self._transformer.set_pgresult(None)  # or it would be kept until the next one
        return rows


class Ear:
    """Hears what is said on the channels that a connection listens to."""

    def __init__(
        self, connection: Connection, tell: Callable[[str, str], None] = lambda channel, payload: None
    ) -> None:
        """`tell` is called by the event loop at once, before any task gets to run."""
        self._connection, self._tell = connection, tell
        self._has_heard = False
        # The driver takes what comes with the answer to a statement of its own.
        connection.add_notify_handler(lambda notice: self._hear(notice.channel, notice.payload))

    async def hear(self, seconds: float) -> bool:
        """Returns once something was said, or after so many seconds; says whether it was.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        self._take()
        if not self._has_heard:
            await _ready(self._connection.pgconn.socket, self._read, seconds=seconds)
        heard, self._has_heard = self._has_heard, False
        return heard

    def _read(self) -> bool:
        self._connection.pgconn.consume_input()
        self._take()
        return True

    def _take(self) -> None:
        while (notice := self._connection.pgconn.notifies()) is not None:
            self._hear(notice.relname.decode(), notice.extra.decode())

    def _hear(self, channel: str, payload: str) -> None:
        self._has_heard = True
        self._tell(channel, payload)


async def _ready(socket: int, read: Callable[[], bool], *, seconds: float | None = None, writing: bool = False) -> None:
    """Returns once `read` says that it has all, or, `writing`, there is room to write; after `seconds` at most.

    The event loop itself calls `read` for each piece that comes: to wake the task each time would cost more.
    """
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    is_watched = True

    def end(error: Exception | None = None) -> None:
        if ready.done():
            return
        if error is None:
            ready.set_result(None)
        else:
            ready.set_exception(error)

    def run() -> None:
        try:
            if not ready.done() and read():
                end()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            ignore()  # libpq may have closed the socket, and another one may get its number
            end(error)

    def ignore() -> None:
        nonlocal is_watched
        if is_watched:
            is_watched = False
            with suppress(OSError):  # asyncio would go on to watch for room to write, of a socket that is closed
                loop.remove_reader(socket)
            if writing:
                loop.remove_writer(socket)

    loop.add_reader(socket, run)
    if writing:
        loop.add_writer(socket, end)
    timer = None if seconds is None else loop.call_later(seconds, end)
    try:
        await ready
    finally:
        ignore()
        if timer is not None:
            timer.cancel()
