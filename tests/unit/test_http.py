"""The worker's HTTP client, against a server that counts its connections."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from enrichment_worker.http import http_client
from tests.support.eventually import eventually


class Server:
    """Answers `ok` once `answering` is set."""

    def __init__(self) -> None:
        self.url = ""
        self.open, self.most, self.begun, self.accepted = 0, 0, 0, 0
        self.answering = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.begun += 1
                await self.answering.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """On a free port of this machine."""
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    yield server
    server.answering.set()
    listening.close()


@pytest.mark.parametrize("connections_max", [1, 7, 20, 50])
async def test_as_many_requests_as_allowed_are_under_way_at_once_and_no_more(
    server: Server, connections_max: int
) -> None:
    async with http_client(connections_max=connections_max, version="1") as http:
        requests = [asyncio.create_task(http.get(server.url)) for _ in range(connections_max + 5)]
        await eventually(lambda: server.begun == connections_max)
        server.answering.set()
        assert {(await request).text for request in requests} == {"ok"}
        assert server.most == connections_max
        for _ in range(3):
            await http.get(server.url)
        assert server.accepted == connections_max, "connections are used again"
    await eventually(lambda: server.open == 0)


async def test_a_request_that_is_given_up_leaves_its_place(server: Server) -> None:
    async with http_client(connections_max=10, version="1") as http:
        given_up = [asyncio.create_task(http.get(server.url)) for _ in range(10)]
        await eventually(lambda: server.begun == 10)
        for request in given_up:
            request.cancel()
        await asyncio.wait(given_up)
        server.answering.set()
        answers = await asyncio.gather(*(http.get(server.url) for _ in range(10)))
    assert {answer.text for answer in answers} == {"ok"}


async def test_it_is_not_an_enrichers_to_close(server: Server) -> None:
    server.answering.set()
    async with http_client(connections_max=1, version="1") as client:
        with pytest.raises(RuntimeError, match="not to be closed"):
            await client.aclose()
        with pytest.raises(RuntimeError):
            async with client:
                pass
        assert (await client.get(server.url)).text == "ok"


async def test_an_answer_that_is_left_open_gives_its_connection_back(server: Server) -> None:
    server.answering.set()
    async with http_client(connections_max=1, version="1") as client:
        await client.send(client.build_request("GET", server.url), stream=True)
        gc.collect()
        assert (await client.get(server.url)).text == "ok"
