"""A tail over a real NATS server has what the log has: in order, complete, and whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import text

from curation_service import readings
from curation_service.backbone import SILENCE_S, connected
from curation_service.backbone_tail import BackboneTail
from shared.db.engine import Database
from shared.db.ring import Reading
from shared.errors import LogRewound, TokenExpired
from tests.support.eventually import eventually
from tests.support.log import arrive, curate_in, cut, go_back, open_transaction, prune, read_all, update, versions
from tests.support.nats import NatsServer
from tests.support.proxy import Proxy, proxied
from tests.support.relays import relay_of, tailing, turn
from tests.support.service import add_parcels, parcel_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With five parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, *[{}] * 5)
        yield database


async def test_what_is_committed_arrives_in_order(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats) as (tail, _):
        start = tail.position
        last = [await update(database, status, 1) for status in ("Selected", "Scan", "Archived")][-1]
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3), (1, 4)]
        assert not tail.lag_s


async def test_of_several_who_could_relay_one_does_and_when_its_lock_is_cut_one_does_again(
    database: Database, nats: NatsServer
) -> None:
    async with tailing(database, nats, relays=3) as (tail, relays):
        start = tail.position
        await turn(database, 2)
        (first,) = (relay for relay in relays if relay.working)
        await cut(database, "curation relay")
        await arrive(tail, await turn(database, 2))
        await first.stop()
        await arrive(tail, await turn(database, 2))
        assert [relay.working for relay in relays].count(True) == 1
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 8)]


async def test_two_who_relay_at_once_double_and_lose_nothing(
    database: Database, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = relay_of(database, nats.url)
    async with tailing(database, nats) as (tail, _):
        monkeypatch.setattr("curation_service.relay._acquired", AsyncMock(return_value=True))
        start = tail.position
        async with second:
            await eventually(lambda: second.working)
            last = await turn(database, 200)
            await arrive(tail, last)
        await arrive(tail, await turn(database, 2))
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 204)]


async def test_a_nats_that_dies_and_comes_back_empty_costs_no_event(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        start = tail.position
        await arrive(tail, await turn(database, 2))
        await nats.kill()
        await eventually(lambda: not relay.working)
        last = await turn(database, 2)
        await nats.start()
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3), (1, 4), (1, 5)]


async def test_the_silence_of_nats_is_told_and_a_connection_that_hangs_is_given_up(
    database: Database, nats: NatsServer
) -> None:
    async with Proxy(nats.port) as proxy, tailing(database, nats, url=f"nats://127.0.0.1:{proxy.port}") as (tail, _):
        start = tail.position
        proxy.stall()
        last = await turn(database, 2)
        await eventually(lambda: tail.lag_s > SILENCE_S)
        assert not await read_all(tail, start)
        proxy.freeze()
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3)]
        await eventually(lambda: not tail.lag_s)


async def test_what_the_stream_no_longer_has_is_in_the_table_however_much_that_is(
    database: Database, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.db.tail.READ_SIZE", 1)
    async with Proxy(nats.port) as proxy, tailing(database, nats, url=f"nats://127.0.0.1:{proxy.port}") as (tail, _):
        start = tail.position
        proxy.refuse()
        last = await turn(database, 4)
        async with tailing(database, nats, relays=0) as (other, _):
            await arrive(other, last)
        await nats.purge(tail.log_id)
        await proxy.accept()
        await arrive(tail, await turn(database, 2))
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 8)]


async def test_what_the_stream_still_has_is_asked_of_nobody_else(database: Database, nats: NatsServer) -> None:
    async with Proxy(nats.port) as proxy, tailing(database, nats, url=f"nats://127.0.0.1:{proxy.port}") as (tail, _):
        start = tail.position
        await arrive(tail, await turn(database, 2))
        proxy.refuse()
        last = await turn(database, 2)
        async with tailing(database, nats, relays=0) as (other, _):
            await arrive(other, last)
        await prune(database, last)
        await proxy.accept()
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 6)]


async def test_what_comes_once_more_beside_what_is_new_is_told_once(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        start = tail.position
        await arrive(tail, last := await turn(database, 2))
        entries = await read_all(tail, start)
        await relay.stop()
        async with connected(nats.url, tail.log_id, name="a test") as backbone:
            await backbone.position()
            more = [*entries, replace(entries[-1], position=last + 1)]
            await backbone.publish(start, Reading(more, last + 1), lag_s=0)
            await arrive(tail, last + 1)
        assert await read_all(tail, start) == more


async def test_a_tail_needs_no_database_while_one_relays_and_waits_for_it_when_another_does(
    database: Database, nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(relay_of(database, nats.url))
        proxy, url = await stack.enter_async_context(proxied(database.url))
        cut_off = await stack.enter_async_context(Database(url))
        tail, _ = await stack.enter_async_context(tailing(cut_off, nats, relays=0))
        start = tail.position
        await arrive(tail, await turn(database, 2))
        proxy.refuse()
        await arrive(tail, await turn(database, 2))
        await relay.stop()
        await stack.enter_async_context(relay_of(database, nats.url))
        last = await turn(database, 2)
        await eventually(lambda: "the log is not heard now" in caplog.text)
        await proxy.accept()
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 8)]


async def test_what_neither_stream_nor_table_have_is_not_passed_over_in_silence(
    database: Database, nats: NatsServer
) -> None:
    async with Proxy(nats.port) as proxy, tailing(database, nats, url=f"nats://127.0.0.1:{proxy.port}") as (tail, _):
        start = tail.position
        proxy.refuse()
        gone = await turn(database, 2)
        async with tailing(database, nats, relays=0) as (other, _):
            await arrive(other, gone)
        await nats.purge(tail.log_id)
        await prune(database, gone)
        await proxy.accept()
        await arrive(tail, await update(database, "Selected", 2))
        with pytest.raises(TokenExpired):
            await tail.read(start)
        assert versions(await read_all(tail, gone)) == [(2, 2)]


@pytest.mark.parametrize("found", [False, True], ids=["told", "found"])
async def test_a_log_that_lost_what_a_tail_was_told_or_had_found_ends_it_and_starts_the_stream_anew(
    database: Database, nats: NatsServer, found: bool
) -> None:
    last = await turn(database, 2) if found else 0
    second = relay_of(database, nats.url)
    async with second:
        tail = await BackboneTail(database=database, nats_url=nats.url).__aenter__()
        await arrive(tail, last or await turn(database, 2))
        await go_back(database, tail.position - 1)
        await second.stop()
        async with relay_of(database, nats.url):
            with pytest.raises(ExceptionGroup) as caught:
                await tail.ended()
            assert caught.group_contains(LogRewound)
            async with BackboneTail(database=database, nats_url=nats.url) as other:
                start = other.position
                await arrive(other, await update(database, "Selected", 2))
                assert start < tail.position
                assert versions(await read_all(other, start)) == [(2, 2)]


async def test_what_another_version_relays_is_read_from_the_table(
    database: Database, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tailing(database, nats) as (tail, _):
        start = tail.position
        pack = readings.pack

        def other(*args: Any, **options: Any) -> list[readings.Message]:
            return [({**headers, readings.FORM: "other"}, b"?") for headers, _ in pack(*args, **options)]

        monkeypatch.setattr("curation_service.backbone.pack", other)
        await arrive(tail, await turn(database, 2))
        monkeypatch.undo()
        await arrive(tail, await turn(database, 2))
        assert versions(await read_all(tail, start)) == [(1, 2), (1, 3), (1, 4), (1, 5)]


async def test_an_open_transaction_holds_back_and_a_rolled_back_one_moves_on_at_every_replica(
    database: Database, nats: NatsServer
) -> None:
    async with tailing(database, nats) as (tail, _), open_transaction(database) as late:
        start = tail.position
        await curate_in(late, "Selected", 1)
        last = await update(database, "Selected", 2)
        await eventually(lambda: tail.lag_s > 0)
        assert not await read_all(tail, start)
        await late.rollback()
        await arrive(tail, last)
        assert versions(await read_all(tail, start)) == [(2, 2)]
        await eventually(lambda: not tail.lag_s)


async def test_an_entry_that_is_longer_than_a_message_may_be_arrives_whole(
    database: Database, nats: NatsServer
) -> None:
    async with tailing(database, nats) as (tail, _):
        start = tail.position
        async with database.core() as connection:
            await connection.execute(text(LONG))
        await arrive(tail, await update(database, "Selected", 1))
        long, short = await read_all(tail, start)
        assert (len(long.items), len(short.items)) == (100_000, 1)
        async with database.core() as connection:
            kept = await connection.scalar(text("SELECT items FROM status_event ORDER BY position LIMIT 1"))
        assert long.items == kept
        assert await nats.message_count(tail.log_id) > 3


async def test_who_is_behind_the_memory_reads_the_table(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats, items_max=3) as (tail, _):
        start = tail.position
        await arrive(tail, await turn(database, 10))
        assert tail.recent(start) is None
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 12)]


async def test_a_tail_that_starts_before_its_nats_waits_for_it(database: Database, nats: NatsServer) -> None:
    await nats.kill()
    async with relay_of(database, nats.url):
        tail = BackboneTail(database=database, nats_url=nats.url)
        starting = asyncio.create_task(tail.__aenter__())
        first = await update(database, "Selected", 1)
        await nats.start()
        await starting
        await arrive(tail, await update(database, "Selected", 2))
        assert versions(await read_all(tail, first)) == [(2, 2)]
        await tail.stop()


LONG = """
INSERT INTO status_event (position, part, resource, kind, from_status, to_status, items, versions, attempts)
SELECT nextval('status_event_position'), 1, 'parcels', 'curate', 'New', 'Selected', i.items, i.ones, i.ones
FROM (SELECT array_agg(gen_random_uuid()::text) AS items, array_agg(1) AS ones FROM generate_series(1, 100000)) i
WHERE pg_current_xact_id() IS NOT NULL
"""
