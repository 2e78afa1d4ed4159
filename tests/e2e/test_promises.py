"""The six promises of the stream, over real processes: two replicas, many watchers of all kinds, and no mercy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.nats import nats_server
from tests.support.stream_run import Load, run

pytestmark = pytest.mark.untraced


async def test_every_watcher_is_told_what_was_promised(postgres_folder: Path) -> None:
    outcome = await run(postgres_folder / "streams", Load(seconds=6))
    print(outcome.table(Load(seconds=6)))  # noqa: T201 - the counts, when somebody asks by -s
    assert outcome.violations == []
    assert len(outcome.history.log) > 100
    assert outcome.followed
    assert all(progress.done for progress in outcome.followed)


async def test_the_promises_hold_over_nats_while_services_die(postgres_folder: Path) -> None:
    load = Load(seconds=8, fault_pause_s=3.0, seed=6)
    async with nats_server() as nats:
        outcome = await run(postgres_folder / "nats", load, CURATION_NATS_URL=nats.url)
    print(outcome.table(load))  # noqa: T201 - the counts, when somebody asks by -s
    assert outcome.violations == []
    assert outcome.faults
    assert len(outcome.history.log) > 100
