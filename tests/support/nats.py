"""A real NATS server with JetStream, from the wheel, that a test may kill and start again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import pytest
from nats import connect

from tests.support.eventually import eventually

PROGRAM = Path(sys.executable).with_name("nats-server")


class NatsServer:
    """One server, on this machine alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.port = -1
        """The same after another start."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it listens."""
        arguments: list[str | Path] = ["-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", self._folder]
        log = (self._folder / "nats.log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM, *arguments, "--ports_file_dir", self._folder, stdout=log, stderr=log
        )
        log.close()
        ports = self._folder / f"nats-server_{self._process.pid}.ports"
        await eventually(lambda: ports.exists() and ports.read_text().endswith("}"))
        self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])

    async def kill(self) -> None:
        """Ends it without a word to anybody; what it had in memory is gone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def purge(self, log_id: UUID) -> None:
        """Empties the stream of a log, as its bound does."""
        async with await connect(self.url) as client:
            await client.jetstream().purge_stream(f"curation_{log_id.hex}")

    async def headers(self, log_id: UUID) -> Sequence[Mapping[str, str]]:
        """Of each message that the stream of a log has, in order."""
        async with await connect(self.url) as client:
            stream, name = client.jetstream(), f"curation_{log_id.hex}"
            state = (await stream.stream_info(name)).state
            numbers = range(state.first_seq, state.last_seq + 1)
            return [(await stream.get_msg(name, number)).headers or {} for number in numbers]

    async def message_count(self, log_id: UUID) -> int:
        """How many messages were stored so far."""
        async with await connect(self.url) as client:
            return (await client.jetstream().stream_info(f"curation_{log_id.hex}")).state.last_seq


@asynccontextmanager
async def nats_server() -> AsyncIterator[NatsServer]:
    """A server that runs."""
    with TemporaryDirectory(prefix="nats-") as folder:
        server = NatsServer(Path(folder))
        await server.start()
        try:
            yield server
        finally:
            await server.kill()


@pytest.fixture
async def nats() -> AsyncIterator[NatsServer]:
    """A backbone of the test's own."""
    async with nats_server() as server:
        yield server
