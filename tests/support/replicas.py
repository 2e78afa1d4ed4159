"""A site of real processes: two services on one PostgreSQL, a proxy before each and one between each and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg

from curation_cli.processes import Child
from shared.db.embedded import EmbeddedPostgres, create_database
from shared.db.embedded_site import SOCKET_NAME
from shared.db.log import LogIdentity, log_identity
from shared.db.migrate import migrate
from shared.errors import DatabaseUnavailable
from shared.registry import load_registry
from tests.support.history import Commit, Entry, Event
from tests.support.ports import free_port
from tests.support.proxy import HOST, Proxy
from tests.support.recorders import RESOURCE

DATABASE = "streams"
SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
"""What is committed outlives a killed PostgreSQL, if not a killed machine."""


@dataclass(slots=True)
class Replica:
    """One service."""

    number: int
    port: int
    """Its own; callers come by `front`."""
    front: Proxy
    back: Proxy
    """To PostgreSQL."""
    process: Child | None = None


class Replicas:
    """The site; entered by `running_replicas`."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` are variables of the services' environment."""
        self.replicas: list[Replica] = []
        self.cuts_s: list[float] = []
        """When transactions were ended amid their commit, perhaps: since 1970."""
        self._folder, self._settings = folder, settings
        self._postgres = EmbeddedPostgres(folder / "postgres", settings=SETTINGS)
        self._runs, self._starts = False, 0

    @property
    def url(self) -> str:
        """The database, without a proxy."""
        return self._postgres.url_of(DATABASE)

    @property
    def ports(self) -> list[int]:
        """Where callers connect."""
        return [replica.front.port for replica in self.replicas]

    async def start(self, replica: Replica) -> None:
        """Starts a service and waits until it is ready."""
        replica.process = await Child(
            "curation_service",
            environment=self.environment(replica.back, CURATION_LISTEN=f"{HOST}:{replica.port}", **self._settings),
            log=self.log_file(f"service-{replica.number}"),
            ready="ready,",
        ).__aenter__()

    @staticmethod
    def environment(back: Proxy, **more: str) -> dict[str, str]:
        """Of a process on the database behind this proxy."""
        return {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "DATABASE_URL": f"postgresql://postgres@{HOST}:{back.port}/{DATABASE}",
            **more,
        }

    def log_file(self, name: str) -> Path:
        """For the log of one more process."""
        self._starts += 1
        return self._folder / f"{name}-{self._starts}.log"

    def back(self) -> Proxy:
        """A new proxy to PostgreSQL, to be entered while it runs."""
        return Proxy(Path(parse_qs(urlsplit(self.url).query)["host"][0]) / SOCKET_NAME)

    async def kill(self, replica: Replica) -> None:
        """Ends a service as a machine that loses its power does."""
        assert replica.process is not None
        os.kill(replica.process.pid, signal.SIGKILL)
        await replica.process.ended()
        replica.process = None

    async def stop(self, replica: Replica) -> None:
        """Asks a service to end, and waits until it has."""
        if replica.process is not None:
            await replica.process.stop()
            replica.process = None

    async def start_postgres(self) -> None:
        """Starts PostgreSQL; after a kill, what is left of the old one must go first."""
        while not self._runs:
            try:
                await self._postgres.__aenter__()
                self._runs = True
            except DatabaseUnavailable:
                await asyncio.sleep(0.1)

    async def stop_postgres(self) -> None:
        """Stops PostgreSQL in order, cutting its connections; nothing to do when it does not run."""
        if self._runs:
            self._runs = False
            await self._postgres.__aexit__(None, None, None)

    async def kill_postgres(self) -> None:
        """Kills PostgreSQL as its machine would."""
        self.cuts_s.append(time.time())
        os.kill(int((self._folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        await self.stop_postgres()

    async def log_identity(self) -> LogIdentity:
        """Whose tokens these are, and how far back they go."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            return await log_identity(connection)

    async def log(self) -> list[Commit]:
        """The whole log of the places, in order; what it says of no item is left out."""
        commits: list[Commit] = []
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(
                """SELECT position, kind, from_status, to_status, batch, left_batch, cause, items, versions, steps
                   FROM status_event WHERE resource = %s AND items <> '{}' ORDER BY position, part""",
                [RESOURCE],
            )
            async for position, kind, before, after, batch, left, cause, items, versions, steps in cursor:
                each = zip(items, versions, steps or [""] * len(items), strict=True)
                batches = frozenset(number for number in (batch, left, cause) if number is not None)
                entry = Entry([Event(i, v, kind, s) for i, v, s in each], batches, frozenset({before, after}), cause)
                if commits and commits[-1].position == position:
                    commits[-1] = Commit(position, [*commits[-1].entries, entry])
                else:
                    commits.append(Commit(position, [entry]))
        return commits

    async def unfinished(self) -> list[tuple[object, ...]]:
        """Items that are queued or with a worker, and what is known of them."""
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(
                """SELECT s.id, s.status, s.deep_scan_status, s.version, s.deep_scan_turn, s.deep_scan_run_at,
                          s.deep_scan_batch, s.deep_scan_worker, w.beat_at, w.ended_at, clock_timestamp()
                   FROM places_staging s LEFT JOIN worker_session w ON w.id = s.deep_scan_worker
                   WHERE s.deep_scan_status IN ('queued', 'processing')"""
            )
            return await cursor.fetchall()

    def connections(self, replica: Replica) -> int:
        """Connections to a service, as the kernel has them; those of its metrics and to PostgreSQL not counted."""
        local = f"0100007F:{replica.port:04X}"
        established = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return sum(words[1] == local and words[3] == "01" for words in established[1:])


@asynccontextmanager
async def running_replicas(
    folder: Path, *, items: int, **settings: str
) -> AsyncIterator[tuple[Replicas, Sequence[uuid.UUID]]]:
    """PostgreSQL with so many places, every third of them in Germany, and two services; gives their keys too."""
    site = Replicas(folder, **settings)
    async with AsyncExitStack() as stack:
        await site.start_postgres()
        stack.push_async_callback(site.stop_postgres)
        await create_database(site.url.replace(f"/{DATABASE}?", "/postgres?"), DATABASE)
        await asyncio.to_thread(migrate, site.url, load_registry())
        keys = await _add_places(site.url, items)
        for number in range(2):
            back = await stack.enter_async_context(site.back())
            port = free_port()
            front = await stack.enter_async_context(Proxy(port))
            replica = Replica(number, port, front, back)
            site.replicas.append(replica)
            await site.start(replica)
            stack.push_async_callback(site.stop, replica)
        yield site, keys


async def _add_places(url: str, count: int) -> list[uuid.UUID]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        cursor = await connection.execute(
            """INSERT INTO places_staging (id, external_id, code, name, city, region, country, latitude, longitude,
                                           time_zone)
               SELECT gen_random_uuid(), 'x' || n, 'x' || n, 'place ' || n, 'c', 'r',
                      CASE mod(n, 3) WHEN 0 THEN 'DE' ELSE 'FR' END, 0, 0, 'z'
               FROM generate_series(1, %s) n RETURNING id""",
            [count],
        )
        return [row[0] for row in await cursor.fetchall()]
