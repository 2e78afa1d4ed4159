"""Several workers on one database share what is queued, and none does what another has done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.eventually import eventually_async
from tests.support.worker import Reply, World, details

pytestmark = pytest.mark.untraced


async def test_three_workers_share_the_queue_and_call_for_each_item_once(world: World) -> None:
    shared = asyncio.Event()

    async def once_all_have_some(name: str) -> Reply:
        await shared.wait()
        return await details(name)

    async def values(column: str) -> set[Any]:
        return {row[column] for row in await world.gadgets()}

    async def all_have_some() -> bool:
        return len(await values("lookup_worker") - {None}) == 3

    async def all_are_done() -> bool:
        return await values("lookup_status") == {"completed"}

    world.api.answer = once_all_have_some
    names = [f"g{n}" for n in range(400)]
    await world.queue(*names)
    async with world.worker(), world.worker(), world.worker():
        await eventually_async(all_have_some)
        shared.set()
        await eventually_async(all_are_done)
    assert sorted(world.api.requests) == sorted(names)
    assert {row["version"] for row in await world.gadgets()} == {3}
