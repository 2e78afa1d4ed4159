"""`WatchStatus` over the wire: nothing missed, nothing twice, whatever happens between two messages."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation_service.snapshot import CHUNK_SIZE, PAGE_SIZE, Snapshot, Snapshots
from curation_service.watch_request import WatchRequest
from shared.db.claim import claim
from shared.db.engine import Connection, connect
from shared.db.finish import Result, finish
from shared.db.log import append_state, log_identity
from shared.db.sessions import open_session
from shared.db.token import decode_token, encode_token
from shared.table import transition_table
from tests.support.batches import parcel_id as key
from tests.support.log import curate_in, prune
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, RunningService, add_parcels, refused, running_service

TABLE = transition_table(PARCELS)
Response = pb.WatchStatusResponse
EVENT = tuple[str, int, str]


class Stream:
    """One watcher, and all it has been told."""

    def __init__(self, service: RunningService, **fields: Any) -> None:
        self.call = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", **fields))
        self.messages: list[Response] = []

    async def read(self) -> Response | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(WAIT_S):
            message: Any = await self.call.read()
        if not isinstance(message, Response):  # then it is EOF
            return None
        self.messages.append(message)
        return message

    async def until(self, enough: Callable[[], bool]) -> None:
        """Reads until there is enough."""
        while not enough():
            assert await self.read() is not None, "the stream ended"

    async def part(self, kind: str) -> Response:
        """Reads up to the next message of a kind."""
        while (message := await self.read()) is not None:
            if message.WhichOneof("part") == kind:
                return message
        raise AssertionError(f"the stream ended without {kind}")

    async def to_the_end(self) -> None:
        """Reads all there is."""
        while await self.read() is not None:
            pass

    async def events(self, count: int) -> list[EVENT]:
        """Reads until so many events came, and gives all."""
        await self.until(lambda: len(self.history) >= count)
        return self.history

    @property
    def history(self) -> list[EVENT]:
        return events_of(self.messages)

    @property
    def items(self) -> dict[str, pb.Item]:
        """The snapshot."""
        return {item.id: item for message in self.messages for item in message.snapshot.items}


def events_of(messages: Iterable[Response]) -> list[EVENT]:
    return [(e.item_id, e.version, e.kind) for message in messages for e in message.events.events]


@asynccontextmanager
async def watching(service: RunningService, **fields: Any) -> AsyncIterator[Stream]:
    """A stream; with a snapshot or without one, it has begun."""
    stream = Stream(service, **fields)
    await stream.part("heartbeat" if "skip_snapshot" in fields else "snapshot_end")
    yield stream
    stream.call.cancel()


async def update(service: RunningService, status: str, *numbers: int) -> pb.BatchUpdateStatusResponse:
    ids = pb.ItemIds(ids=map(key, numbers))
    request = pb.BatchUpdateStatusRequest(resource="parcels", status=status, ids=ids, allow_partial=True)
    return await service.stub.BatchUpdateStatus(request)


async def claim_and_finish(service: RunningService, limit: int, trigger: str = "find_nothing") -> None:
    """What a worker does to the oldest queued items."""
    async with service.database.transaction() as connection:
        session = await open_session(connection, host="here", version="1", resources=["parcels"])
        items = (await claim(connection, PARCELS, TABLE, session=session, limit=limit)).items
    async with service.database.transaction() as connection:
        await finish(connection, PARCELS, TABLE, [Result(item, trigger, error="no") for item in items])


async def test_the_snapshot_of_a_batch_has_what_it_changed_whether_that_was_queued_or_not(
    service: RunningService,
) -> None:
    await add_parcels(service.database, {}, {}, {})
    batch = (await update(service, "Selected", 1, 2)).batch.batch_id
    async with watching(service, batch_id=batch) as stream:
        assert stream.items.keys() == {key(1), key(2)}


async def test_the_snapshot_of_a_batch_that_is_older_than_the_log_has_what_became_of_it_since(
    service: RunningService,
) -> None:
    await add_parcels(service.database, {}, {}, {})
    batch = (await update(service, "Scan", 1, 2, 3)).batch.batch_id
    async with service.database.transaction() as connection:
        session = await open_session(connection, host="here", version="1", resources=["parcels"])
        claimed = await claim(connection, PARCELS, TABLE, session=session, limit=3)
    await prune(service.database, claimed.position)
    async with service.database.transaction() as connection:
        done = [Result(item, "find_nothing") for item in claimed.items if item.key.int == 1]
        await finish(connection, PARCELS, TABLE, done)
    again = pb.BatchUpdateStatusRequest(resource="parcels", status="Scan", cancel_in_flight=True)
    again.ids.ids.append(key(2))
    await service.stub.BatchUpdateStatus(again)
    async with watching(service, batch_id=batch) as stream:
        assert stream.items.keys() == {key(1), key(2)}, "what was done, and what another batch took over"


async def test_a_snapshot_of_many_items_has_each_once_in_whatever_order_they_lie(service: RunningService) -> None:
    count = 2 * PAGE_SIZE + 1
    async with service.database.core() as connection:
        fallen = f"SELECT lpad(to_hex(n), 32, '0')::uuid, 'parcel' FROM generate_series({count}, 1, -1) AS n"
        await connection.execute(text(f"INSERT INTO parcels (id, name) {fallen}"))
    async with watching(service) as stream:
        told = [item.id for message in stream.messages for item in message.snapshot.items]
        assert sorted(told) == [key(n) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("selection", "before", "after"),
    [
        ({}, {1, 2, 3}, [1, 2, 3]),
        ({"ids": pb.ItemIds(ids=[key(1), key(3)])}, {1, 3}, [1, 3]),
        ({"filter": "size > 10"}, {2, 3}, [2, 3]),
    ],
)
async def test_a_watch_starts_with_what_it_asked_for_and_goes_on_with_its_changes(
    service: RunningService, selection: dict[str, Any], before: set[int], after: list[int]
) -> None:
    await add_parcels(service.database, {"size": 10}, {"size": 20}, {"size": 30})
    async with watching(service, **selection) as stream:
        assert stream.items.keys() == {key(n) for n in before}
        assert stream.messages[-1].snapshot_end.item_count == len(before)
        assert {item.status for item in stream.items.values()} == {"New"}
        await update(service, "Selected", 1, 2, 3)
        assert sorted(await stream.events(len(after))) == [(key(n), 2, "curate") for n in after]


async def test_a_filter_by_status_tells_of_what_comes_and_of_what_goes_whenever_it_is_read(
    service: RunningService,
) -> None:
    await add_parcels(service.database, {}, {}, {"size": 5})
    start = (await update(service, "Selected", 2)).resume_token
    for status, number in (("Selected", 1), ("Archived", 1), ("New", 1), ("New", 2), ("Scan", 3)):
        await update(service, status, number)  # one by one: changes of a commit have no order among them
    await claim_and_finish(service, 1)
    expected = {
        'status = "Selected"': [(1, 2), (1, 3), (2, 3)],
        'NOT status = "Archived"': [(1, 2), (1, 3), (1, 4), (2, 3), (3, 2), (3, 3), (3, 4)],
        'queue_status = "NONE" AND size > 1': [(3, 2)],
        'queue_status = "queued"': [(3, 2), (3, 3)],
        'status = "Scan" AND queue_status = "processing"': [(3, 3), (3, 4)],
    }
    for asked, told in expected.items():
        stream = Stream(service, filter=asked, resume_token=start)
        assert [(item, version) for item, version, _ in await stream.events(len(told))] == [
            (key(n), version) for n, version in told
        ], asked
        stream.call.cancel()


async def test_a_batch_is_told_done_though_a_change_of_state_follows_at_once(database_url: str) -> None:
    async with running_service(database_url, heartbeat_s=1.0) as service:
        await add_parcels(service.database, {})
        answer = await update(service, "Scan", 1)
        async with service.database.transaction() as connection:
            session = await open_session(connection, host="here", version="1", resources=["parcels"])
            items = (await claim(connection, PARCELS, TABLE, session=session, limit=1)).items
        token, batch = answer.resume_token, answer.batch.batch_id
        stream = Stream(service, batch_id=batch, resume_token=token, end_when_done=True)
        while (await stream.part("progress")).progress.processing != 1:
            pass
        await stream.part("heartbeat")  # all numbers are told
        async with service.database.transaction() as connection:
            await finish(connection, PARCELS, TABLE, [Result(item, "find_nothing") for item in items])
            await append_state(connection, "parcels")
        await stream.to_the_end()
    assert stream.messages[-1].progress.done


async def test_a_watch_of_a_batch_sees_its_items_and_no_others(service: RunningService) -> None:
    await add_parcels(service.database, {}, {}, {})
    batch = (await update(service, "Scan", 1, 2)).batch.batch_id
    async with watching(service, batch_id=batch) as stream:
        assert stream.items.keys() == {key(1), key(2)}
        await update(service, "Scan", 3)
        await claim_and_finish(service, 3)
        history = await stream.events(4)
    assert {(item, kind) for item, _, kind in history} == {
        (key(n), kind) for n in (1, 2) for kind in ("claim", "find_nothing")
    }


async def test_changes_made_while_a_snapshot_is_read_are_neither_lost_nor_doubled(service: RunningService) -> None:
    count = CHUNK_SIZE * 8
    await add_parcels(service.database, *[{"note": "x" * 1000}] * count)
    stream = Stream(service)
    await stream.part("snapshot")
    for status in ("Selected", "Scan", "Archived"):
        await update(service, status, 1, count // 2, count)
    await stream.until(lambda: len(stream.history) >= 9)
    versions = {key(n): [stream.items[key(n)].version] for n in (1, count // 2, count)}
    for item, version, _ in stream.history:
        versions[item].append(version)
    assert list(versions.values()) == [[1, 2, 3, 4]] * 3
    assert len(stream.items) == count
    assert not any(message.resume_token for message in stream.messages if message.HasField("snapshot"))
    stream.call.cancel()


async def test_snapshots_taken_amid_changes_continue_without_a_gap(service: RunningService) -> None:
    await add_parcels(service.database, *[{}] * 20)
    rounds = 12

    async def change(number: int) -> None:
        for turn in range(rounds):
            await update(service, ("Selected", "New")[turn % 2], number, number + 10)

    async def watch() -> None:
        async with watching(service) as stream:
            versions = {item.id: item.version for item in stream.items.values()}
            seen = 0
            while any(version < rounds + 1 for version in versions.values()):
                await stream.events(seen + 1)
                for item, version, _ in stream.history[seen:]:
                    assert version == versions[item] + 1
                    versions[item] = version
                seen = len(stream.history)

    async with asyncio.TaskGroup() as group:
        for number in range(1, 11):
            group.create_task(change(number))
            group.create_task(watch())


async def test_a_transaction_that_a_snapshot_does_not_see_comes_after_it(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    late = await connect(service.database.url, name="late", autocommit=False)
    async with late:
        await curate_in(late, "Selected", 1)
        await update(service, "Selected", 2)
        async with watching(service) as stream:
            assert [item.version for item in stream.items.values()] == [1, 2]
            await late.commit()
            await update(service, "New", 2)
            assert await stream.events(2) == [(key(1), 2, "curate"), (key(2), 3, "curate")]


@pytest.mark.parametrize("of_batch", [False, True])
async def test_the_token_of_every_message_gives_exactly_the_rest(service: RunningService, of_batch: bool) -> None:
    await add_parcels(service.database, *[{}] * 6)
    batch = (await update(service, "Scan", 1, 2, 3, 4)).batch.batch_id
    selection = {"batch_id": batch} if of_batch else {}
    async with watching(service, **selection) as stream:
        # Each change waits for the one before, so that each has a message, and so a token, of its own.
        for number in (1, 2, 3, 4):
            await claim_and_finish(service, 1, "fail" if number == 3 else "find_nothing")
            await stream.events(2 * number)
        await update(service, "Selected", 5, 6)
        await update(service, "Archived", 1, 5)
        await stream.events(9 if of_batch else 12)
        whole = stream.history
    tokens = [(i, m.resume_token) for i, m in enumerate(stream.messages) if m.resume_token]
    assert len(tokens) >= 5
    for index, token in tokens:
        rest = whole[len(events_of(stream.messages[: index + 1])) :]
        resumed = Stream(service, resume_token=token, **selection)
        assert await resumed.events(len(rest)) == rest
        resumed.call.cancel()


async def test_the_token_of_a_batch_starts_just_behind_it(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    token = (await update(service, "Selected", 1, 2)).resume_token
    await update(service, "Archived", 2)
    stream = Stream(service, resume_token=token)
    assert await stream.events(1) == [(key(2), 3, "curate")]
    assert not stream.items
    stream.call.cancel()


async def test_without_a_snapshot_a_watch_starts_at_now(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with watching(service) as other:
        await update(service, "Selected", 1)
        await other.events(1)  # now everybody's now is behind it
    async with watching(service, skip_snapshot=True) as stream:
        await update(service, "Archived", 1)
        assert await stream.events(1) == [(key(1), 3, "curate")]
        assert not stream.items


async def test_an_event_says_all_there_is_to_know(service: RunningService) -> None:
    await add_parcels(service.database, {})
    async with watching(service) as stream:
        request = pb.BatchUpdateStatusRequest(resource="parcels", status="Scan", reason="for the fair")
        request.ids.ids.append(key(1))
        batch = (await service.stub.BatchUpdateStatus(request)).batch.batch_id
        await claim_and_finish(service, 1, "fail")
        await stream.events(3)
    queued, claimed, failed = (event for message in stream.messages for event in message.events.events)
    assert (queued.previous_status, queued.status) == ("New", "Scan")
    assert (queued.queue_status, queued.reason) == (pb.QUEUE_STATUS_QUEUED, "for the fair")
    assert (queued.batch_id, queued.cause_batch_id, claimed.cause_batch_id) == (batch, batch, "")
    assert (failed.batch_id, failed.error, failed.attempt) == (batch, "no", 1)
    assert (failed.previous_queue_status, failed.queue_status) == (pb.QUEUE_STATUS_PROCESSING, pb.QUEUE_STATUS_FAILED)


async def test_a_batch_is_told_in_numbers_and_ends_the_stream_when_done(service: RunningService) -> None:
    await add_parcels(service.database, *[{}] * 5)
    batch = (await update(service, "Scan", 1, 2, 3, 4, 5)).batch.batch_id
    async with watching(service, batch_id=batch, end_when_done=True) as stream:
        first = (await stream.part("progress")).progress
        assert (first.batch_id, first.total, first.queued, first.done) == (batch, 5, 5, False)
        await update(service, "Archived", 5)
        await claim_and_finish(service, 1, "fail")
        await claim_and_finish(service, 3)
        await stream.to_the_end()
    assert len(stream.history) == 9
    last = stream.messages[-1].progress
    assert (last.total, last.completed, last.failed, last.dequeued, last.done) == (5, 3, 1, 1, True)
    assert [m.progress.done for m in stream.messages if m.HasField("progress")].count(True) == 1


async def test_a_batch_that_is_done_already_ends_its_stream_at_once(service: RunningService) -> None:
    await add_parcels(service.database, {})
    batch = (await update(service, "Selected", 1)).batch.batch_id
    async with watching(service, batch_id=batch, end_when_done=True) as stream:
        await stream.to_the_end()
        assert stream.messages[-1].progress.done


async def test_a_batch_that_is_done_while_a_snapshot_of_it_is_taken_ends_its_stream(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_parcels(service.database, {})
    batch = (await update(service, "Scan", 1)).batch.batch_id
    taken = Snapshots.taken

    @asynccontextmanager
    async def taken_late(snapshots: Snapshots, watch: WatchRequest) -> AsyncIterator[Snapshot]:
        await claim_and_finish(service, 1)
        async with taken(snapshots, watch) as snapshot:
            yield snapshot

    monkeypatch.setattr(Snapshots, "taken", taken_late)
    # So that the numbers from before the snapshot are still new enough behind it.
    monkeypatch.setattr("curation_service.progress.INTERVAL_S", 2.0)
    async with watching(service, batch_id=batch, end_when_done=True) as stream:
        await stream.to_the_end()
        assert stream.messages[-1].progress.done


async def test_done_is_not_said_before_the_events_that_an_open_transaction_holds_back(service: RunningService) -> None:
    await add_parcels(service.database, {}, {})
    queued = await update(service, "Scan", 1)
    late = await connect(service.database.url, name="late", autocommit=False)
    async with late:
        await curate_in(late, "Selected", 2)
        await claim_and_finish(service, 1)
        fields = {"batch_id": queued.batch.batch_id, "resume_token": queued.resume_token}
        stream = Stream(service, end_when_done=True, **fields)
        progress = (await stream.part("progress")).progress
        assert (progress.completed, progress.done, stream.history) == (1, False, [])
        await late.commit()
        await stream.to_the_end()
    assert [kind for _, _, kind in stream.history] == ["claim", "find_nothing"]
    assert stream.messages[-1].progress.done


async def test_a_position_that_was_drawn_and_rolled_back_delays_neither_done_nor_a_token(
    service: RunningService,
) -> None:
    await add_parcels(service.database, {}, {})
    queued = await update(service, "Scan", 1)
    await claim_and_finish(service, 1)
    careless = await connect(service.database.url, name="careless", autocommit=False)
    async with careless:
        await curate_in(careless, "Selected", 2)
        await careless.rollback()
    fields = {"batch_id": queued.batch.batch_id, "resume_token": queued.resume_token}
    stream = Stream(service, end_when_done=True, **fields)
    await stream.to_the_end()
    assert stream.messages[-1].progress.done
    async with watching(service) as other:
        while not (await other.read() or Response()).resume_token:
            pass


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"resource": "nothing"}, "NOT_FOUND", "UNKNOWN_RESOURCE"),
        ({"batch_id": "987654"}, "NOT_FOUND", "UNKNOWN_BATCH"),
        ({"batch_id": "garbage"}, "NOT_FOUND", "UNKNOWN_BATCH"),
        ({"ids": pb.ItemIds()}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({"ids": pb.ItemIds(ids=["garbage"])}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({"filter": "nonsense ="}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({"end_when_done": True}, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        ({"resume_token": "garbage"}, "INVALID_ARGUMENT", "TOKEN_INVALID"),
        ({"resume_token": "gärbäge"}, "INVALID_ARGUMENT", "TOKEN_INVALID"),
        ({"resume_token": encode_token(uuid.UUID(int=7), 1)}, "INVALID_ARGUMENT", "TOKEN_INVALID"),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    service: RunningService, fields: dict[str, Any], code: str, reason: str
) -> None:
    request = pb.WatchStatusRequest(**{"resource": "parcels", **fields})
    refusal = await refused(service.stub.WatchStatus(request).read())
    assert (refusal.code.name, refusal.reason) == (code, reason)


async def test_a_batch_of_another_resource_cannot_be_watched(service: RunningService) -> None:
    async with service.database.transaction() as connection:
        inserted = "INSERT INTO status_batch (resource, status) VALUES ('places', 'New') RETURNING id::text"
        ((batch,),) = await (await connection.execute(inserted)).fetchall()
    request = pb.WatchStatusRequest(resource="parcels", batch_id=batch)
    assert (await refused(service.stub.WatchStatus(request).read())).reason == "UNKNOWN_BATCH"


async def test_a_token_that_the_log_no_longer_reaches_back_to_has_expired(service: RunningService) -> None:
    await add_parcels(service.database, {})
    token = (await update(service, "Selected", 1)).resume_token
    async with service.database.core() as connection:
        await connection.execute(text("UPDATE event_log SET pruned_through = (SELECT max(position) FROM status_event)"))
    async with watching(service, resume_token=token, skip_snapshot=True):
        pass  # everything behind the token is still there
    async with service.database.core() as connection:
        await connection.execute(text("UPDATE event_log SET pruned_through = pruned_through + 1"))
    refusal = await refused(
        service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", resume_token=token)).read()
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")


async def test_a_token_from_after_a_database_was_restored_asks_for_a_snapshot(service: RunningService) -> None:
    await add_parcels(service.database, {})
    token = (await update(service, "Selected", 1)).resume_token
    async with service.database.transaction() as connection:
        log_id = (await log_identity(connection)).id
    ahead = encode_token(log_id, decode_token(token, log_id) + 1)
    request = pb.WatchStatusRequest(resource="parcels", resume_token=ahead)
    refusal = await refused(service.stub.WatchStatus(request).read())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")
    assert "restored" in refusal.message


async def test_heartbeats_bring_tokens_while_nothing_happens(database_url: str) -> None:
    async with running_service(database_url, heartbeat_s=0.02) as service:
        await add_parcels(service.database, {}, {})
        async with watching(service, ids=pb.ItemIds(ids=[key(1)])) as stream:
            old = (await stream.part("heartbeat")).resume_token
            await update(service, "Selected", 2)
            while (token := (await stream.part("heartbeat")).resume_token) == old:
                assert token
        assert not stream.history


@asynccontextmanager
async def held_back(service: RunningService) -> AsyncIterator[tuple[Stream, Connection]]:
    """A stream whose snapshot has a change that it is yet to pass, and the open transaction that holds it back."""
    await add_parcels(service.database, {}, {})
    async with await connect(service.database.url, name="late", autocommit=False) as late:
        await curate_in(late, "Selected", 1)
        await update(service, "Selected", 2)
        async with watching(service) as stream:
            yield stream, late
            assert not stream.history


async def test_a_stream_that_an_open_transaction_holds_back_is_seen_to_live_and_has_a_token_once_it_may(
    database_url: str,
) -> None:
    async with running_service(database_url, heartbeat_s=0.02) as service, held_back(service) as (stream, late):
        assert [(await stream.part("heartbeat")).resume_token for _ in range(2)] == ["", ""]
        await late.rollback()
        while not (await stream.part("heartbeat")).resume_token:
            pass


async def test_a_stream_that_was_held_back_has_its_token_at_once_and_waits_for_no_heartbeat(database_url: str) -> None:
    async with running_service(database_url, heartbeat_s=300) as service, held_back(service) as (stream, late):
        await late.rollback()
        assert (await stream.part("heartbeat")).resume_token


async def test_a_stopping_service_ends_streams_and_their_tokens_go_on_elsewhere(database_url: str) -> None:
    async with running_service(database_url, grace_s=20) as service:
        await add_parcels(service.database, {})
        async with watching(service) as stream:
            await update(service, "Selected", 1)
            await stream.events(1)
            service.server.stopping.set()
            refusal = await refused(stream.to_the_end())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")
        token = stream.messages[-1].resume_token
        async with running_service(database_url) as other:
            await update(other, "Archived", 1)
            resumed = Stream(other, resume_token=token)
            assert await resumed.events(1) == [(key(1), 3, "curate")]
            resumed.call.cancel()


async def test_a_stream_that_is_old_enough_ends(database_url: str) -> None:
    async with running_service(database_url, stream_age_max_s=0.05, heartbeat_s=300) as service:
        refusal = await refused(Stream(service, skip_snapshot=True).to_the_end())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_STOPPING")


async def test_a_stream_that_an_open_transaction_holds_back_grows_old_too(database_url: str) -> None:
    async with running_service(database_url, stream_age_max_s=0.05, heartbeat_s=300) as service:
        await add_parcels(service.database, {}, {})
        late = await connect(database_url, name="late", autocommit=False)
        async with late:
            await curate_in(late, "Selected", 1)
            await update(service, "Selected", 2)  # in the snapshot, and not yet in the stream
            stream = Stream(service)
            await refused(stream.to_the_end())
        assert not any(message.resume_token for message in stream.messages)
