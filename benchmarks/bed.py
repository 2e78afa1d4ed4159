"""What the benchmarks stand on: a migrated PostgreSQL, a service in a process of its own, and rows."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID

import grpc.aio
import psycopg

from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client.channel import DIRECT
from shared.db.embedded import NO_SETTINGS, EmbeddedPostgres, create_database
from shared.db.migrate import migrate
from shared.registry import load_registry

RESOURCE = "places"
SETTINGS = {"max_connections": "200"}
"""Commits reach the disk, as those of a service's users do."""
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Where what the code costs matters, and a disk's wait would hide it."""


@dataclass(frozen=True, slots=True)
class Bed:
    """A service that answers, and its database."""

    url: str
    port: int
    pid: int

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own to the service."""
        options = [
            DIRECT,
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
        ]
        return grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    @property
    def memory_bytes(self) -> int:
        """What the service holds in memory now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_s(self) -> float:
        """Seconds that a core worked for the service so far."""
        return cpu_s(self.pid)


def cpu_s(pid: int) -> float:
    """Seconds that a core worked for a process so far."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def database(*, durable: bool = False, more: Mapping[str, str] = NO_SETTINGS) -> AsyncIterator[str]:
    """A migrated database, with `more` settings of PostgreSQL; gives its address."""
    settings = {**SETTINGS, **({} if durable else FAST), **more}
    with TemporaryDirectory(prefix="curation-") as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - PostgreSQL does not run as root, and must reach its folder
        async with EmbeddedPostgres(Path(folder) / "postgres", settings=settings) as server:
            url = server.url_of("bench")
            await create_database(server.url_of("postgres"), "bench")
            await asyncio.to_thread(migrate, url, load_registry())
            yield url


@asynccontextmanager
async def service(url: str, *, port: int = 0, **settings: str) -> AsyncIterator[Bed]:
    """A service on a database; `settings` are variables of its environment."""
    with TemporaryDirectory(prefix="curation-") as folder:
        port = port or _free_port()
        environment = {**os.environ, "DATABASE_URL": url, "CURATION_LISTEN": f"127.0.0.1:{port}", **settings}
        log = (Path(folder) / "service.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "curation_service", env=environment, stdout=log, stderr=log
        )
        bed = Bed(url, port, process.pid)
        try:
            async with bed.channel() as channel:
                await asyncio.wait_for(channel.channel_ready(), 30)
            yield bed
        finally:
            process.terminate()
            await process.wait()
            log.close()


def stub(channel: grpc.aio.Channel) -> pb_grpc.CurationServiceAsyncStub:
    """The calls of a channel."""
    return pb_grpc.CurationServiceStub(channel)


PLACES = """
INSERT INTO places_staging (id, external_id, code, name, city, region, country, latitude, longitude, time_zone)
SELECT md5(n::text)::uuid, 'ChIJ' || n, n, repeat('x', 300), 'Neustadt', 'Hessen', 'DE', 50, 8, 'Europe/Berlin'
FROM generate_series(%s::int, %s::int) AS n
"""
PLACES_IN_ORDER = PLACES.replace("md5(n::text)", "(lpad(to_hex(n), 12, '0') || substr(md5(n::text), 13))")
"""The same under keys in the order of their numbers, as a time in front of a UUID makes them (version 7)."""


async def add_places(url: str, first: int, last: int) -> None:
    """Adds the new places of these numbers, some 500 bytes each, under keys in no order, and lets PostgreSQL know."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(PLACES, (first, last))
        await connection.execute("VACUUM ANALYZE places_staging")


def place_ids(first: int, last: int) -> list[str]:
    """The keys of the places of these numbers."""
    return [str(place_id(n)) for n in range(first, last + 1)]


def place_id(number: int, *, in_order: bool = False) -> UUID:
    """The key of the place of this number."""
    digits = md5(str(number).encode(), usedforsecurity=False).hexdigest()
    return UUID(f"{number:012x}{digits[12:]}" if in_order else digits)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
