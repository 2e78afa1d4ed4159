"""A batch in numbers: measured once for all who watch it, with a rate, and done only for who has all its events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from curation.v1 import curation_pb2 as pb
from curation_service.progress import BatchMeter, Meters, ProgressTurns, Told
from shared.db.batches import Progress
from shared.db.engine import Database
from shared.db.log import newest_position
from shared.errands import Errands
from tests.support.batches import update
from tests.support.service import RunningService, add_many

DAY_S = 86_400.0


def nobody(batch: int, progress: Progress) -> None:
    """Is told of every measurement."""


def meter_of(service: RunningService, batch: pb.Batch, told: Told = nobody) -> BatchMeter:
    return BatchMeter(database=service.database, told=told, resource="parcels", batch=int(batch.batch_id))


@pytest.fixture
def no_second_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement is good for a day."""
    monkeypatch.setattr("curation_service.progress.INTERVAL_S", DAY_S)


async def batch_of_one(service: RunningService, status: str) -> pb.Batch:
    """Sets a status on one parcel."""
    await add_many(service.database, 1)
    return (await service.stub.BatchUpdateStatus(update(status, 1))).batch


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        yield database


def test_the_rate_is_that_of_the_last_seconds_and_says_when_all_will_have_ended(database: Database) -> None:
    meter = BatchMeter(database=database, told=nobody, resource="parcels", batch=1)

    def told(now_s: float, *numbers: int) -> tuple[float, float | None]:
        """The rate, and in how many hundreds of seconds the end is expected."""
        before = datetime.now(UTC)
        message = meter._message(Progress(sum(numbers), *numbers), now_s)
        if not message.HasField("expected_end_time"):
            return message.rate_per_second, None
        return message.rate_per_second, (message.expected_end_time.ToDatetime(UTC) - before) // timedelta(seconds=100)

    assert told(100.0, 1000, 0, 0, 0, 0) == (0.0, None)
    assert told(102.0, 600, 6, 2, 1, 1) == (2.0, 3)
    assert told(104.0, 0, 606, 2, 1, 1) == (1.0, 6)
    assert told(109.0, 0, 606, 2, 1, 1) == (0.0, None), "nothing has ended in the last five seconds"
    assert told(110.0, 0, 0, 98, 1, 1) == (96.0, None)
    assert told(112.0, 10**9, 0, 100, 1, 1)[1] is None, "nobody waits for years"


@pytest.mark.usefixtures("no_second_measurement")
async def test_all_who_watch_a_batch_share_one_measurement(service: RunningService) -> None:
    batch = await batch_of_one(service, "Scan")
    told: list[int] = []
    meter = meter_of(service, batch, told=lambda number, _: told.append(number))
    first, second = await asyncio.gather(meter.measure(), meter.measure())
    assert first is second
    assert told == [int(batch.batch_id)]


@pytest.mark.usefixtures("no_second_measurement")
async def test_a_batch_is_done_for_each_watcher_once_it_has_read_so_far(service: RunningService) -> None:
    batch = await batch_of_one(service, "Selected")
    async with service.database.transaction() as connection:
        newest = await newest_position(connection)
    async with Errands(at_once=1) as errands:
        meter = meter_of(service, batch)
        behind, ahead = ProgressTurns(meter, errands), ProgressTurns(meter, errands)
        told = await behind.due(changed=False, position=newest - 1)
        assert (told is not None and told.done, behind.due_s < float("inf")) == (False, True), "it is told once more"
        told = await ahead.due(changed=False, position=newest)
        assert (told is not None and told.done, ahead.due_s) == (True, float("inf"))


async def test_a_meter_is_kept_while_somebody_watches_its_batch(database: Database) -> None:
    meters = Meters(database=database, told=nobody, errands=Errands(at_once=1))
    with meters.watching("parcels", 1):
        with meters.watching("parcels", 1):
            (meter,) = meters._meters.values()
        assert [*meters._meters.values()] == [meter]
    assert meters._meters == {}
