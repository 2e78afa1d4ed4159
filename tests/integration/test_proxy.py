"""The proxy of the tests: a fault that it is told to cause is the fault that a client meets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.proxy import HOST, Direction, Proxy

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[Proxy], Awaitable[Connection]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1024):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest_asyncio.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Proxy]:
    server = await asyncio.start_unix_server(echo, tmp_path / "echo")
    async with Proxy(tmp_path / "echo") as proxy:
        yield proxy
    server.close()


@pytest.fixture
def connect() -> Iterator[Dial]:
    writers: list[asyncio.StreamWriter] = []

    async def dial(proxy: Proxy) -> Connection:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        writers.append(writer)
        return reader, writer

    yield dial
    for writer in writers:
        writer.close()


async def said(connection: Connection, words: bytes) -> bytes:
    reader, writer = connection
    writer.write(words)
    return await reader.readexactly(len(words))


async def test_it_forwards_both_ways_to_a_unix_socket_and_to_a_port(proxy: Proxy, connect: Dial) -> None:
    async with Proxy(proxy.port) as before_it:
        connection = await connect(before_it)
        assert await said(connection, b"hello" * 50_000) == b"hello" * 50_000
        assert (before_it.open_count, before_it.accepted_count) == (1, 1)
        connection[1].write_eof()
        assert await connection[0].read() == b""
        await eventually(lambda: before_it.open_count == 0)


async def test_a_cut_resets_every_connection_and_the_next_one_works(proxy: Proxy, connect: Dial) -> None:
    connections = [await connect(proxy) for _ in range(3)]
    for connection in connections:
        await said(connection, b"hello")
    proxy.cut()
    for reader, _ in connections:
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
    assert await said(await connect(proxy), b"again") == b"again"


async def test_refused_connections_find_nobody_until_it_accepts_on_the_same_port(proxy: Proxy, connect: Dial) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    await proxy.accept()
    assert await said(await connect(proxy), b"hello") == b"hello"


@pytest.mark.parametrize("direction", list(Direction))
async def test_what_is_stalled_is_held_and_comes_when_it_is_resumed(
    proxy: Proxy, connect: Dial, direction: Direction
) -> None:
    connection = await connect(proxy)
    await said(connection, b"hello")
    proxy.stall(direction)
    held = asyncio.create_task(said(connection, b"held"))
    await asyncio.wait({held}, timeout=0.05)
    assert not held.done()
    proxy.resume()
    assert await held == b"held"


async def test_what_is_frozen_hangs_and_others_are_forwarded(proxy: Proxy, connect: Dial) -> None:
    connection = await connect(proxy)
    await said(connection, b"hello")
    proxy.freeze()
    held = asyncio.create_task(said(connection, b"held"))
    assert await said(await connect(proxy), b"others") == b"others"
    assert not held.done()
    proxy.cut()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await held


async def test_a_cut_after_some_bytes_of_answer_lets_just_these_pass_and_happens_once(
    proxy: Proxy, connect: Dial
) -> None:
    reader, writer = await connect(proxy)
    proxy.cut_after(3)
    writer.write(b"hello")
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await reader.readexactly(5)
    assert caught.value.partial == b"hel"
    assert await said(await connect(proxy), b"again") == b"again"


async def test_a_target_that_is_not_there_ends_the_connection(tmp_path: Path, connect: Dial) -> None:
    async with Proxy(tmp_path / "nobody") as proxy:
        reader, _ = await connect(proxy)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
