"""Service and worker on one database, for whatever workflows there are: what a page's code calls."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from curation_service.app import open_database, open_reads, service_parts
from curation_service.server import Server
from curation_service.settings import ServiceSettings
from enrichment_worker.app import open_means, worker_parts
from enrichment_worker.settings import WorkerSettings
from shared.probe import Probe
from shared.registry import Registry
from tests.docs.pages import ROOT

PLACES = 7


@asynccontextmanager
async def running_system(
    url: str,
    registry: Registry,
    environment: Mapping[str, str],
    *,
    worker_url: str | None = None,
    read_url: str | None = None,
) -> AsyncIterator[str]:
    """A service and a worker with this environment; gives the service's address."""
    service = ServiceSettings(DATABASE_URL=url, read_url=read_url, listen="127.0.0.1:0", grace_s=0)
    worker = WorkerSettings(DATABASE_URL=worker_url or url, poll_s=0.05)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(service))
        reads = await stack.enter_async_context(open_reads(service, database))
        workflows = list(registry.values())
        means = await open_means(stack, worker, workflows, environment, Probe())
        parts = [*worker_parts(worker, workflows, means), *service_parts(service, registry, database, reads)]
        for part in parts:
            await stack.enter_async_context(part)
        server = parts[-1]
        assert isinstance(server, Server)
        yield f"127.0.0.1:{server.port}"


async def run_python(*arguments: str) -> str:
    """Runs a Python of its own in the root of the project; gives what it prints. It must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def add_places(url: str) -> None:
    """Saves some places, with the numbers from 0 as their ids."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for n in range(PLACES):
            await connection.execute(
                """INSERT INTO places_staging
                       (id, external_id, code, name, city, region, country, latitude, longitude, time_zone)
                   VALUES (%s, %s, 'ABCD', 'a place', 'a city', 'a region', 'DE', 0, 0, 'UTC')""",
                (uuid.UUID(int=n), f"place-{n}"),
            )
