"""Many watchers, several services, and streams that come and go: each is told what concerns it, and leaves nothing."""

from __future__ import annotations

import asyncio
import gc
import resource
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.fanout import INDEXED_MAX, Waiter
from curation_service.snapshot import CHUNK_SIZE, MEMORY_BYTES, Snapshot, Snapshots
from curation_service.watch_request import read_watch
from shared.errands import Errands
from shared.errors import DatabaseUnavailable
from shared.registry import Registry
from shared.table import transition_table
from tests.support.batches import parcel_id as key
from tests.support.eventually import eventually
from tests.support.log import update
from tests.support.parcels import PARCELS, parcels
from tests.support.service import WAIT_S, RunningService, add_many, parcel_database, refused, running_service

pytestmark = pytest.mark.untraced

TABLE = transition_table(PARCELS)
EVENT = tuple[str, int]


class Watcher:
    """A stream that is opened again with the last token whenever it breaks, and its events."""

    def __init__(self, stubs: Sequence[pb_grpc.CurationServiceAsyncStub], **fields: Any) -> None:
        self.request = pb.WatchStatusRequest(resource="parcels", **fields)
        self.events: list[EVENT] = []
        self.began = asyncio.Event()
        self._stubs = list(stubs)

    async def run(self, count: int) -> None:
        """Reads until so many events came."""
        while True:
            self._stubs.append(self._stubs.pop(0))
            call = self._stubs[0].WatchStatus(self.request, wait_for_ready=True)
            try:
                async for message in call:
                    self.request.resume_token = message.resume_token or self.request.resume_token
                    self.began.set()
                    self.events += [(event.item_id, event.version) for event in message.events.events]
                    if len(self.events) >= count:
                        return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                call.cancel()


async def all_began(watchers: Sequence[Watcher]) -> None:
    async with asyncio.timeout(WAIT_S):
        for watcher in watchers:
            await watcher.began.wait()


async def test_each_of_many_watchers_of_an_item_is_told_of_its_own_and_no_other(service: RunningService) -> None:
    count = 100
    await add_many(service.database, count)
    watchers = [Watcher([service.stub], ids=pb.ItemIds(ids=[key(n)]), skip_snapshot=True) for n in range(1, count + 1)]
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watcher.run(3))
        await all_began(watchers)
        for status in ("Selected", "New"):
            await update(service.database, status, *range(1, count + 1))
        for number in range(1, count + 1):
            await update(service.database, "Selected", number)
    assert [watcher.events for watcher in watchers] == [[(key(n), v) for v in (2, 3, 4)] for n in range(1, count + 1)]


@pytest.mark.parametrize("count", [INDEXED_MAX, INDEXED_MAX + 1, 70_000])
async def test_a_watch_may_name_many_items(database_url: str, count: int) -> None:
    async with running_service(database_url) as service:
        await add_many(service.database, 5)
        ids = [key(n) for n in range(2, count + 2)]
        call = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", ids=pb.ItemIds(ids=ids)))
        snapshot: Any = await call.read()
        assert [item.id for item in snapshot.snapshot.items] == [key(n) for n in (2, 3, 4, 5)]
        await update(service.database, "Selected", 1, 5, 3)
        events: list[str] = []
        while len(events) < 2:
            message: Any = await call.read()
            events += [event.item_id for event in message.events.events]
        assert sorted(events) == [key(3), key(5)]
        call.cancel()


async def test_watchers_of_one_filter_share_what_the_database_says_of_it(service: RunningService) -> None:
    await add_many(service.database, 70_000, size=1)
    async with service.database.core() as connection:
        await connection.execute(text(f"UPDATE parcels SET size = 9 WHERE id IN ('{key(7)}', '{key(69_999)}')"))
    watchers = [Watcher([service.stub], filter=f"size > {n % 2 + 4}", skip_snapshot=True) for n in range(20)]
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watcher.run(2))
        await all_began(watchers)
        # More in one entry than a statement can have parameters.
        await update(service.database, "Selected", *range(1, 70_001))
    assert {tuple(sorted(watcher.events)) for watcher in watchers} == {((key(7), 2), (key(69_999), 2))}


async def test_two_services_on_one_database_tell_the_same_and_go_on_for_each_other(database_url: str) -> None:
    rounds = 30
    async with running_service(database_url, stream_age_max_s=0.1) as one, running_service(database_url) as other:
        await add_many(one.database, 10)
        watchers = [Watcher(stubs, skip_snapshot=True) for stubs in ([one.stub], [other.stub], [one.stub, other.stub])]
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            for watcher in watchers:
                group.create_task(watcher.run(10 * rounds))
            await all_began(watchers)
            for turn in range(rounds):
                database = (one, other)[turn % 2].database
                await update(database, ("Selected", "New")[turn % 2], *range(1, 11))
    histories = [watcher.events for watcher in watchers]
    assert histories[0] == histories[1] == histories[2]
    assert sorted(histories[0]) == sorted((key(n), v) for n in range(1, 11) for v in range(2, rounds + 2))


async def test_five_hundred_watchers_outlive_a_restart_and_miss_nothing(database_url: str) -> None:
    count = 500
    async with running_service(database_url) as service:
        await add_many(service.database, 10)
        address = service.address
        async with grpc.aio.insecure_channel(
            address, options=[("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
        ) as channel:
            stub = pb_grpc.CurationServiceStub(channel)
            watchers = [
                Watcher([stub], skip_snapshot=True, **({"ids": pb.ItemIds(ids=[key(n % 10 + 1)])} if n % 2 else {}))
                for n in range(count)
            ]
            async with asyncio.timeout(2 * WAIT_S), asyncio.TaskGroup() as group:
                for n, watcher in enumerate(watchers):
                    group.create_task(watcher.run(3 if n % 2 else 30))
                await all_began(watchers)
                await update(service.database, "Selected", *range(1, 11))
                await service.server.stop()
                await update(service.database, "New", *range(1, 11))
                async with running_service(database_url, listen=address) as again:
                    await update(again.database, "Selected", *range(1, 11))
                    await eventually(lambda: all(len(w.events) >= (3 if n % 2 else 30) for n, w in enumerate(watchers)))
    for n, watcher in enumerate(watchers):
        numbers = [n % 10 + 1] if n % 2 else range(1, 11)
        assert sorted(watcher.events) == sorted((key(i), v) for i in numbers for v in (2, 3, 4))


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


async def test_streams_that_are_opened_and_cancelled_leave_nothing(service: RunningService) -> None:
    await add_many(service.database, 3 * CHUNK_SIZE, note="x" * 500)
    batch = await service.stub.BatchUpdateStatus(
        pb.BatchUpdateStatusRequest(resource="parcels", status="Selected", ids=pb.ItemIds(ids=[key(1)]))
    )
    selections: list[dict[str, Any]] = [
        {},
        {"skip_snapshot": True},
        {"ids": pb.ItemIds(ids=[key(1)])},
        {"filter": "size > 3"},
        {"batch_id": batch.batch.batch_id},
        {"resume_token": batch.resume_token},
    ]

    async def cycle(number: int) -> None:
        request = pb.WatchStatusRequest(resource="parcels", **selections[number % len(selections)])
        call = service.stub.WatchStatus(request)
        if number % 3:
            await call.read()
        call.cancel()

    async def cycles(count: int) -> None:
        for start in range(0, count, 20):
            await asyncio.gather(*(cycle(number) for number in range(start, start + 20)))

    await cycles(240)  # whatever the first calls leave for the next ones
    await eventually(lambda: not alive(Waiter) and not alive(Snapshot))
    tasks, objects = len(asyncio.all_tasks()), len(gc.get_objects())
    await cycles(500)
    await eventually(lambda: not alive(Waiter) and not alive(Snapshot) and len(asyncio.all_tasks()) <= tasks)
    assert len(gc.get_objects()) - objects < 250  # less than one for two streams


async def test_a_slow_client_holds_neither_a_transaction_nor_a_connection(service: RunningService) -> None:
    await add_many(service.database, 50 * CHUNK_SIZE, note="x" * 1000)
    call = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels"))
    message: Any = await call.read()
    assert message.snapshot.items
    held = text(
        """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND (backend_xmin IS NOT NULL OR state LIKE 'idle in transaction%')"""
    )
    async with service.database.core() as connection:
        assert await connection.scalar(held) == 0
    items = len(message.snapshot.items)
    while not message.HasField("snapshot_end"):
        message = await call.read()
        items += len(message.snapshot.items)
    assert items == message.snapshot_end.item_count == 50 * CHUNK_SIZE
    call.cancel()


async def test_a_watcher_that_reads_nothing_slows_nobody_and_gets_all_when_it_reads(service: RunningService) -> None:
    await add_many(service.database, 2_000)
    slow = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", skip_snapshot=True))
    await slow.read()
    quick, rounds = Watcher([service.stub], skip_snapshot=True), 40
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(quick.run(rounds * 2_000))
        await all_began([quick])
        for turn in range(rounds):
            await update(service.database, ("Selected", "New")[turn % 2], *range(1, 2_001))
    events: list[EVENT] = []
    while len(events) < rounds * 2_000:
        message: Any = await slow.read()
        events += [(event.item_id, event.version) for event in message.events.events]
    assert events == quick.events
    slow.cancel()


async def test_a_snapshot_that_finds_no_room_is_put_off_and_gives_back_what_it_took(database_url: str) -> None:
    async with parcel_database(database_url) as database, Errands(at_once=1) as errands:
        await add_many(database, 3 * CHUNK_SIZE)
        request = pb.WatchStatusRequest(resource="parcels")
        watch = read_watch(request, Registry(PARCELS), log=uuid.UUID(int=0), items_max=10)
        snapshots = Snapshots(database=database, errands=errands, room_bytes=CHUNK_SIZE * 400)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="room"):
                async with snapshots.taken(watch):
                    pass
        async with database.core() as connection:
            await connection.execute(parcels.delete().where(parcels.c.id > uuid.UUID(int=CHUNK_SIZE)))
        for _ in range(2):
            async with snapshots.taken(watch) as snapshot:
                assert snapshot.item_count == CHUNK_SIZE


async def test_so_does_one_that_nobody_waits_for_any_more(database_url: str) -> None:
    count = 20 * CHUNK_SIZE
    async with parcel_database(database_url) as database, Errands(at_once=1) as errands:
        await add_many(database, count)
        request = pb.WatchStatusRequest(resource="parcels")
        watch = read_watch(request, Registry(PARCELS), log=uuid.UUID(int=0), items_max=10)
        snapshots = Snapshots(database=database, errands=errands, room_bytes=count * 400)

        async def take() -> None:
            async with snapshots.taken(watch):
                await asyncio.Event().wait()

        for _ in range(3):
            taking = asyncio.create_task(take())
            await eventually(lambda: snapshots._taken_bytes > 0)
            taking.cancel()
            await eventually(lambda: snapshots._taken_bytes == 0)
        async with snapshots.taken(watch) as snapshot:
            assert snapshot.item_count == count


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files cannot be longer than so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_so_is_one_for_which_the_disk_has_no_room(
    service: RunningService, caplog: pytest.LogCaptureFixture
) -> None:
    count = 30 * CHUNK_SIZE
    await add_many(service.database, count)
    request = pb.WatchStatusRequest(resource="parcels")
    with full_disk(2 * MEMORY_BYTES):
        refusal = await refused(service.stub.WatchStatus(request).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert "File too large" in caplog.text, "whoever runs it is told why"
    stream: Any = service.stub.WatchStatus(request)
    items = 0
    while items < count:
        items += len((await stream.read()).snapshot.items)
    stream.cancel()
