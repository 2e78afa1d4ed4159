"""Statements that go through libpq: rows are a cursor's, errors the driver's, and no answer is another one's."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import weakref
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import psycopg
import pytest

from shared.db.engine import Connection, connect
from shared.db.errors import is_outdated
from shared.db.libpq import Ear
from shared.db.prepared import KINDS_MAX, Prepared
from tests.support.eventually import eventually, eventually_async
from tests.support.proxy import Direction, proxied

ECHO = Prepared.of(b"SELECT %(value)s AS value")
SLEEP = Prepared.of(b"SELECT pg_sleep(60)")
NOTHING_PREPARED, ONE = [(0,)], [(1,)]
LARGER_THAN_BUFFERS = 20_000_000
COUNT = "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'curation%'"


@pytest.fixture
async def connection(empty_database_url: str) -> AsyncIterator[Connection]:
    async with await connect(empty_database_url, name="tested") as connection:
        yield connection


def test_each_name_has_one_number_however_often_it_is_used() -> None:
    statement = Prepared.of(b"SELECT %(second)s, %(first)s, %(second)s::text LIKE 'set %%'")
    assert statement.text == b"SELECT $1, $2, $1::text LIKE 'set %'"
    assert statement.names == ("second", "first")


async def test_rows_are_a_cursors(connection: Connection) -> None:
    text = """SELECT n, NULL, 'ä', '{"a": [1.5]}'::jsonb, '00000000000000000000000000000000'::uuid,
                     '2026-01-02'::timestamptz, n = %(n)s FROM generate_series(1, 3) n"""
    rows = await Prepared.of(text.encode()).run(connection, {"n": 2})
    assert rows == await (await connection.execute(text, {"n": 2})).fetchall()
    assert rows[1] == (2, None, "ä", {"a": [1.5]}, UUID(int=0), datetime(2026, 1, 2, tzinfo=UTC), True)


async def test_what_failed_is_raised_and_not_told(connection: Connection) -> None:
    told: list[object] = []
    for value in ("1", "no number", "2"):
        bound = await Prepared.of(b"SELECT %(value)s::text::int FROM generate_series(1, 2)").bind(
            connection, {"value": value}
        )
        bound.send_ahead()
        with nullcontext() if value.isdigit() else pytest.raises(psycopg.errors.InvalidTextRepresentation):
            await bound.tell(told.append)
    assert told == [[(1,), (1,)], [(2,), (2,)]]


async def test_a_statement_is_prepared_once_for_each_type_of_what_it_is_given(connection: Connection) -> None:
    for value in (1, 2, 2**40, 3, "text", None, 2**41):
        assert await ECHO.run(connection, {"value": value}) == [(value,)]
    assert await (await connection.execute(COUNT)).fetchall() == [(3,)], "a number, a large one, a text"


async def test_nothing_is_prepared_where_a_pooler_gives_each_statement_another_server(connection: Connection) -> None:
    connection.prepare_threshold = None
    assert await ECHO.run(connection, {"value": 1}) == ONE
    assert await (await connection.execute(COUNT)).fetchall() == NOTHING_PREPARED


async def test_what_is_larger_than_the_buffers_of_a_socket_goes_both_ways(connection: Connection) -> None:
    value = "x" * LARGER_THAN_BUFFERS
    assert await ECHO.run(connection, {"value": value}) == [(value,)]


async def test_it_belongs_to_the_transaction_that_the_driver_would_begin(empty_database_url: str) -> None:
    async with await connect(empty_database_url, name="tested", autocommit=False) as connection:
        await Prepared.of(b"CREATE TABLE made (n int)").run(connection, {})
        await connection.rollback()
        assert await ECHO.run(connection, {"value": 1}) == ONE
        row = await (await connection.execute("SELECT to_regclass('made')")).fetchone()
        assert row == (None,)


async def test_what_fails_raises_the_drivers_error_and_leaves_the_connection_as_it_was(connection: Connection) -> None:
    divided = Prepared.of(b"SELECT 1 / %(value)s::int")
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        await divided.run(connection, {"value": 0})
    with pytest.raises(psycopg.errors.SyntaxError):
        await Prepared.of(b"SELECT FROM WHERE").run(connection, {})
    assert await divided.run(connection, {"value": 1}) == ONE


async def test_after_all_was_dropped_behind_its_back_only_a_new_connection_helps(connection: Connection) -> None:
    await ECHO.run(connection, {"value": 1})
    await connection.execute("DEALLOCATE ALL")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName) as raised:
        await ECHO.run(connection, {"value": 1})
    assert is_outdated(raised.value)


async def test_who_stops_waiting_ends_the_statement_and_nobody_gets_its_answer(
    connection: Connection, empty_database_url: str
) -> None:
    sleeping = await _asleep(connection, empty_database_url)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    assert connection.closed
    assert not await _is_asleep(empty_database_url)


async def test_a_lost_connection_is_the_drivers_error(empty_database_url: str) -> None:
    async with proxied(empty_database_url) as (proxy, url):
        connection = await connect(url, name="tested")
        sleeping = await _asleep(connection, empty_database_url)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await sleeping
        assert connection.closed


async def test_what_is_said_is_heard_at_once_and_what_came_with_an_answer_is_not_missed(
    connection: Connection, empty_database_url: str
) -> None:
    said: list[tuple[str, str]] = []
    await connection.execute("LISTEN tested")
    ear, before = Ear(connection, lambda *notice: said.append(notice)), timers()
    async with await connect(empty_database_url, name="talking") as talking:
        await talking.execute("NOTIFY tested, 'one'; NOTIFY tested, 'two'")
        assert await ear.hear(60)
        assert said == [("tested", "one"), ("tested", "two")]
        for ask in (lambda: connection.execute("SELECT 1"), lambda: ECHO.run(connection, {"value": 1})):
            await talking.execute("NOTIFY tested, 'three'")
            await ask()
            assert await ear.hear(60)
            assert said[2:] == [("tested", "three")]
            del said[2:]
        assert not await ear.hear(0.01), "nothing more was said"
    assert timers() <= before


def timers() -> set[asyncio.TimerHandle]:
    """Those that are to ring; event loops of other tests may have left some."""
    return {each for each in gc.get_objects() if isinstance(each, asyncio.TimerHandle) and not each.cancelled()}


async def test_an_ear_on_a_connection_that_is_lost_says_so(empty_database_url: str) -> None:
    async with proxied(empty_database_url) as (proxy, url):
        ear = Ear(await connect(url, name="tested"))
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await ear.hear(60)


async def test_who_is_told_twice_to_stop_waiting_loses_the_connection_all_the_same(empty_database_url: str) -> None:
    async with proxied(empty_database_url) as (proxy, url):
        connection = await connect(url, name="tested")
        sleeping = await _asleep(connection, empty_database_url)
        proxy.stall()
        sleeping.cancel()
        await eventually(lambda: proxy.open_count == 2)  # one more, to tell the server
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert connection.closed


async def test_the_servers_last_word_is_the_error(connection: Connection, empty_database_url: str) -> None:
    sleeping = await _asleep(connection, empty_database_url)
    async with await connect(empty_database_url, name="ending") as ending:
        await ending.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.errors.AdminShutdown):
        await sleeping


async def test_a_statement_with_ever_other_types_is_not_prepared_for_each(connection: Connection) -> None:
    values = (1, 2**20, 2**40, 2**80, 1.5, True, b"1", UUID(int=1), datetime.now(UTC), [1], [True])
    for value in values:
        assert await ECHO.run(connection, {"value": value}) == [(value,)]
    assert await (await connection.execute(COUNT)).fetchall() == [(KINDS_MAX,)]
    assert len(values) > KINDS_MAX


async def test_nothing_is_kept_of_a_connection_that_is_gone(empty_database_url: str) -> None:
    connection = await connect(empty_database_url, name="tested")
    await ECHO.run(connection, {"value": 1})
    kept = weakref.ref(connection)
    await connection.close()
    del connection
    gc.collect()
    assert kept() is None


async def test_the_number_of_a_lost_connections_socket_may_be_anothers_at_once(empty_database_url: str) -> None:
    connection, heard = await connect(empty_database_url, name="tested"), asyncio.Event()
    taken: list[socket.socket] = []
    loop, number = asyncio.get_running_loop(), connection.fileno()
    hearing = asyncio.create_task(Ear(connection).hear(60))

    def take() -> None:
        taken.extend(socket.socketpair())
        loop.add_reader(number, heard.set)

    loop.call_soon(partial(loop.call_later, 0, take))  # after what is read in the same turn of the loop
    with socket.socket(fileno=os.dup(number)) as same:
        same.shutdown(socket.SHUT_RDWR)
    with pytest.raises(psycopg.OperationalError):
        await hearing
    with taken[0], taken[1]:
        [other] = [each for each in taken if each.fileno() != number]
        other.send(b"x")
        async with asyncio.timeout(60):
            await heard.wait()
        loop.remove_reader(number)


async def test_an_error_of_who_is_told_is_raised_where_one_hears(
    connection: Connection, empty_database_url: str
) -> None:
    def fail(*_: str) -> None:
        raise ZeroDivisionError

    await connection.execute("LISTEN tested")
    hearing = asyncio.create_task(Ear(connection, fail).hear(60))
    async with await connect(empty_database_url, name="talking") as talking:
        await talking.execute("NOTIFY tested")
    with pytest.raises(ZeroDivisionError):
        await hearing


async def _asleep(connection: Connection, url: str) -> asyncio.Task[object]:
    """A statement that the server runs already, and that takes a minute."""
    sleeping: asyncio.Task[object] = asyncio.create_task(SLEEP.run(connection, {}))
    await eventually_async(lambda: _is_asleep(url))
    return sleeping


async def _is_asleep(url: str) -> bool:
    async with await connect(url, name="looking") as looking:
        return bool((await looking.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).rowcount)


async def test_a_connection_that_is_lost_while_a_statement_is_sent_is_the_drivers_error_and_no_other(
    empty_database_url: str,
) -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with proxied(empty_database_url) as (proxy, url):
        connection = await connect(url, name="tested")
        await ECHO.run(connection, {"value": "x"})
        proxy.stall(Direction.REQUESTS)
        sending = asyncio.create_task(ECHO.run(connection, {"value": "x" * LARGER_THAN_BUFFERS}))
        await eventually(lambda: connection.pgconn.flush() == 1)
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await sending
    assert told == []
