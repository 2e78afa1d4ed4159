"""Puts the service together: its parts in the order of their start, so that leaving them in reverse drains it."""

from __future__ import annotations

import asyncio

from curation_service.batch_update import BatchUpdates
from curation_service.log_keeper import LogKeeper
from curation_service.server import Server
from curation_service.servicer import Servicer
from curation_service.settings import ServiceSettings
from curation_service.watch import Watch
from shared.db.engine import Database
from shared.db.tail import Tail
from shared.lifecycle import Part, run_parts
from shared.registry import Registry
from shared.table import transition_table


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
        prepare_threshold=settings.prepare_threshold,
        name="curation service",
    )


def service_parts(settings: ServiceSettings, registry: Registry, database: Database) -> list[Part]:
    """All parts of the service, in the order of their start; the last is the `Server`."""
    draining = asyncio.Event()
    updates = BatchUpdates(
        database=database,
        tables={resource: transition_table(workflow) for resource, workflow in registry.items()},
        items_max=settings.items_max,
        outcomes_max=settings.outcomes_max,
    )
    tail = Tail(url=settings.database_url, listen_url=settings.direct_url)
    watch = Watch(
        database=database,
        tail=tail,
        registry=registry,
        draining=draining,
        heartbeat_s=settings.heartbeat_s,
        age_max_s=settings.stream_age_max_s,
        items_max=settings.items_max,
    )
    servicer = Servicer(
        database=database, registry=registry, updates=updates, items_max=settings.items_max, watch=watch
    )
    server = Server(
        servicer=servicer,
        listen=settings.listen,
        message_size_max=settings.message_size_max,
        calls_max=settings.calls_max,
        grace_s=settings.grace_s,
        draining=draining,
    )
    keeper = LogKeeper(url=settings.database_url, retention_days=settings.retention_days)
    return [keeper, tail, server]
