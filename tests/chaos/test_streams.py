"""The promises of the streams while services and PostgreSQL are killed, and connections cut, stalled and refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.recorders import AsyncClient
from tests.support.replicas import running_replicas
from tests.support.stream_run import Load, run

GONE_S = 60.0
"""A little more than it takes the service to ask whether a client lives, and to get no answer."""


@pytest.mark.timeout(3_600)
async def test_no_promise_is_broken_whatever_dies(
    postgres_folder: Path, chaos_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    load = Load(seconds=chaos_s, copies=2, fault_pause_s=3.0)
    outcome = await run(postgres_folder / "streams", load)
    with capsys.disabled():
        print(f"\n{outcome.table(load)}")  # noqa: T201 - the counts are what it is run for
    assert outcome.violations == []
    assert outcome.faults
    assert outcome.followed
    assert all(progress.done for progress in outcome.followed)


@pytest.mark.timeout(120)
async def test_a_client_that_vanished_without_a_word_is_let_go(postgres_folder: Path) -> None:
    async with running_replicas(postgres_folder / "vanished", items=10) as (site, _):
        front = site.replicas[0].front
        client = AsyncClient("vanished", (await site.log_identity()).id, front.port)
        watching = asyncio.create_task(client.run())
        await eventually(lambda: bool(client.watcher.streams))
        front.stall()
        await eventually(lambda: not site.connections(site.replicas[0]), within_s=GONE_S)
        watching.cancel()
