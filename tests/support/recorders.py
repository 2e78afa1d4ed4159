"""Watchers that write down all they are told: the bare stream in its ways of use, and both forms of the client."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from uuid import UUID

import grpc
import grpc.aio

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client import aio, sync
from curation_client.watch import LOST, Backoff, SnapshotStart, Update
from shared.db.token import decode_token
from tests.support.history import EVERYTHING, Event, Message, Selection, Stream, Watcher

RESOURCE = "places"
BACKOFF = Backoff(first_s=0.05, longest_s=0.5)
CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 300),
)
SILENCE_S = 15.0
"""A bare stream that says nothing for so long is left and opened again, as a client with keepalive would."""


class Recorder(ABC):
    """One watcher; `run` goes on until it is cancelled."""

    def __init__(self, name: str, log_id: UUID, selection: Selection = EVERYTHING, **fields: Any) -> None:
        """`selection` says what `fields`, those of the request, ask for."""
        self.watcher = Watcher(name, selection)
        self.received_count = 0
        """Events."""
        self._log_id, self._fields = log_id, fields
        self._same: dict[Event, Event] = {}

    @abstractmethod
    async def run(self) -> None:
        """Watches."""

    @property
    def reached(self) -> int:
        """The position of its last token."""
        streams = self.watcher.streams
        return (streams[-1].reached or -1) if streams else -1

    def opened(self, token: str, *, with_snapshot: bool, at_s: float) -> Stream:
        """A stream begins."""
        after = decode_token(token, self._log_id) if token else None
        self.watcher.streams.append(Stream(at_s, after, with_snapshot=with_snapshot))
        return self.watcher.streams[-1]

    def told(self, part: object, token: str) -> None:
        """Something came."""
        events: Iterable[pb.StatusEvent] = part.events if isinstance(part, pb.StatusEvents) else ()
        items: Iterable[pb.Item] = part.items if isinstance(part, pb.ItemsSnapshot) else ()
        made = tuple(self._event(event) for event in events)
        self.received_count += len(made)
        message = Message(
            decode_token(token, self._log_id) if token else None,
            made,
            tuple((item.id, item.version) for item in items),
            isinstance(part, pb.SnapshotEnd),
        )
        self.watcher.streams[-1].messages.append(message)

    def _event(self, event: pb.StatusEvent) -> Event:
        made = Event(event.item_id, event.version, event.kind, event.step)
        return self._same.setdefault(made, made)


class BareStream(Recorder):
    """The generated stub, with no help: it opens its stream again from the last token, at whichever replica."""

    def __init__(
        self,
        name: str,
        log_id: UUID,
        ports: Sequence[int],
        *,
        pause_s: float = 0.0,
        hops_after: int = 0,
        **options: Any,
    ) -> None:
        """`pause_s`: between two messages; `hops_after`: it leaves after so many, for the next replica."""
        super().__init__(name, log_id, **options)
        self.progress: list[pb.BatchProgress] = []
        self._ports, self._pause_s, self._hops_after = list(ports), pause_s, hops_after

    async def run(self) -> None:
        token = str(self._fields.pop("resume_token", ""))
        while True:
            self._ports.append(self._ports.pop(0))
            async with grpc.aio.insecure_channel(f"127.0.0.1:{self._ports[0]}", options=CHANNEL) as channel:
                request = pb.WatchStatusRequest(resource=RESOURCE, resume_token=token, **self._fields)
                with_snapshot = not token and not request.skip_snapshot
                self.opened(token, with_snapshot=with_snapshot, at_s=time.monotonic())
                call = pb_grpc.CurationServiceStub(channel).WatchStatus(request)
                try:
                    token = await self._read(call, token)
                    if request.end_when_done and not self._hops_after:
                        return
                except TimeoutError:
                    token = self._last_token
                except grpc.aio.AioRpcError as error:
                    token = self._last_token
                    if error.code() not in LOST:
                        raise
                    await asyncio.sleep(random.uniform(0, 0.2))
                finally:
                    call.cancel()

    async def _read(self, call: grpc.aio.UnaryStreamCall[Any, Any], token: str) -> str:
        self._last_token, count = token, 0
        while True:
            async with asyncio.timeout(SILENCE_S):
                message: Any = await call.read()
            if not isinstance(message, pb.WatchStatusResponse):  # then it is EOF
                return self._last_token
            self._last_token = message.resume_token or self._last_token
            if message.HasField("progress"):
                self.progress.append(message.progress)
            self.told(getattr(message, message.WhichOneof("part") or "heartbeat"), message.resume_token)
            count += 1
            if self._hops_after and count >= self._hops_after and message.resume_token:
                return self._last_token
            if self._pause_s:
                await asyncio.sleep(self._pause_s)


class AsyncClient(Recorder):
    """The client's asyncio form; it hides its reconnects, so all it yields between two snapshots is one stream."""

    def __init__(self, name: str, log_id: UUID, port: int, **options: Any) -> None:
        super().__init__(name, log_id, **options)
        self._port = port

    async def run(self) -> None:
        begin(self, self._fields)
        async with aio.CurationClient(f"127.0.0.1:{self._port}", backoff=BACKOFF) as client:
            updates = client.watch(RESOURCE, **self._fields)
            async with aclosing(updates):
                async for update in updates:
                    take(self, update)


class PlainClient(Recorder):
    """The client's form for threads."""

    def __init__(self, name: str, log_id: UUID, port: int, **options: Any) -> None:
        super().__init__(name, log_id, **options)
        self._client = sync.CurationClient(f"127.0.0.1:{port}", backoff=BACKOFF)
        self._over = threading.Event()

    async def run(self) -> None:
        begin(self, self._fields)
        watching = asyncio.create_task(asyncio.to_thread(self._watch))
        try:
            await asyncio.shield(watching)
        finally:
            self._over.set()
            self._client.close()
            await watching

    def _watch(self) -> None:
        try:
            for update in self._client.watch(RESOURCE, **self._fields):
                take(self, update)
        except ValueError:
            # gRPC's way to say that the channel was closed, by `run`, before the watch began anew.
            if not self._over.is_set():
                raise


def begin(recorder: Recorder, fields: Mapping[str, Any]) -> None:
    """A client's watch begins: with a snapshot, it says so itself."""
    if fields.get("resume_token") or fields.get("skip_snapshot"):
        recorder.opened(fields.get("resume_token", ""), with_snapshot=False, at_s=time.monotonic())


def take(recorder: Recorder, update: Update) -> None:
    """What a client's watch yields."""
    if isinstance(update.part, SnapshotStart):
        # When its stream was opened is not told, so neither how new the snapshot must be.
        recorder.opened("", with_snapshot=True, at_s=float("-inf"))
    else:
        recorder.told(update.part, update.resume_token)
