"""Starts everything on this machine: PostgreSQL unless there is one, the tables, the service and a worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from curation_cli.processes import Child, ChildFailed
from curation_client.channel import DIRECT
from shared.db.embedded import EmbeddedPostgres
from shared.db.migrate import migrate
from shared.errors import DatabaseUnavailable
from shared.registry import load_registry

HOST = "127.0.0.1"
"""Nothing that is started here listens beyond this machine."""
NO_TLS = {f"CURATION_TLS_{name}_FILE": "none" for name in ("CERTIFICATE", "KEY", "CLIENT_CA")}
"""So it needs no TLS, whatever the environment says of that of another service."""
SERVICE_TIMEOUT_S = 60.0
"""How long the service may take from its start until it reports that it serves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Where to run everything, and in which environment."""

    folder: Path
    """Holds the embedded PostgreSQL and the logs."""
    port: int
    """The service's; any free one when 0."""
    environment: Mapping[str, str]
    """What the user gave; `DATABASE_URL` in it keeps the embedded PostgreSQL off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """Everything is up."""

    database_url: str
    """A libpq address."""
    address: str
    """The service's, host:port."""
    children: tuple[Child, ...]
    """The processes."""
    postgres: EmbeddedPostgres | None
    """The server, where it is our own."""

    async def first_end(self) -> ChildFailed | DatabaseUnavailable:
        """Returns when a child, or our own server, has ended that nobody asked to."""
        ends: set[asyncio.Task[ChildFailed | DatabaseUnavailable]]
        ends = {asyncio.create_task(child.ended()) for child in self.children}
        if self.postgres is not None:
            ends.add(asyncio.create_task(self.postgres.ended()))
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for end in ends:
                end.cancel()


@asynccontextmanager
async def started(setup: Setup) -> AsyncIterator[Running]:
    """Starts everything, and ends it on leaving, the worker first. Raises `ChildFailed` with the log of who failed."""
    logs = setup.folder / "logs"
    async with AsyncExitStack() as stack:
        url, postgres = setup.environment.get("DATABASE_URL"), None
        if not url:
            postgres = await stack.enter_async_context(EmbeddedPostgres(setup.folder / "postgres"))
            url = postgres.url
        await asyncio.to_thread(migrate, url, load_registry())
        address = f"{HOST}:{setup.port or _free_port()}"
        environment = {**setup.environment, "DATABASE_URL": url, "CURATION_LISTEN": address, **NO_TLS}
        if environment.get("CURATION_LOG_LEVEL") in ("WARNING", "ERROR"):
            environment["CURATION_LOG_LEVEL"] = "INFO"  # as which they log that they are ready
        service = Child("curation_service", environment=environment, log=logs / "service.log", ready=READY)
        worker = Child("enrichment_worker", environment=environment, log=logs / "worker.log", ready=READY)
        children = (service, worker)
        for child in children:
            await child.start()
            stack.push_async_callback(child.stop)
        await asyncio.gather(*(child.ready() for child in children))
        await _wait_until_serving(address)
        yield Running(database_url=url, address=address, children=children, postgres=postgres)


READY = " ready, "
"""What the line has in it that service and worker log once they are ready."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_until_serving(address: str) -> None:
    """Returns when the standard health service says SERVING; raises `grpc.RpcError` when that takes too long."""
    async with grpc.aio.insecure_channel(address, options=[DIRECT]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stub file leaves the methods out
        call = health.Watch(health_pb2.HealthCheckRequest(), timeout=SERVICE_TIMEOUT_S, wait_for_ready=True)
        try:
            async for response in call:
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        finally:
            call.cancel()
