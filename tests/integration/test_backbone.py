"""Replicas of the service on a NATS backbone: they read nothing of the log themselves, and nobody can tell."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text

from curation.v1 import curation_pb2 as pb
from curation_service.app import service_parts
from curation_service.settings import ServiceSettings
from shared.db.engine import Database
from shared.errors import BackboneUnavailable
from shared.registry import Registry
from tests.support.log import update
from tests.support.nats import NatsServer
from tests.support.parcels import PARCELS
from tests.support.service import WAIT_S, RunningService, add_parcels, running_service


@pytest.fixture
async def services(database_url: str, nats: NatsServer) -> AsyncIterator[Sequence[RunningService]]:
    """Two with the backbone and one without, and a parcel."""
    async with AsyncExitStack() as stack:
        entered = [
            await stack.enter_async_context(running_service(database_url, nats_url=url, heartbeat_s=0.2))
            for url in (nats.url, nats.url, None)
        ]
        await add_parcels(entered[0].database, {})
        yield entered


async def versions(service: RunningService, count: int, token: str = "") -> tuple[list[int], str]:
    """So many versions behind a token, or of what happens from now on; and the last token."""
    call = service.stub.WatchStatus(
        pb.WatchStatusRequest(resource="parcels", resume_token=token, skip_snapshot=not token)
    )
    seen: list[int] = []
    async with asyncio.timeout(WAIT_S):
        while len(seen) < count:
            message: Any = await call.read()
            seen += [event.version for event in message.events.events]
            token = message.resume_token or token
    call.cancel()
    return seen, token


async def token_of(service: RunningService) -> str:
    """Of what is now."""
    call = service.stub.WatchStatus(pb.WatchStatusRequest(resource="parcels", skip_snapshot=True))
    message: Any = await call.read()
    call.cancel()
    token: str = message.resume_token
    return token


async def test_every_replica_tells_the_same_and_takes_the_tokens_of_every_other(
    services: Sequence[RunningService],
) -> None:
    first = token = await token_of(services[0])
    for turn in range(6):
        await update(services[0].database, ("Selected", "New")[turn % 2], 1)
        seen, token = await versions(services[turn % 3], 1, token)
        assert seen == [turn + 2]
    for service in services:
        assert (await versions(service, 6, first))[0] == [2, 3, 4, 5, 6, 7]


async def test_one_connection_listens_and_reads_for_all_that_have_nats(database_url: str, nats: NatsServer) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(running_service(database_url, nats_url=nats.url))
        async with Database(database_url) as database, database.core() as connection:
            found = await connection.scalars(
                text(
                    """SELECT application_name FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name LIKE 'curation tail%'
                       ORDER BY application_name"""
                )
            )
            assert found.all() == ["curation tail"]


async def test_a_watcher_is_told_that_all_is_well_while_nothing_happens(services: Sequence[RunningService]) -> None:
    call = services[0].stub.WatchStatus(pb.WatchStatusRequest(resource="parcels"))
    async with asyncio.timeout(WAIT_S):
        parts: list[Any] = [await call.read() for _ in range(5)]
    call.cancel()
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds == ["snapshot", "snapshot_end", "workflow", "heartbeat", "heartbeat"]
    assert parts[-1].resume_token


async def test_without_the_extra_the_setting_is_refused_with_what_is_missing(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "nats" or name in ("curation_service.backbone_tail", "curation_service.backbone"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nats", None)
    settings = ServiceSettings(DATABASE_URL=database_url, nats_url="nats://127.0.0.1:1")
    async with Database(database_url) as database:
        with pytest.raises(BackboneUnavailable, match=r"curation\[nats\]"):
            service_parts(settings, Registry(PARCELS), database)
