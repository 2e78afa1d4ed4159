"""An HTTP server for GET alone, for the demo's place details: a few lines, and several thousand answers a second.

No bodies, no pipelining, no TLS: its only clients are this project's own, on this machine.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

HEAD_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back for one request."""

    status: HTTPStatus
    """Its status."""
    body: bytes
    """Its body."""
    content_type: str = "application/json"
    """What the body is."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers."""
    delay_s: float = 0.0
    """How much later it is sent."""

    def encode(self) -> bytes:
        """The answer as HTTP/1.1."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


async def serve(answer: Callable[[str, Mapping[str, str]], Answer]) -> asyncio.Server:
    """Listens at a free port of this machine (see `address_of`), and answers until the server is closed.

    Args:
        answer: gives the answer for a path and its headers, their names in lower case.
    """
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Connection(loop, answer), "127.0.0.1", 0, backlog=1024)


def address_of(server: asyncio.Server) -> str:
    """Where it listens, as `http://host:port`."""
    listening: socket.socket = server.sockets[0]
    host, port = listening.getsockname()[:2]
    return f"http://{host}:{port}"


class _Connection(asyncio.Protocol):
    """Reads heads of requests from one connection, and writes their answers when they are due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: Callable[[str, Mapping[str, str]], Answer]) -> None:
        self._loop = loop
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the way to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers as soon as a head is complete."""
        self._received += data
        if len(self._received) > HEAD_BYTES_MAX:
            self._transport.abort()
        elif b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._respond(head.decode("latin-1").split("\r\n"))

    def _respond(self, lines: list[str]) -> None:
        method, _, rest = lines[0].partition(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if method == "GET":
            answer = self._answer(rest.partition(" ")[0], headers)
        else:
            answer = Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"", headers={"Connection": "close"})
        close = headers.get("connection", "").lower() == "close" or method != "GET"
        self._loop.call_later(answer.delay_s, self._send, answer.encode(), close)

    def _send(self, encoded: bytes, close: bool) -> None:
        if not self._transport.is_closing():
            self._transport.write(encoded)
            if close:
                self._transport.close()
