"""The connection to NATS, and on it the stream of one log; the only module that knows the client.

The stream holds the newest readings, in memory, until they reach its bound. It is no second source of truth: what it
has lost, the table has. A message is stored only behind the one that its sender has seen last, so two who send at
once cannot mix their readings.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from curation_service.readings import Assembler, Relayed, last_of, pack, position_of
from shared.db.log import Mark
from shared.db.ring import Reading
from shared.errors import BackboneUnavailable

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
"""For NATS to answer."""
BEAT_S = 1.0
"""The relay sends a message at least this often, even if nothing happens."""
SILENCE_S = 3.0
"""After so long without a message the connection is taken for dead."""
STREAM_BYTES = 128 * 1024 * 1024
HEADER_BYTES = 1024
"""Room for the headers in a message of the greatest size."""
CLOCK_SKEW = timedelta(seconds=2)
"""How far the clocks of the servers of one cluster may differ; what comes twice because of it is skipped."""
READ_AHEAD = 10
"""Messages taken from the client's own, bounded buffer before they are asked for."""


class Backbone:
    """The stream of one log."""

    def __init__(self, client: Client, log_id: UUID) -> None:
        self._client = client
        self._stream = client.jetstream(timeout=TIMEOUT_S)
        self._name, self._subject = f"curation_{log_id.hex}", f"curation.log.{log_id.hex}"
        self._sequence = 0
        self._relay = uuid4().hex
        self.last: Mark | None = None
        """The last entry that the stream has had, where it is known."""
        self._heard: asyncio.Queue[Msg | None] = asyncio.Queue(READ_AHEAD)

    async def prepare(self) -> None:
        """Makes the stream where it is missing; one that an operator made is taken as it is."""
        with _errors():
            try:
                await self._stream.stream_info(self._name)
            except NotFoundError:
                await self._stream.add_stream(
                    StreamConfig(
                        name=self._name, subjects=[self._subject], storage=StorageType.MEMORY, max_bytes=STREAM_BYTES
                    )
                )

    async def position(self) -> int | None:
        """Up to where the log has been relayed, by whomever; None when the stream is empty. `publish` goes on there."""
        with _errors():
            try:
                last = await self._stream.get_last_msg(self._name, self._subject)
            except NotFoundError:
                self._sequence = (await self._stream.stream_info(self._name)).state.last_seq
                return None
            self._sequence = last.seq or 0
            headers = last.headers or {}
            self.last = last_of(headers)
            return position_of(headers)

    async def purge(self) -> None:
        """Empties the stream: what it has is of a log that no longer is."""
        with _errors():
            await self._stream.purge_stream(self._name)
        self.last = None

    async def publish(self, after: int, reading: Reading, *, lag_s: float) -> None:
        """Stores what follows a position.

        Raises:
            BackboneUnavailable: also when another has stored something since.
        """
        if reading.entries:
            self.last = reading.entries[-1].position, reading.entries[-1].xid
        size_max = self._client.max_payload - HEADER_BYTES
        for headers, body in pack(after, reading, lag_s=lag_s, relay=self._relay, last=self.last, size_max=size_max):
            headers[Header.EXPECTED_LAST_SEQUENCE.value] = str(self._sequence)
            with _errors():
                self._sequence = (await self._stream.publish(self._subject, body, headers=headers)).seq

    async def readings(self, since: datetime | None) -> AsyncGenerator[tuple[datetime, Relayed], None]:
        """Each reading with the time of its message: those from a time on that the stream has, or only new ones.

        Raises:
            BackboneUnavailable: also when nothing is heard for `SILENCE_S`.
        """
        inbox, assembler = self._client.new_inbox(), Assembler()
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.NEW,
            opt_start_time=since - CLOCK_SKEW if since else None,
            deliver_subject=inbox,
        )
        with _errors():
            await self._client.subscribe(inbox, cb=self._heard.put)
            await self._stream.add_consumer(self._name, config)
        while True:
            with _errors():
                async with asyncio.timeout(SILENCE_S):
                    message = await self._heard.get()
            if message is None:
                raise BackboneUnavailable("the connection is lost")
            reading = assembler.add(message.headers or {}, message.data)
            if reading is not None:
                yield message.metadata.timestamp, reading

    async def lost(self) -> None:
        """Called when the connection has ended."""
        with suppress(asyncio.QueueFull):
            self._heard.put_nowait(None)


@asynccontextmanager
async def connected(url: str, log_id: UUID, *, name: str) -> AsyncIterator[Backbone]:
    """The backbone, for as long as one connection lasts: behind the next one, the stream may be elsewhere."""
    client = Client()
    backbone = Backbone(client, log_id)
    try:
        with _errors():
            await client.connect(
                url.split(","),
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=2,
                closed_cb=backbone.lost,
                error_cb=_on_error,
            )
        await backbone.prepare()
        yield backbone
    finally:
        await client.close()


async def _on_error(error: Exception) -> None:
    log.debug("NATS: %s", error)


@contextmanager
def _errors() -> Iterator[None]:
    """Turns whatever NATS or the way to it may raise into `BackboneUnavailable`, and loses no cancellation.

    The client waits by `asyncio.wait_for`; before Python 3.12 that forgets a cancellation which comes with the answer.
    """
    try:
        yield
    except (NatsError, OSError, TimeoutError) as error:
        raise BackboneUnavailable(str(error) or type(error).__name__) from error
    finally:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
