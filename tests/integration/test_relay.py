"""Who relays the log over a real NATS server: what the stream has is whole and of this log, whoever goes or hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from nats import connect
from nats.js.api import StorageType, StreamConfig

from curation_service.backbone import STREAM_BYTES, connected
from curation_service.readings import AFTER, THROUGH, last_of
from curation_service.relay import Relay
from shared.db.engine import Database
from shared.db.migrate import migrate
from shared.db.ring import Reading
from shared.errors import BackboneUnavailable, LogRewound, TokenExpired
from shared.registry import Registry
from tests.support.eventually import eventually, eventually_async
from tests.support.log import arrive, cut, go_back, prune, read_all, update, versions
from tests.support.nats import NatsServer
from tests.support.proxy import proxied
from tests.support.relays import relay_of, tailing, turn
from tests.support.service import WAIT_S, add_parcels, parcel_database
from tests.support.shops import execute

LOG = UUID(int=7)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With five parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, *[{}] * 5)
        yield database


async def test_the_stream_takes_only_from_who_has_seen_its_last_message(nats: NatsServer) -> None:
    async with connected(nats.url, LOG, name="one") as one, connected(nats.url, LOG, name="other") as other:
        assert [await each.position() for each in (one, other)] == [None, None]
        await one.publish(0, Reading((), 5), lag_s=0)
        with pytest.raises(BackboneUnavailable):
            await other.publish(0, Reading((), 7), lag_s=0)
        assert await other.position() == 5
        await other.publish(5, Reading((), 7), lag_s=0)
    assert [headers[THROUGH] for headers in await nats.headers(LOG)] == ["5", "7"]


async def test_a_stream_is_made_in_memory_with_a_bound_and_one_of_an_operators_is_left_as_it_is(
    nats: NatsServer,
) -> None:
    made, kept = LOG, UUID(int=8)
    async with await connect(nats.url) as client:
        stream = client.jetstream()
        await stream.add_stream(
            StreamConfig(
                name=f"curation_{kept.hex}", subjects=[f"curation.log.{kept.hex}"], storage=StorageType.FILE, max_msgs=9
            )
        )
        for log_id in (made, kept):
            async with connected(nats.url, log_id, name="a test") as backbone:
                assert await backbone.position() is None
        configs = [(await stream.stream_info(f"curation_{log_id.hex}")).config for log_id in (made, kept)]
    assert [(config.storage, config.max_bytes, config.max_msgs) for config in configs] == [
        (StorageType.MEMORY, STREAM_BYTES, -1),
        (StorageType.FILE, -1, 9),
    ]


async def test_of_several_addresses_one_that_answers_is_enough(nats: NatsServer) -> None:
    async with connected(f"nats://127.0.0.1:1,{nats.url}", LOG, name="a test") as backbone:
        assert await backbone.position() is None


async def test_a_cancellation_that_comes_along_with_an_answer_is_not_lost(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for = asyncio.wait_for
    async with connected(nats.url, LOG, name="a test") as backbone:
        asking = asyncio.create_task(backbone.position())

        def answered(answer: asyncio.Future[Any], timeout: float) -> Any:
            answer.add_done_callback(lambda _: asking.cancel())
            return wait_for(answer, timeout)

        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "wait_for", answered)
            with pytest.raises(asyncio.CancelledError):
                await asking


async def test_who_takes_over_leaves_no_gap_in_the_stream(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        start = tail.position
        await arrive(tail, await turn(database, 2))
        await relay.stop()
        count = await nats.message_count(tail.log_id)

        async def is_gone_on_with() -> bool:
            return await nats.message_count(tail.log_id) > count

        async with relay_of(database, nats.url):
            await eventually_async(is_gone_on_with)
        last = await turn(database, 2)
        async with relay_of(database, nats.url):
            await arrive(tail, last)
        headers = await nats.headers(tail.log_id)
    assert int(headers[0][AFTER]) <= start
    assert all(later[AFTER] == earlier[THROUGH] for earlier, later in pairwise(headers))


async def test_two_logs_in_one_database_are_relayed_each_by_its_own(
    database: Database, database_url: str, nats: NatsServer
) -> None:
    execute(database_url, "CREATE SCHEMA other")
    other = f"{database_url}{'&' if '?' in database_url else '?'}options=-csearch_path%3Dother"
    await asyncio.to_thread(migrate, other, Registry())
    async with relay_of(database, nats.url) as relay, Relay(url=other, listen_url=other, nats_url=nats.url) as beside:
        await eventually(lambda: relay.working and beside.working)


async def test_who_takes_over_a_stream_that_was_emptied_goes_on_with_it(database: Database, nats: NatsServer) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        start = tail.position
        await arrive(tail, await turn(database, 2))
        await relay.stop()
        await nats.purge(tail.log_id)
        async with relay_of(database, nats.url):
            await arrive(tail, await turn(database, 2))
        assert versions(await read_all(tail, start)) == [(1, version) for version in range(2, 6)]


@pytest.mark.parametrize("changes", [0, 2])
@pytest.mark.parametrize("grows", [False, True], ids=["restored", "grown since"])
async def test_a_stream_of_a_log_that_was_restored_begins_anew(
    database: Database, nats: NatsServer, changes: int, grows: bool
) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        position = tail.position
        if changes:
            await arrive(tail, position := await turn(database, changes))
        await relay.stop()
        log_id = tail.log_id
    await go_back(database, position - 1)
    if changes and grows:
        await update(database, "Selected", 2)
    before = await nats.message_count(log_id)
    async with tailing(database, nats) as (tail, _):
        headers = await nats.headers(log_id)
    assert len(headers) == await nats.message_count(log_id) - before
    assert last_of(headers[0]) is None


async def test_where_the_log_no_longer_reaches_back_to_what_was_relayed_it_is_relayed_from_now_on(
    database: Database, nats: NatsServer
) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        start = tail.position
        await arrive(tail, await turn(database, 2))
        await relay.stop()
        gone = await turn(database, 2)
        await prune(database, gone)
        async with relay_of(database, nats.url):
            await arrive(tail, await update(database, "Selected", 2))
        with pytest.raises(TokenExpired):
            await tail.read(start)
        assert versions(await read_all(tail, gone)) == [(2, 2)]


async def test_a_relay_ends_with_its_reader_when_the_log_has_lost_what_that_has_read(
    database: Database, nats: NatsServer
) -> None:
    async with tailing(database, nats) as (tail, (relay,)):
        await arrive(tail, last := await turn(database, 2))
        await go_back(database, last - 1)
        await cut(database, "curation tail")
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(ExceptionGroup) as caught:
                await relay.ended()
        assert caught.group_contains(LogRewound)


async def test_a_relay_waits_for_a_database_that_refuses_it(
    database: Database, nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxied(database.url) as (proxy, url), Relay(url=url, listen_url=url, nats_url=nats.url) as relay:
        await eventually(lambda: relay.working)
        proxy.refuse()
        await eventually(lambda: caplog.text.count("not relayed from here now") > 1)
        assert not relay.working
        await proxy.accept()
        await eventually(lambda: relay.working)


async def test_a_relay_whose_lock_hangs_without_a_word_gives_up_and_takes_its_next_turn(
    database: Database, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation_service.relay.BEAT_S", 0.1)
    async with (
        proxied(database.url) as (proxy, url),
        Relay(url=database.url, listen_url=url, nats_url=nats.url) as relay,
    ):
        await eventually(lambda: relay.working)
        proxy.freeze()
        await eventually(lambda: not relay.working)
        await cut(database, "curation relay")  # as the server does with a connection whose other end is gone
        await eventually(lambda: relay.working)


async def test_a_relay_that_keeps_up_needs_no_pooler(database: Database, nats: NatsServer) -> None:
    pooler = "postgresql://postgres@127.0.0.1:1/postgres"
    async with (
        Relay(url=pooler, listen_url=database.url, nats_url=nats.url),
        tailing(database, nats, relays=0) as (tail, _),
    ):
        await arrive(tail, await turn(database, 2))
