"""Who is woken by what: those whom an entry concerns, where it stands, and nobody else."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.fanout import Fanout, Interests
from curation_service.watch_request import WatchRequest, read_watch
from shared.db.database_tail import DatabaseTail
from shared.db.engine import Database
from shared.db.log import STATE
from shared.registry import Registry
from shared.table import transition_table
from tests.support.batches import parcel_id as key
from tests.support.entries import entry
from tests.support.log import update
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, add_parcels, parcel_database

TABLE = transition_table(PARCELS)


def watch(**fields: Any) -> WatchRequest:
    request = pb.WatchStatusRequest(resource="parcels", **fields)
    return read_watch(request, Registry(PARCELS), log=uuid.UUID(int=0), items_max=10)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """With three parcels."""
    async with parcel_database(database_url) as database:
        await add_parcels(database, {}, {}, {})
        yield database


@asynccontextmanager
async def fanned_out(database: Database, **options: Any) -> AsyncIterator[Fanout]:
    async with (
        DatabaseTail(url=database.url, direct_url=database.url, **options) as tail,
        Fanout(tail=tail, draining=asyncio.Event()) as fanout,
    ):
        yield fanout


def in_time() -> float:
    return asyncio.get_running_loop().time() + WAIT_S


async def test_a_watcher_of_an_item_is_sent_to_the_first_entry_that_has_it(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch(ids=pb.ItemIds(ids=[key(1)]))) as one, fanout.waiting(watch()) as everything:
            start = fanout.position
            first = await update(database, "Selected", 2, 3)
            second = await update(database, "Selected", 1)
            assert await one.news(start, in_time()) == second - 1
            assert one.through >= second
            assert await everything.news(start, in_time()) == first - 1


async def test_what_does_not_concern_a_watcher_is_passed_over(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch(ids=pb.ItemIds(ids=[key(1)]))) as one, fanout.waiting(watch()) as everything:
            start = fanout.position
            position = await update(database, "Selected", 2, 3)
            await everything.news(start, in_time())
            # Nothing wakes it but the time.
            assert await one.news(start, asyncio.get_running_loop().time()) >= position


async def test_who_has_not_read_up_to_where_it_was_sent_goes_on_reading(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch()) as waiter:
            assert await waiter.news(waiter.through - 1, in_time()) == waiter.through - 1


async def test_who_comes_with_a_token_that_this_replica_has_yet_to_reach_is_not_sent_back(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch()) as waiter:
            ahead = await update(database, "Selected", 1)
            assert await waiter.news(ahead, in_time()) == ahead


async def test_more_than_the_memory_holds_sends_everybody_to_look(database: Database) -> None:
    async with fanned_out(database, items_max=0) as fanout:
        with fanout.waiting(watch(ids=pb.ItemIds(ids=[key(1)]))) as one:
            for item in (2, 3):
                start = fanout.position
                position = await update(database, "Selected", item)
                assert await one.news(start, in_time()) <= position - 1
                assert one.through >= position


async def test_a_wait_is_over_in_time_although_the_one_before_would_have_been_longer(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch()) as waiter:
            waiting = asyncio.create_task(waiter.news(fanout.position, in_time() + 1000))
            await asyncio.wait([waiting], timeout=0)
            await update(database, "Selected", 1)
            await waiting
            async with asyncio.timeout(WAIT_S):
                await waiter.news(waiter.through, asyncio.get_running_loop().time())


async def test_a_drain_ends_all_waits_at_once_and_for_good(database: Database) -> None:
    async with fanned_out(database) as fanout:
        with fanout.waiting(watch(ids=pb.ItemIds(ids=[key(1)]))) as one, fanout.waiting(watch(batch_id="7")) as other:
            position, far = fanout.position, in_time() + 1000
            waits = [asyncio.create_task(waiter.news(position, far)) for waiter in (one, other)]
            await asyncio.wait(waits, timeout=0)
            fanout.draining.set()
            async with asyncio.timeout(WAIT_S):
                await asyncio.gather(*waits)
                await one.news(one.through, far)


@pytest.mark.parametrize("name", ["batch", "cause", "left_batch"])
async def test_a_watcher_of_a_batch_is_told_what_that_has_did_or_loses(database: Database, name: str) -> None:
    asked, interests = watch(batch_id="7"), Interests()
    async with fanned_out(database) as fanout:
        with fanout.waiting(asked) as waiter:
            interests.add(asked, waiter)
            others: dict[str, Any] = {"batch": 1, "cause": 2, "left_batch": 3}
            before = replace(entry(fanout.position + 3, 1), **others)
            concerned = replace(entry(fanout.position + 5, 1), **{**others, name: 7})
            interests.tell([before, concerned])
            assert await waiter.news(fanout.position, in_time()) == concerned.position - 1
    assert asked.concerns(concerned)


@pytest.mark.parametrize("fields", [{}, {"batch_id": "7"}, {"ids": pb.ItemIds(ids=[key(1)])}])
async def test_progress_wakes_who_wants_it_alone_and_the_state_of_a_workflow_everybody(
    database: Database, fields: dict[str, Any]
) -> None:
    async with fanned_out(database) as fanout:
        start = fanout.position
        progress = replace(entry(start + 3, 1), kind="progress", batch=7, items=[key(1)])
        change = replace(progress, position=start + 5, kind="curate")
        state = replace(entry(start + 7, 2), kind=STATE)
        for skip, first in ((True, change), (False, progress)):
            asked, interests = watch(skip_progress=skip, **fields), Interests()
            with fanout.waiting(asked) as waiter:
                interests.add(asked, waiter)
                for entries in ([progress], [progress, change]):
                    interests.tell(entries)
                assert await waiter.news(start, in_time()) == first.position - 1
                interests.tell([state])
                assert await waiter.news(start, in_time()) == state.position - 1


async def test_who_leaves_takes_its_alarm_and_its_places_in_the_index_along(database: Database) -> None:
    interests, far = Interests(), in_time() + 1000
    async with fanned_out(database) as fanout:
        for asked in (watch(), watch(batch_id="7"), watch(ids=pb.ItemIds(ids=[key(1), key(2)]))):
            with fanout.waiting(asked) as waiter:
                interests.add(asked, waiter)
                waiting = asyncio.create_task(waiter.news(fanout.position, far))
                await asyncio.wait([waiting], timeout=0)
                waiting.cancel()
                await asyncio.wait([waiting])
                interests.remove(asked, waiter)
    timers = [each for each in gc.get_objects() if isinstance(each, asyncio.TimerHandle) and each.when() >= far]
    assert all(timer.cancelled() for timer in timers)
    assert vars(interests) == vars(Interests())
