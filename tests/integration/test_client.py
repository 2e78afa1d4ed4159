"""Both clients against a real gRPC server on this machine, whose streams a test writes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from uuid import UUID

import grpc
import pytest

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client import aio, sync
from curation_client.watch import Backoff, SnapshotStart, Update
from tests.support.eventually import DEADLINE_S as WAIT_S

QUICK = Backoff(first_s=0.001, longest_s=0.01)


def event(number: int) -> pb.WatchStatusResponse:
    """An event and the token behind it."""
    events = pb.StatusEvents(events=[pb.StatusEvent(item_id=str(number), version=number)])
    return pb.WatchStatusResponse(resume_token=f"t{number}", events=events)


HEARTBEAT = pb.WatchStatusResponse(resume_token="beat", heartbeat=pb.Heartbeat())
SNAPSHOT = pb.WatchStatusResponse(snapshot=pb.ItemsSnapshot(items=[pb.Item(id="1")]))
SNAPSHOT_END = pb.WatchStatusResponse(resume_token="end", snapshot_end=pb.SnapshotEnd(item_count=1))
NOBODY = "127.0.0.1:1"
"""No service listens there."""
Script = list[pb.WatchStatusResponse | grpc.StatusCode]
"""What a stream sends, and the status it ends with, if any."""


class ScriptedService(pb_grpc.CurationServiceServicer):
    """Plays one script per stream; a stream without a script stays open until its client leaves."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.tokens: list[str] = []
        self.updates: list[pb.BatchUpdateStatusRequest] = []
        self._left = threading.Event()

    async def is_left(self) -> bool:
        """Returns once a stream has ended here; False when that takes too long."""
        return await asyncio.to_thread(self._left.wait, WAIT_S)

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        # Not by a `finally`: a stream that is cancelled amid its sending never gets there.
        context.add_done_callback(lambda _: self._left.set())  # type: ignore[arg-type] # any function will do
        self.tokens.append(request.resume_token)
        for step in self.scripts.pop(0) if self.scripts else []:
            if isinstance(step, grpc.StatusCode):
                if step is grpc.StatusCode.OK:
                    return
                await context.abort(step, "scripted")
            else:
                yield step
        await asyncio.Event().wait()

    async def BatchUpdateStatus(  # noqa: N802
        self, request: pb.BatchUpdateStatusRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> pb.BatchUpdateStatusResponse:
        self.updates.append(request)
        if len(self.updates) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")
        return pb.BatchUpdateStatusResponse(replayed=True)


def scripted(*scripts: Script) -> ScriptedService:
    """A service of these scripts; the calls that no test makes are left as generated, unimplemented."""
    return ScriptedService(*scripts)  # type: ignore[abstract]


@asynccontextmanager
async def serving(service: pb_grpc.CurationServiceServicer) -> AsyncIterator[str]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    pb_grpc.add_CurationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


Watched = Callable[[str, int | None, str], Awaitable[list[Update]]]
"""Watches with one of the clients; a count of None is to the end of the batch."""


async def watched_aio(address: str, count: int | None, token: str) -> list[Update]:
    updates: list[Update] = []
    async with aio.CurationClient(address, backoff=QUICK) as client:
        stream = client.watch("places", batch_id="1", resume_token=token, end_when_done=count is None)
        async with aclosing(stream):
            async for update in stream:
                updates.append(update)
                if len(updates) == count:
                    break
    return updates


async def watched_sync(address: str, count: int | None, token: str) -> list[Update]:
    def collect() -> Iterator[Update]:
        with sync.CurationClient(address, backoff=QUICK) as client:
            stream = client.watch("places", batch_id="1", resume_token=token, end_when_done=count is None)
            with closing(stream):
                for number, update in enumerate(stream, 1):
                    yield update
                    if number == count:
                        break

    return await asyncio.to_thread(lambda: list(collect()))


both = pytest.mark.parametrize("watched", [watched_aio, watched_sync])


@both
async def test_a_watch_outlives_lost_streams_from_the_last_token(watched: Watched) -> None:
    service = scripted([event(1), event(2), grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.UNAVAILABLE], [event(3)])
    async with serving(service) as address:
        updates = await watched(address, 3, "t0")
    assert [update.resume_token for update in updates] == ["t1", "t2", "t3"]
    assert service.tokens == ["t0", "t2", "t2"]


@both
@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
async def test_a_watch_outlives_a_stream_that_a_proxy_has_broken_off(watched: Watched, code: grpc.StatusCode) -> None:
    service = scripted([event(1), code], [event(2)])
    async with serving(service) as address:
        updates = await watched(address, 2, "t0")
    assert [update.resume_token for update in updates] == ["t1", "t2"]
    assert service.tokens == ["t0", "t1"]


@both
async def test_a_proxy_for_what_is_outside_is_not_for_the_service(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving(scripted([event(1)])) as address, asyncio.timeout(WAIT_S):
        assert [update.resume_token for update in await watched(address, 1, "")] == ["t1"]


@both
async def test_heartbeats_are_hidden_and_their_tokens_used(watched: Watched) -> None:
    service = scripted([HEARTBEAT, grpc.StatusCode.UNAVAILABLE], [HEARTBEAT, event(1)])
    async with serving(service) as address:
        updates = await watched(address, 1, "t0")
    assert [update.resume_token for update in updates] == ["t1"]
    assert service.tokens == ["t0", "beat"]


@both
async def test_an_expired_token_is_given_up_for_a_snapshot(watched: Watched) -> None:
    service = scripted([grpc.StatusCode.OUT_OF_RANGE], [SNAPSHOT, SNAPSHOT_END, event(1)])
    async with serving(service) as address:
        updates = await watched(address, 4, "old")
    expected = [SnapshotStart(), SNAPSHOT.snapshot, SNAPSHOT_END.snapshot_end, event(1).events]
    assert [update.part for update in updates] == expected
    assert service.tokens == ["old", ""]


@both
async def test_a_watch_to_the_end_of_a_batch_ends_with_its_stream(watched: Watched) -> None:
    service = scripted([event(1), grpc.StatusCode.UNAVAILABLE], [event(2), grpc.StatusCode.OK])
    async with serving(service) as address:
        updates = await watched(address, None, "")
    assert [update.resume_token for update in updates] == ["t1", "t2"]


@both
async def test_what_cannot_be_mended_is_raised(watched: Watched) -> None:
    async with serving(scripted([grpc.StatusCode.NOT_FOUND])) as address:
        with pytest.raises(grpc.RpcError) as raised:
            await watched(address, 1, "")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("form", ["aio", "sync"])
async def test_a_watch_of_a_service_that_is_not_there_says_so_when_it_is_not_to_wait(form: str) -> None:
    def first_of_plain() -> Update:
        with sync.CurationClient(NOBODY, wait_for_ready=False) as plain:
            return next(plain.watch("places"))

    async def first() -> Update:
        async with aio.CurationClient(NOBODY, wait_for_ready=False) as client:
            return await anext(client.watch("places"))

    watching = first() if form == "aio" else asyncio.to_thread(first_of_plain)
    with pytest.raises(grpc.RpcError) as raised:
        await asyncio.wait_for(watching, WAIT_S)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


LARGE = pb.WatchStatusResponse(resume_token="x" * 1_000_000, heartbeat=pb.Heartbeat())
"""A few of them are more than the server may send before somebody reads."""


@both
@pytest.mark.parametrize("more", [[], [LARGE] * 5], ids=["waiting", "sending"])
async def test_a_stream_that_is_left_is_cancelled_at_the_server(watched: Watched, more: Script) -> None:
    service = scripted([event(1), *more])
    async with serving(service) as address:
        await watched(address, 1, "")
        assert await service.is_left()


@pytest.mark.parametrize("form", ["aio", "sync"])
async def test_a_watch_that_is_left_without_closing_it_is_cancelled_at_the_server(form: str) -> None:
    service = scripted([event(1)])

    def leave_plainly(client: sync.CurationClient) -> None:
        for _ in client.watch("places"):
            break

    async with serving(service) as address:
        if form == "aio":
            async with aio.CurationClient(address) as client:
                async for _ in client.watch("places"):
                    break
                assert await service.is_left()  # the client is still open
        else:
            with sync.CurationClient(address) as plain:
                await asyncio.to_thread(leave_plainly, plain)
                assert await service.is_left()


async def test_a_plain_watch_that_an_error_ends_is_cancelled_at_the_server_while_the_error_is_kept() -> None:
    service = scripted([event(1)])

    def fail(client: sync.CurationClient) -> BaseException:
        stream = client.watch("places")
        next(stream)
        with pytest.raises(KeyboardInterrupt) as kept:
            stream.throw(KeyboardInterrupt())
        return kept.value

    async with serving(service) as address:
        with sync.CurationClient(address) as client:
            kept = await asyncio.to_thread(fail, client)
            assert await service.is_left()  # the client is still open, and what led to the error in reach
            assert isinstance(kept, KeyboardInterrupt)


async def test_a_cancelled_watch_cancels_its_stream_and_stays_cancelled() -> None:
    service = scripted([event(1)])
    seen = asyncio.Event()

    async def watch(address: str) -> None:
        async with aio.CurationClient(address) as client:
            async for _ in client.watch("places"):
                seen.set()

    async with serving(service) as address:
        watching = asyncio.create_task(watch(address))
        await seen.wait()
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching
        assert await service.is_left()


async def test_closing_the_client_ends_the_watch_of_another_thread() -> None:
    service = scripted([event(1)])
    async with serving(service) as address:
        client = sync.CurationClient(address)
        seen = threading.Event()

        def watch() -> int:
            count = 0
            for _ in client.watch("places"):
                count += 1
                seen.set()
            return count

        watching = asyncio.create_task(asyncio.to_thread(watch))
        assert await asyncio.to_thread(seen.wait, WAIT_S)
        client.close()
        assert await asyncio.wait_for(watching, WAIT_S) == 1


SLOW = Backoff(first_s=1_000, longest_s=1_000)


@pytest.mark.parametrize("script", [[event(1)], [event(1), grpc.StatusCode.UNAVAILABLE]], ids=["reading", "waiting"])
async def test_closing_the_client_ends_the_watch_of_another_task(script: Script) -> None:
    seen = asyncio.Event()
    async with serving(scripted(script)) as address:
        client = aio.CurationClient(address, backoff=SLOW)

        async def watch() -> int:
            count = 0
            async for _ in client.watch("places"):
                count += 1
                seen.set()
            return count

        watching = asyncio.create_task(watch())
        await seen.wait()
        await client.close()
        assert await asyncio.wait_for(watching, WAIT_S) == 1
        async with aclosing(client.watch("places")) as late:
            assert [update async for update in late] == []


@pytest.mark.parametrize("count", [1, 100_000])
async def test_a_batch_that_met_an_unavailable_service_is_repeated_under_its_own_name(count: int) -> None:
    service = scripted()
    async with serving(service) as address, aio.CurationClient(address) as client:
        answer = await client.set_status("places", "Selected", ids=[str(UUID(int=n)) for n in range(count)])
    assert answer.replayed
    assert len(service.updates) == 2
    assert service.updates[0] == service.updates[1]


class SilentService(pb_grpc.CurationServiceServicer):
    """Answers nothing."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def GetBatch(  # noqa: N802
        self, request: pb.GetBatchRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> pb.GetBatchResponse:
        self.called.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "cancelled"])
async def test_closing_the_client_fails_the_call_of_another_task_and_cancels_nobody(closes: bool) -> None:
    service = SilentService()  # type: ignore[abstract]
    async with serving(service) as address, aio.CurationClient(address) as client:
        calling = asyncio.create_task(client.get_batch("1"))
        await service.called.wait()
        if closes:
            await client.close()
        else:
            calling.cancel()
        await asyncio.wait({calling}, timeout=WAIT_S)
        assert calling.cancelled() is not closes
        if closes:
            error = calling.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.CANCELLED
