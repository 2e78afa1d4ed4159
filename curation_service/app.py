"""Puts the service together: its parts in the order of their start, so that leaving them in reverse drains it."""

from __future__ import annotations

import asyncio

from curation_service.server import Server
from curation_service.servicer import Servicer
from curation_service.settings import ServiceSettings
from shared.db.engine import Database
from shared.lifecycle import Part, run_parts
from shared.registry import Registry


async def run_service(settings: ServiceSettings, registry: Registry) -> None:
    """Runs the service until it is told to stop. Raises `RuntimeError` when it cannot listen on its address."""
    async with open_database(settings) as database:
        parts = service_parts(settings, registry, database)
        await run_parts(parts, on_ready=f"service ready, listening on {settings.listen}")


def open_database(settings: ServiceSettings) -> Database:
    """The pool that the settings ask for; connections are made when first needed."""
    return Database(
        settings.database_url,
        pool_size=settings.pool_size,
        pool_timeout_s=settings.pool_timeout_s,
        name="curation service",
    )


def service_parts(settings: ServiceSettings, registry: Registry, database: Database) -> list[Part]:
    """All parts of the service, in the order of their start; the last is the `Server`."""
    draining = asyncio.Event()
    servicer = Servicer(database=database, registry=registry)
    return [
        Server(
            servicer=servicer,
            listen=settings.listen,
            message_size_max=settings.message_size_max,
            calls_max=settings.calls_max,
            grace_s=settings.grace_s,
            draining=draining,
        )
    ]
