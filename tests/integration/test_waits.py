"""Who reads the log waits longer each time that its source is out of reach, and little again once it has been there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from curation_service.backbone_tail import BackboneTail
from curation_service.relay import Relay
from shared.db.database_tail import DatabaseTail
from shared.db.engine import Database
from shared.db.tail import Tail
from tests.support.eventually import DEADLINE_S
from tests.support.log import arrive
from tests.support.nats import NatsServer
from tests.support.proxy import Proxy, proxied
from tests.support.relays import relay_of, turn
from tests.support.service import add_parcels, parcel_database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with parcel_database(database_url) as database:
        await add_parcels(database, {})
        yield database


@asynccontextmanager
async def database_tail(database: Database, _: NatsServer) -> AsyncIterator[tuple[Proxy, Tail]]:
    async with proxied(database.url) as (proxy, url), DatabaseTail(url=url, direct_url=url) as tail:
        yield proxy, tail


@asynccontextmanager
async def relay(database: Database, nats: NatsServer) -> AsyncIterator[tuple[Proxy, Tail]]:
    async with (
        proxied(database.url) as (proxy, url),
        Relay(url=url, listen_url=url, nats_url=nats.url),
        BackboneTail(database=database, nats_url=nats.url) as tail,
    ):
        yield proxy, tail


@asynccontextmanager
async def backbone_tail(database: Database, nats: NatsServer) -> AsyncIterator[tuple[Proxy, Tail]]:
    async with (
        Proxy(nats.port) as proxy,
        relay_of(database, nats.url),
        BackboneTail(database=database, nats_url=f"nats://127.0.0.1:{proxy.port}") as tail,
    ):
        yield proxy, tail


@pytest.mark.parametrize(
    ("reading", "waits"),
    [
        (database_tail, "shared.db.tail.backoff"),
        (relay, "curation_service.relay.backoff"),
        (backbone_tail, "shared.db.tail.backoff"),
    ],
)
async def test_each_failure_to_get_there_counts_until_one_has_been_there(
    database: Database, nats: NatsServer, monkeypatch: pytest.MonkeyPatch, reading: Any, waits: str
) -> None:
    failures: asyncio.Queue[int] = asyncio.Queue()

    def backoff(count: int) -> float:
        failures.put_nowait(count)
        return 0.02

    monkeypatch.setattr(waits, backoff)
    async with asyncio.timeout(DEADLINE_S), reading(database, nats) as (proxy, tail):
        for _ in range(2):
            for _ in range(2):  # behind the second one, the look that brought the first one is over
                await arrive(tail, await turn(database, 2))
            proxy.refuse()
            while await failures.get():
                pass
            assert [await failures.get() for _ in range(3)] == [1, 2, 3]
            await proxy.accept()
