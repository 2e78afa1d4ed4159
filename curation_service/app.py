"""Puts the service together: its parts in the order of their start, so that leaving them in reverse drains it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from curation_service.batch_update import BatchUpdates
from curation_service.certificates import server_credentials
from curation_service.fanout import Fanout
from curation_service.gone_rows import GoneRows
from curation_service.log_keeper import LogKeeper
from curation_service.server import Server
from curation_service.servicer import Servicer
from curation_service.settings import ServiceSettings
from curation_service.snapshot import Snapshots
from curation_service.update_groups import UpdateGroups
from curation_service.watch import Watch
from shared.db.access import SERVICE
from shared.db.database_tail import DatabaseTail
from shared.db.engine import Database
from shared.db.readiness import DatabaseReady
from shared.db.tail import Tail
from shared.errands import Errands
from shared.errors import BackboneUnavailable
from shared.lifecycle import Part, run_parts
from shared.metrics import Metrics, metrics_parts
from shared.registry import Registry
from shared.table import transition_table

SNAPSHOTS_AT_ONCE = 2
"""Snapshots that are read from the database at the same time; those that are being sent do not count."""


async def run_service(settings: ServiceSettings, registry: Registry) -> None:
    """Runs the service until it is told to stop.

    Raises:
        AddressUnavailable: it cannot listen on its address.
        CertificateUnusable: a file of its TLS cannot be used.
        BackboneUnavailable: there is no NATS, or what speaks to it is not installed.
        DatabaseUnavailable: there was no database in time.
        DatabaseUnfit: the database is too old, a standby, or not migrated.
        LogRewound: the database was restored, or lost its last commits.
    """
    ready = DatabaseReady(
        url=settings.database_url,
        workflows=registry.values(),
        access=SERVICE,
        timeout_s=settings.start_timeout_s,
    )
    async with open_database(settings) as database, open_reads(settings, database) as reads:
        parts = service_parts(settings, registry, database, reads)
        by = " by TLS" if settings.tls_certificate_file else ""
        await run_parts([ready, *parts], on_ready=f"service ready, listening on {settings.listen}{by}")


def open_database(settings: ServiceSettings) -> Database:
    """The pool that the settings ask for; connections are made when first needed."""
    return _pool(settings, settings.database_url)


@asynccontextmanager
async def open_reads(settings: ServiceSettings, database: Database) -> AsyncIterator[Database]:
    """Where items are listed, counted and found: a pool of the standby, where there is one."""
    if settings.read_url is None:
        yield database
    else:
        async with _pool(settings, settings.read_url) as standby:
            yield standby


def service_parts(
    settings: ServiceSettings, registry: Registry, database: Database, reads: Database | None = None
) -> list[Part]:
    """All parts of the service, in the order of their start; the last is the `Server`."""
    draining = asyncio.Event()
    tables = {resource: transition_table(workflow) for resource, workflow in registry.items()}
    group_errands = Errands(at_once=len(registry))
    updates = BatchUpdates(
        database=database,
        tables=tables,
        groups={
            resource: UpdateGroups(database=database, workflow=workflow, table=tables[resource], errands=group_errands)
            for resource, workflow in registry.items()
        },
        items_max=settings.items_max,
        outcomes_max=settings.outcomes_max,
    )
    metrics = Metrics()
    relays, tail = _log_parts(settings, database, metrics)
    fanout = Fanout(tail=tail, draining=draining)
    # Streams leave half of the pool to calls, and few snapshots are read at once.
    errands = Errands(at_once=max(1, settings.pool_size // 2 - SNAPSHOTS_AT_ONCE))
    snapshot_errands = Errands(at_once=SNAPSHOTS_AT_ONCE)
    gone_rows = GoneRows(url=settings.database_url, workflows=registry.values())
    watch = Watch(
        database=database,
        tail=tail,
        fanout=fanout,
        errands=errands,
        snapshots=Snapshots(database=database, errands=snapshot_errands),
        registry=registry,
        heartbeat_s=settings.heartbeat_s,
        age_max_s=settings.stream_age_max_s,
        items_max=settings.items_max,
        told=gone_rows.told,
    )
    servicer = Servicer(
        database=database,
        reads=reads or database,
        registry=registry,
        updates=updates,
        items_max=settings.items_max,
        watch=watch,
        told=gone_rows.told,
    )
    server = Server(
        servicer=servicer,
        listen=settings.listen,
        credentials=_credentials(settings),
        message_size_max=settings.message_size_max,
        calls_max=settings.calls_max,
        call_age_max_s=settings.call_age_max_s,
        grace_s=settings.grace_s,
        draining=draining,
    )
    keeper = LogKeeper(
        url=settings.database_url,
        retention_days=settings.retention_days,
        batch_retention_days=settings.batch_retention_days,
        workflows=registry.values(),
    )
    metrics.gauge("curation_stream_lag_seconds", "For how long the streams have been held back.", lambda: tail.lag_s)
    metrics.gauge("curation_log_position", "Up to where the event log has been read.", lambda: tail.position)
    numbers = metrics_parts(metrics, settings.metrics_listen)
    return [keeper, gone_rows, *relays, tail, fanout, errands, snapshot_errands, group_errands, *numbers, server]


def _credentials(settings: ServiceSettings) -> grpc.ServerCredentials | None:
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    return server_credentials(
        certificate=settings.tls_certificate_file, key=settings.tls_key_file, client_ca=settings.tls_client_ca_file
    )


def _pool(settings: ServiceSettings, url: str) -> Database:
    return Database(
        url,
        pool_size=settings.pool_size,
        pool_timeout_s=settings.pool_timeout_s,
        prepare_threshold=settings.prepare_threshold,
        idle_in_transaction_s=settings.idle_in_transaction_s,
        name="curation service",
    )


def _log_parts(settings: ServiceSettings, database: Database, metrics: Metrics) -> tuple[list[Part], Tail]:
    """The tail, and what it needs: it reads the log itself, unless there is a backbone."""
    if settings.nats_url is None:
        return [], DatabaseTail(url=settings.database_url, direct_url=settings.direct_url)
    try:
        from curation_service.backbone_tail import BackboneTail
        from curation_service.relay import Relay
    except ModuleNotFoundError as error:
        raise BackboneUnavailable("CURATION_NATS_URL needs the extra curation[nats]") from error
    relay = Relay(url=settings.database_url, listen_url=settings.direct_url, nats_url=settings.nats_url)
    metrics.gauge("curation_relay_working", "1 in the replica that relays the log to NATS.", lambda: relay.working)
    return [relay], BackboneTail(database=database, nats_url=settings.nats_url)
