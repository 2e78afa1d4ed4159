"""Replicas' parts on a NATS backbone: those who relay the log, and tails that hear it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from curation_service.backbone_tail import BackboneTail
from curation_service.relay import Relay
from shared.db.engine import Database
from tests.support.log import update
from tests.support.nats import NatsServer


def relay_of(database: Database, nats_url: str) -> Relay:
    """One who relays, or would."""
    return Relay(url=database.url, listen_url=database.url, nats_url=nats_url)


@asynccontextmanager
async def tailing(
    database: Database, nats: NatsServer, *, url: str | None = None, relays: int = 1, **options: Any
) -> AsyncIterator[tuple[BackboneTail, list[Relay]]]:
    """A tail, over `url` where that is not the server's own, and those who relay for it."""
    async with AsyncExitStack() as stack:
        entered = [await stack.enter_async_context(relay_of(database, nats.url)) for _ in range(relays)]
        tail = BackboneTail(database=database, nats_url=url or nats.url, **options)
        yield await stack.enter_async_context(tail), entered


async def turn(database: Database, count: int) -> int:
    """So many changes of the first parcel, there and back; gives the last position."""
    assert not count % 2
    return [await update(database, ("Selected", "New")[number % 2], 1) for number in range(count)][-1]
