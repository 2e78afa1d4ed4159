"""A TCP proxy that makes the network misbehave: it cuts, refuses, and stalls either direction, as a test says.

It listens on a loopback port of its own and forwards to another one, or to a Unix socket, e.g. PostgreSQL's.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import make_url

from shared.db.embedded_site import SOCKET_NAME

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
"""Of `SO_LINGER`: closing resets the connection, so that the peer meets an error and not a polite end."""


class Direction(Enum):
    """A way through the proxy."""

    REQUESTS = "requests"
    """From who connected to the target."""
    ANSWERS = "answers"
    """From the target back."""


Gates = dict[Direction, asyncio.Event]
"""What is forwarded now: that whose gate is open."""


class Proxy:
    """`async with Proxy(target) as proxy:` and connect to `proxy.port`; `target` is a loopback port or a socket's path.

    Faults hold for the connections there are and those to come, until they are taken back.
    """

    def __init__(self, target: int | Path) -> None:
        self.port = 0
        """The port to connect to, once entered; the same through every refusal."""
        self.accepted_count = 0
        """Connections that were ever forwarded."""
        self._target = target
        self._placeholder = socket.socket()
        self._server: asyncio.Server | None = None
        self._gates = _open_gates()
        self._answer_bytes_left: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        # Bound, and never listening: while the proxy refuses, nobody else gets the port.
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._placeholder.bind((HOST, 0))
        self.port = self._placeholder.getsockname()[1]
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in list(self._conversations):
            task.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        self._placeholder.close()

    @property
    def open_count(self) -> int:
        """Connections that are forwarded now."""
        return len(self._conversations)

    def cut(self) -> None:
        """Resets all connections, on both sides; new ones are forwarded as before."""
        for writer in list(self._writers):
            _reset(writer)

    def refuse(self) -> None:
        """Refuses new connections and cuts those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def accept(self) -> None:
        """Forwards new connections again; nothing to do when it does."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._connected, HOST, self.port, reuse_port=True, limit=CHUNK_BYTES
            )

    def stall(self, *directions: Direction) -> None:
        """Forwards nothing more in these directions, or in both, and closes nothing: the peer that hangs."""
        for direction in directions or Direction:
            self._gates[direction].clear()

    def resume(self, *directions: Direction) -> None:
        """Takes a stall back: what was held is forwarded."""
        for direction in directions or Direction:
            self._gates[direction].set()

    def freeze(self) -> None:
        """Forwards nothing more, ever, over the connections there are, and closes none; new ones are forwarded."""
        self.stall()
        self._gates = _open_gates()

    def cut_after(self, answer_bytes: int) -> None:
        """Forwards so many more bytes of answers, over all connections, and ends the one of the last byte; once."""
        self._answer_bytes_left = answer_bytes

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._converse(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(self._conversations.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers, gates = [writer], self._gates
        self._writers.add(writer)
        try:
            far_reader, far_writer = await self._reach()
            self.accepted_count += 1
            writers.append(far_writer)
            self._writers.add(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(Direction.REQUESTS, gates, reader, far_writer))
                group.create_task(self._pump(Direction.ANSWERS, gates, far_reader, writer))
        except* OSError:
            pass  # either side went, or the target is not there: so does the other side
        finally:
            for each in writers:
                self._writers.discard(each)
                _reset(each)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
        return await asyncio.open_connection(HOST, self._target, limit=CHUNK_BYTES)

    async def _pump(
        self, direction: Direction, gates: Gates, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await gates[direction].wait()
            left = self._answer_bytes_left if direction is Direction.ANSWERS else None
            writer.write(chunk[:left])
            await writer.drain()
            if left is not None and left <= len(chunk):
                self._answer_bytes_left = None
                # Politely: a reset would take with it what the client has not read yet.
                writer.close()
                await writer.wait_closed()
                raise ConnectionResetError
            if left is not None:
                self._answer_bytes_left = left - len(chunk)
        if not writer.is_closing() and writer.can_write_eof():
            writer.write_eof()


def _open_gates() -> Gates:
    gates = {direction: asyncio.Event() for direction in Direction}
    for gate in gates.values():
        gate.set()
    return gates


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes at once; over TCP the peer meets a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


@asynccontextmanager
async def proxied(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a database's server, and the address of the database through it."""
    url = make_url(database_url)
    folder = url.query.get("host")
    target = Path(str(folder)) / SOCKET_NAME if folder else url.port or 5432
    async with Proxy(target) as proxy:
        rest = {name: value for name, value in url.query.items() if name not in ("host", "port")}
        through = url.set(host=HOST, port=proxy.port, query=rest)
        yield proxy, through.render_as_string(hide_password=False)
