"""Several workers on one database share what is queued, and none does what another has done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.support.service import WAIT_S
from tests.support.worker import Reply, World, details


async def test_three_workers_share_the_queue_and_call_for_each_item_once(world: World) -> None:
    shared = asyncio.Event()

    async def once_all_have_some(name: str) -> Reply:
        await shared.wait()
        return await details(name)

    async def until(holds: Callable[[list[Any]], bool], column: str) -> None:
        while not holds([row[column] for row in await world.gadgets()]):
            pass

    world.api.answer = once_all_have_some
    names = [f"g{n}" for n in range(400)]
    await world.queue(*names)
    async with world.worker(), world.worker(), world.worker(), asyncio.timeout(WAIT_S):
        await until(lambda workers: len({*workers} - {None}) == 3, "lookup_worker")
        shared.set()
        await until(lambda statuses: {*statuses} == {"completed"}, "lookup_status")
    assert sorted(world.api.requests) == sorted(names)
    assert {row["version"] for row in await world.gadgets()} == {3}
