"""A statement whose rows come before its commit: what is told then, and what becomes of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from shared.db.engine import Connection, connect
from shared.db.prepared import Bound, Prepared, Rows
from tests.support.eventually import DEADLINE_S

LOCK = 7
TABLE = f"""
CREATE TABLE paid (n int);
CREATE FUNCTION check_paid() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({LOCK});
    IF NEW.n < 0 THEN RAISE 'not so little'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_paid AFTER INSERT ON paid DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION check_paid();
"""
PAY = Prepared.of(b"INSERT INTO paid SELECT %(n)s FROM generate_series(1, %(count)s) RETURNING n, repeat('x', 100)")

ENDED = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'paying'"


@dataclass(slots=True)
class Payer:
    """Pays over a connection of its own; its commit waits for as long as another one has the lock."""

    connection: Connection
    other: Connection
    told: list[Rows] = field(default_factory=list)
    is_told: asyncio.Event = field(default_factory=asyncio.Event)

    async def pay(self, n: int, count: int = 1) -> Bound:
        """Has a payment ready."""
        return await PAY.bind(self.connection, {"n": n, "count": count})

    def take(self, rows: Rows) -> None:
        self.told.append(rows)
        self.is_told.set()

    async def is_usable(self) -> bool:
        return await (await self.connection.execute("SELECT 'mine'")).fetchone() == ("mine",)

    async def paid(self) -> Any:
        """What is committed."""
        return await (await self.other.execute("SELECT n, count(*) FROM paid GROUP BY n")).fetchall()

    async def unlock(self) -> None:
        await self.other.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


@pytest.fixture
async def payer(empty_database_url: str) -> AsyncIterator[Payer]:
    url = empty_database_url
    async with await connect(url, name="paying") as connection, await connect(url, name="other") as other:
        await other.execute(TABLE.encode())
        await other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        yield Payer(connection, other)


async def sent(payer: Payer, n: int, count: int = 1) -> asyncio.Task[None]:
    """A payment whose rows have come, and that is not committed."""
    bound = await payer.pay(n, count)
    bound.send_ahead()
    waiting = asyncio.create_task(bound.tell(payer.take))
    async with asyncio.timeout(DEADLINE_S):
        await payer.is_told.wait()
    assert not waiting.done()
    return waiting


@pytest.mark.parametrize("count", [1, 2000])
async def test_all_rows_come_before_the_commit_and_it_returns_after_it(payer: Payer, count: int) -> None:
    waiting = await sent(payer, 5, count)
    assert [[row[0] for row in rows] for rows in payer.told] == [[5] * count]
    assert await payer.paid() == []
    await payer.unlock()
    await waiting
    assert await payer.paid() == [(5, count)]
    assert len(payer.told) == 1
    assert await payer.is_usable()


async def test_a_commit_that_is_refused_is_raised_and_the_connection_is_usable(payer: Payer) -> None:
    waiting = await sent(payer, -1)
    await payer.unlock()
    with pytest.raises(psycopg.errors.RaiseException, match="not so little"):
        await waiting
    assert await payer.paid() == []
    assert await payer.is_usable()


async def test_one_that_fails_before_tells_nothing(payer: Payer) -> None:
    bound = await Prepared.of(b"SELECT 1 / (2 - n) FROM generate_series(1, 3) n").bind(payer.connection, {})
    bound.send_ahead()
    with pytest.raises(psycopg.errors.DivisionByZero):
        await bound.tell(payer.take)
    assert payer.told == []
    assert await payer.is_usable()


async def test_a_connection_that_ends_amid_the_commit_is_the_drivers_error(payer: Payer) -> None:
    waiting = await sent(payer, 5)
    await payer.other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'paying'"
    )
    with pytest.raises(psycopg.errors.AdminShutdown):
        await waiting
    assert payer.connection.closed


async def test_who_stops_waiting_for_the_commit_loses_the_connection(payer: Payer) -> None:
    waiting = await sent(payer, 5)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert payer.connection.closed
    await payer.unlock()
    assert await payer.paid() == []


async def test_an_error_of_who_is_told_is_raised_and_nobody_gets_what_is_left(payer: Payer) -> None:
    def refuse(rows: Rows) -> None:
        raise ValueError(rows[0][0])

    bound = await payer.pay(5)
    bound.send_ahead()
    with pytest.raises(ValueError, match="5"):
        await bound.tell(refuse)
    assert payer.connection.closed
