"""`ExplainItem` over the wire: every cause is brought about, and told with its facts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from curation.v1 import curation_pb2 as pb
from curation_service import explain
from shared.db.claim import claim
from shared.db.finish import Result, finish
from shared.db.log import append_progress
from shared.db.sessions import open_session
from shared.failure import Failure
from shared.table import transition_table
from shared.workflow import Item, Rate
from tests.support.batches import parcel_id as key
from tests.support.parcels import PARCELS
from tests.support.service import RunningService, add_parcels, refused, running_service

pytestmark = pytest.mark.postgres_versions

LIMITED = replace(PARCELS, limits=replace(PARCELS.limits, rate=Rate(calls=1), concurrency_total=4))
TABLE = transition_table(LIMITED)
HOUR = "interval '1 hour'"


@pytest.fixture
async def service(database_url: str) -> AsyncIterator[RunningService]:
    """A service for parcels whose API has limits; three parcels."""
    async with running_service(database_url, workflow=LIMITED) as running:
        await add_parcels(running.database, {}, {}, {})
        yield running


async def why(service: RunningService, number: int = 1) -> list[pb.Cause]:
    response = await service.stub.ExplainItem(pb.ExplainItemRequest(resource="parcels", id=key(number)))
    assert response.item.id == key(number)
    return list(response.causes)


def kinds(causes: list[pb.Cause]) -> list[str]:
    return [pb.CauseKind.Name(cause.kind).removeprefix("CAUSE_KIND_") for cause in causes]


async def execute(service: RunningService, statement: str) -> None:
    async with service.database.transaction() as connection:
        await connection.execute(statement.encode())


async def scan(service: RunningService, *numbers: int, status: str = "Scan") -> None:
    ids = pb.ItemIds(ids=map(key, numbers))
    await service.stub.BatchUpdateStatus(pb.BatchUpdateStatusRequest(resource="parcels", status=status, ids=ids))


async def work(service: RunningService, host: str = "forge") -> int:
    """A worker that is alive. Returns its session."""
    async with service.database.transaction() as connection:
        return await open_session(connection, host=host, version="1", resources=["parcels"])


async def take(service: RunningService, session: int) -> Item:
    """The worker claims the next item."""
    async with service.database.transaction() as connection:
        (item,) = (await claim(connection, LIMITED, TABLE, session=session, limit=1)).items
    return item


async def end(service: RunningService, item: Item, trigger: str, **facts: Any) -> None:
    async with service.database.transaction() as connection:
        assert (await finish(connection, LIMITED, TABLE, [Result(item, trigger, **facts)])).dropped == 0


async def test_what_is_not_queued_says_why(service: RunningService) -> None:
    assert kinds(await why(service)) == ["STATUS_NO_TRIGGER"]
    await execute(service, f"UPDATE parcels SET status = 'Scan' WHERE id = '{key(2)}'")
    assert kinds(await why(service, 2)) == ["NEVER_QUEUED"]
    session = await work(service)
    await scan(service, 1, 3)
    await end(service, await take(service, session), "find_nothing")
    assert kinds(await why(service, 1)) == ["NOTHING_FOUND"]
    await end(service, await take(service, session), "complete", values={"code": "a"})
    assert kinds(await why(service, 3)) == ["COMPLETED"]


async def test_what_has_failed_names_its_error_and_its_group(service: RunningService) -> None:
    session = await work(service)
    await scan(service, 1)
    failure = Failure.of("parcels API", "HTTP 400", "too big")
    await end(service, await take(service, session), "fail", error="too big", failure=failure)
    (cause,) = await why(service)
    assert (kinds([cause]), cause.error, cause.attempt, cause.attempts_max) == (["FAILED"], "too big", 1, 3)
    assert cause.failure_group_id == str(failure.group("parcels"))


async def test_what_is_running_says_where_since_when_and_how_far(service: RunningService) -> None:
    session = await work(service, "forge")
    await scan(service, 1)
    item = await take(service, session)
    (cause,) = await why(service)
    assert (kinds([cause]), cause.worker_id, cause.host) == (["RUNNING"], str(session), "forge")
    assert (cause.step, cause.fraction, cause.attempt, cause.attempts_max) == ("", 0.0, 1, 3)
    assert cause.HasField("since_time")
    async with service.database.transaction() as connection:
        await append_progress(connection, LIMITED, [(item.key, item.version, "measuring", 0.25)])
        await append_progress(connection, LIMITED, [(item.key, item.version, "weighing", 0.75)])
    (later,) = await why(service)
    assert (later.step, later.fraction, later.since_time) == ("weighing", 0.75, cause.since_time)


@pytest.mark.parametrize("lost", ["expiry_s = 0", "ended_at = now()"])
async def test_an_item_whose_worker_is_gone_waits_for_its_rescue(service: RunningService, lost: str) -> None:
    session = await work(service, "forge")
    await scan(service, 1)
    await take(service, session)
    await execute(service, f"UPDATE worker_session SET {lost}")
    (cause,) = await why(service)
    assert (kinds([cause]), cause.worker_id, cause.host) == (["WORKER_LOST"], str(session), "forge")


async def test_what_waits_is_behind_others_up_to_a_bound(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await work(service)
    await scan(service, 1, 2, 3)
    places = [(await why(service, number))[-1] for number in (1, 2, 3)]
    assert [kinds([cause]) for cause in places] == [["BEHIND_OTHERS"]] * 3
    assert [(cause.ahead_count, cause.ahead_count_exceeded) for cause in places] == [(0, False), (1, False), (2, False)]
    await execute(service, f"UPDATE parcels SET scan_run_at = now() - {HOUR} WHERE id = '{key(3)}'")
    assert [(await why(service, number))[-1].ahead_count for number in (1, 2, 3)] == [1, 2, 0]
    monkeypatch.setattr(explain, "AHEAD_MAX", 1)
    (cause,) = await why(service, 2)
    assert (cause.ahead_count, cause.ahead_count_exceeded) == (1, True)


async def test_what_waits_for_its_next_attempt_says_until_when_and_what_went_wrong(service: RunningService) -> None:
    session = await work(service)
    await scan(service, 1)
    failure = Failure.of("parcels API", "HTTP 503", "busy")
    await end(service, await take(service, session), "retry", error="busy", failure=failure, delay_s=3600.0)
    (cause,) = await why(service)
    assert (kinds([cause]), cause.error, cause.attempt, cause.attempts_max) == (["BACKING_OFF"], "busy", 1, 3)
    assert cause.failure_group_id == str(failure.group("parcels"))
    assert cause.until_time.ToSeconds() > 0


async def test_all_that_stands_in_the_way_is_told_at_once(service: RunningService) -> None:
    await scan(service, 1)
    await service.stub.PauseWorkflow(pb.PauseWorkflowRequest(resource="parcels", actor="ann", reason="too dear"))
    await execute(
        service,
        "INSERT INTO api_state (api, held_until, broken_since, error) VALUES"
        f" ('parcels API', now() + {HOUR}, now(), 'it answered 503')",
    )
    await execute(service, f"INSERT INTO call_schedule VALUES ('parcels API', '', now() + {HOUR})")
    causes = await why(service)
    assert kinds(causes) == ["PAUSED", "BREAKER_OPEN", "API_HELD", "NO_WORKER", "RATE_LIMITED", "BEHIND_OTHERS"]
    paused, broken, held, _, limited, _ = causes
    assert (paused.actor, paused.reason, paused.HasField("since_time")) == ("ann", "too dear", True)
    assert (broken.error, broken.HasField("since_time")) == ("it answered 503", True)
    assert held.HasField("until_time")
    assert limited.HasField("until_time")


async def test_when_all_slots_are_leased_that_is_said(service: RunningService) -> None:
    session = await work(service)
    dead = await work(service)
    await execute(service, f"UPDATE worker_session SET ended_at = now() WHERE id = {dead}")
    await scan(service, 1)
    lease = "INSERT INTO call_lease (api, key, session, slots) VALUES ('parcels API', '', {}, 4)"
    await execute(service, lease.format(dead))
    assert kinds(await why(service)) == ["BEHIND_OTHERS"]
    await execute(
        service, f"INSERT INTO call_lease (api, key, session, slots) VALUES ('parcels API', '', {session}, 4)"
    )
    free, _ = await why(service)
    assert (kinds([free]), free.slot_count) == (["NO_FREE_SLOT"], 4)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ExplainItemRequest(resource="nope", id=key(1)), "UNKNOWN_RESOURCE"),
        (pb.ExplainItemRequest(resource="parcels", id=key(9)), "UNKNOWN_ITEM"),
        (pb.ExplainItemRequest(resource="parcels", id="x"), "INVALID_REQUEST"),
        (pb.ExplainItemRequest(resource="parcels"), "INVALID_REQUEST"),
    ],
)
async def test_what_cannot_be_explained_is_refused(
    service: RunningService, request_: pb.ExplainItemRequest, reason: str
) -> None:
    refusal = await refused(service.stub.ExplainItem(request_))
    assert refusal.reason == reason
    assert (refusal.code is grpc.StatusCode.INVALID_ARGUMENT) == (reason == "INVALID_REQUEST")
