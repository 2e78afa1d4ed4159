"""The SQL does to rows what the machine does to items: same verdict, same fields, same entry in the log, every time.

Hypothesis draws a sequence of steps. Each runs twice, on `ItemState`s through the machine and on rows through
`curate`, `curate_each`, `claim`, `finish` and `rescue`; after each the two must be equal in every field.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Column, MetaData, Table

from shared.db.claim import claim
from shared.db.curate import CurateCall, NewBatch, curate
from shared.db.curate_each import curate_each
from shared.db.engine import Connection, Database
from shared.db.finish import Result, finish
from shared.db.log import Entry, read_log
from shared.db.migrate import migrate
from shared.db.sessions import close_session, open_session, rescue
from shared.failure import WORKER_LOST, Failure
from shared.machine import (
    CHANGED,
    CLAIM,
    COMPLETE,
    FAIL,
    FIND_NOTHING,
    POSTPONE,
    RELEASE,
    REQUEUE,
    RESCUE,
    RETRY,
    UNCHANGED,
    Facts,
    ItemState,
    Lifecycle,
    curate_trigger,
)
from shared.registry import Registry
from shared.table import transition_table
from shared.workflow import Item, Limits, Workflow, item_columns
from tests.support.barrels import CURATION, QUEUE

pytestmark = pytest.mark.untraced

METADATA = MetaData()
CRATES = Workflow(
    resource="crates",
    source=Table("crates", METADATA, Column("id", BigInteger, primary_key=True), *item_columns(CURATION, QUEUE)),
    target=Table("crate_contents", METADATA, Column("crate", BigInteger, primary_key=True, autoincrement=False)),
    target_key="crate",
    curation=CURATION,
    queue=QUEUE,
    enricher="tests.property:never",
    limits=Limits(attempts_max=2, backoff_s=0),  # what is rescued need not wait
)
TABLE = transition_table(CRATES)
LIFECYCLE = Lifecycle(CURATION, attempts_max=CRATES.limits.attempts_max)
KEYS = (1, 2, 3)
WRONG = Failure("the scales", "Wrong", "… went wrong")
ABSENT = 99
ROWS = """SELECT id, status, coalesce(check_status, 'none'), check_attempts, check_error, check_failure, check_result,
                 check_turn, check_run_at, check_worker, check_batch, version FROM crates ORDER BY id"""


@dataclass(frozen=True, slots=True)
class SetStatus:
    """A user sets a status."""

    status: str
    keys: Sequence[int]
    cancel_in_flight: bool = False
    allow_partial: bool = True
    validate_only: bool = False
    stale: bool = False
    """Whether the first of the items is expected at a version that it no longer has."""


@dataclass(frozen=True, slots=True)
class Requeue:
    """A user gives what has failed another try."""

    keys: Sequence[int]


@dataclass(frozen=True, slots=True)
class Each:
    """Several users do something to one item each, in one statement."""

    triggers: Mapping[int, str]
    stale: bool
    """Whether they expect versions that their items no longer have."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker asks for items."""

    limit: int


@dataclass(frozen=True, slots=True)
class Finish:
    """A worker says how attempts ended, whether or not it still has the items."""

    triggers: Mapping[int, str]
    later: bool
    """Whether a retry has to wait, longer than the test takes."""
    late: bool
    """Whether the results are of an older version."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """The worker dies, or does not; then items of dead workers are rescued."""

    dead: bool


Step = SetStatus | Requeue | Each | Claim | Finish | Rescue


@dataclass(slots=True)
class World:
    """A database with crates, and the same crates as the machine sees them."""

    database: Database
    items: dict[int, ItemState] = field(default_factory=dict)
    saved: set[int] = field(default_factory=set)
    """Crates whose contents were found."""
    session: int = 0
    position: int = 0
    """Of the log, before the step."""
    expected: list[tuple[Any, ...]] = field(default_factory=list)
    """What the step must append to the log, by item."""

    async def start(self, connection: Connection, keys: Sequence[int]) -> None:
        """New crates, nothing else."""
        await connection.execute("DELETE FROM crates")
        await connection.execute("DELETE FROM crate_contents")
        await connection.execute("UPDATE worker_session SET ended_at = now() WHERE ended_at IS NULL")
        await connection.execute("INSERT INTO crates (id) SELECT unnest(%s::bigint[])", (list(keys),))
        self.items, self.saved = {key: ItemState(CURATION.initial) for key in keys}, set()
        self.session = await open_session(connection, host="here", version="1", resources=["crates"])

    def fire(self, key: int, trigger: str, facts: Facts) -> str:
        """Fires a trigger at one item of the machine, and notes what the log should say of it."""
        item = self.items[key]
        before = replace(item)
        verdict = LIFECYCLE.apply(item, trigger, facts)
        if verdict != CHANGED:
            assert item == before
            return verdict
        kind = "curate" if trigger.startswith("set ") else trigger
        user = kind in ("curate", REQUEUE)
        pairs = [before.status, item.status, _stored(before.queue_status), _stored(item.queue_status)]
        worker = None if user else item.worker or before.worker
        run_at = item.run_at if item.queue_status == "queued" else None
        cause = facts.batch if user else None
        batch = item.batch if item.batch is not None else before.batch
        left = before.batch if batch != before.batch and before.queue_status in ("queued", "processing") else None
        told = (batch, left, cause, worker, item.attempts, item.error, run_at)
        self.expected.append((str(key), item.version, kind, *pairs, *told))
        return verdict

    def turns(self, keys: Sequence[int]) -> dict[int, float]:
        """The turns that a batch of these items takes: one after another from where the queue is."""
        waiting = [i.turn for i in self.items.values() if i.queue_status == "queued" and i.run_at is None]
        return {key: min(waiting, default=0.0) + n for n, key in enumerate(sorted(set(keys) & set(self.items)))}


def _stored(queue_status: str) -> str | None:
    return None if queue_status == "none" else queue_status


async def _set_status(world: World, connection: Connection, step: SetStatus) -> None:
    turns = world.turns(step.keys)
    before = {key: replace(item) for key, item in world.items.items()}
    stale = next((key for key in step.keys if key in before), None) if step.stale else None
    call = CurateCall(
        trigger=curate_trigger(step.status),
        keys=step.keys,
        versions=[before[key].version - (key == stale) if key in before else None for key in step.keys],
        batch=None if step.validate_only else NewBatch(status=step.status),
        allow_partial=step.allow_partial,
        cancel_in_flight=step.cancel_in_flight,
    )
    curated = await curate(connection, CRATES, TABLE, call)
    facts = {
        key: Facts(batch=curated.batch, turn=turn, cancel_in_flight=step.cancel_in_flight)
        for key, turn in turns.items()
    }
    verdicts = {
        key: "not_found"
        if key not in before
        else "stale_version"
        if key == stale
        else world.fire(key, curate_trigger(step.status), facts[key])
        for key in step.keys
    }
    # An item that waits already, and goes on to another trigger status, keeps its place and its batch.
    queued = sum(world.items[key].queue_status == "queued" != old.queue_status for key, old in before.items())
    refused = [verdict for verdict in verdicts.values() if verdict not in (CHANGED, UNCHANGED)]
    if step.validate_only or (refused and not step.allow_partial):
        world.items, world.expected = before, []
    left_out = sorted((str(key), verdict) for key, verdict in verdicts.items() if verdict != CHANGED)
    assert sorted((outcome.item, outcome.reason) for outcome in curated.outcomes) == left_out
    changed = len(verdicts) - len(left_out)
    assert (curated.requested, curated.changed, curated.queued) == (len(step.keys), changed, queued)
    assert curated.refused == len(refused)


async def _requeue(world: World, connection: Connection, step: Requeue) -> None:
    turns = world.turns(step.keys)
    call = CurateCall(trigger=REQUEUE, keys=step.keys, batch=NewBatch(status=REQUEUE), allow_partial=True)
    curated = await curate(connection, CRATES, TABLE, call)
    verdicts = [world.fire(key, REQUEUE, Facts(batch=curated.batch, turn=turn)) for key, turn in turns.items()]
    assert curated.changed == curated.queued == verdicts.count(CHANGED)


async def _each(world: World, connection: Connection, step: Each) -> None:
    turns = {key: turn for key in step.triggers for turn in world.turns([key]).values()}
    calls = [
        CurateCall(
            trigger=trigger,
            keys=[key],
            versions=[world.items[key].version - 1 if key in world.items else 1] if step.stale else None,
            batch=NewBatch(status=trigger),
        )
        for key, trigger in step.triggers.items()
    ]
    answers = await curate_each(connection, CRATES, TABLE, calls)
    for (key, trigger), curated in zip(step.triggers.items(), answers, strict=True):
        if key not in world.items or step.stale:
            assert curated is None
            continue
        before = replace(world.items[key])
        facts = Facts(batch=curated and curated.batch, turn=turns[key])
        assert (world.fire(key, trigger, facts) == CHANGED) == (curated is not None)
        if curated is not None:
            queued = world.items[key].queue_status == "queued" != before.queue_status
            assert (curated.requested, curated.changed, curated.queued) == (1, 1, queued)


async def _claim(world: World, connection: Connection, step: Claim, now: datetime) -> None:
    queued = [key for key, item in world.items.items() if item.queue_status == "queued"]
    times = {key: world.items[key].run_at for key in queued}
    # What was rescued at once has the same time: which of it comes first, nothing says.
    late = {key: (at, 0.0, 0) for key, at in times.items() if at is not None and at <= now}
    next_ = {key: (now, world.items[key].turn, key) for key, at in times.items() if at is None}
    claimed = await claim(connection, CRATES, TABLE, session=world.session, limit=step.limit)
    keys = [item.key for item in claimed.items]
    assert (
        sorted((late | next_)[key] for key in keys) == [*sorted(late.values()), *sorted(next_.values())][: step.limit]
    )
    for key in set(world.items) - set(queued):
        assert world.fire(key, CLAIM, Facts()) != CHANGED
    for key in keys:
        assert world.fire(key, CLAIM, Facts(worker=world.session)) == CHANGED
    wanted = sorted((key, world.items[key].version, world.items[key].attempts) for key in keys)
    assert sorted((item.key, item.version, item.attempt) for item in claimed.items) == wanted


async def _finish(world: World, connection: Connection, step: Finish, now: datetime) -> None:
    delay_s = 3600.0 if step.later else 0.0
    results = [
        Result(
            Item(key, world.items[key].version - step.late, 1, {}),
            trigger,
            error=f"{key} went wrong" if trigger in (RETRY, FAIL, POSTPONE) else None,
            failure=WRONG if trigger in (RETRY, FAIL, POSTPONE) else None,
            delay_s=delay_s,
            values={"crate": key} if trigger == COMPLETE else None,
        )
        for key, trigger in step.triggers.items()
        if key in world.items
    ]
    saved = 0
    for result in () if step.late else results:
        failure = result.failure and result.failure.group("crates")
        facts = Facts(later=now + timedelta(seconds=delay_s), error=result.error, failure=failure)
        changed = world.fire(result.item.key, result.trigger, facts) == CHANGED
        saved += changed
        if changed and result.trigger == COMPLETE:
            world.saved.add(result.item.key)
    finished = await finish(connection, CRATES, TABLE, results)
    assert (finished.saved, finished.dropped) == (saved, len(results) - saved)


async def _rescue(world: World, connection: Connection, step: Rescue, now: datetime) -> None:
    rescued, facts = 0, Facts(later=now, error=WORKER_LOST.message, failure=WORKER_LOST.group("crates"))
    if step.dead:
        await close_session(connection, world.session)
        world.session = await open_session(connection, host="here", version="1", resources=["crates"])
        rescued = sum(world.fire(k, RESCUE, facts) == CHANGED for k in world.items)
    assert await rescue(connection, CRATES, TABLE) == rescued


async def _take(world: World, step: Step) -> None:
    """One step in one transaction, then the comparison in another."""
    world.expected = []
    async with world.database.transaction() as connection:
        now = (await (await connection.execute("SELECT now()")).fetchall())[0][0]
        match step:
            case SetStatus():
                await _set_status(world, connection, step)
            case Requeue():
                await _requeue(world, connection, step)
            case Each():
                await _each(world, connection, step)
            case Claim():
                await _claim(world, connection, step, now)
            case Finish():
                await _finish(world, connection, step, now)
            case Rescue():
                await _rescue(world, connection, step, now)
    async with world.database.transaction() as connection:
        await _compare(world, connection)


async def _compare(world: World, connection: Connection) -> None:
    rows = await (await connection.execute(ROWS)).fetchall()
    names = ("status", "queue_status", "attempts", "error", "failure", "result", "turn", "run_at", "worker", "batch")
    assert {row[0]: dict(zip((*names, "version"), row[1:], strict=True)) for row in rows} == {
        key: asdict(item) for key, item in world.items.items()
    }
    contents = await (await connection.execute("SELECT crate FROM crate_contents")).fetchall()
    assert {row[0] for row in contents} == world.saved
    entries = await read_log(connection, after=world.position, through=2**62, limit=1000)
    appended = [told for entry in entries for told in _told(entry)]
    assert sorted(appended, key=str) == sorted(world.expected, key=str)
    assert len({entry.position for entry in entries}) <= 1
    world.position = max((entry.position for entry in entries), default=world.position)


def _told(e: Entry) -> Iterator[tuple[Any, ...]]:
    """What an entry says, by item."""
    same = (e.kind, e.from_status, e.to_status, e.from_queue, e.to_queue, e.batch, e.left_batch, e.cause, e.worker)
    for n, item in enumerate(e.items):
        yield item, e.versions[n], *same, e.attempts[n], e.errors and e.errors[n], e.run_ats and e.run_ats[n]


def steps(keys: Sequence[int]) -> st.SearchStrategy[Step]:
    """Any step on these items. Claims come often, since what follows a claim is most of the lifecycle."""
    some: Callable[..., st.SearchStrategy[list[int]]] = lambda known: st.lists(  # noqa: E731 - a name for a shape
        st.sampled_from(known), min_size=1, max_size=len(known), unique=True
    )
    users = st.builds(
        SetStatus,
        status=st.sampled_from(CURATION.statuses),
        keys=some(keys) | some([*keys, ABSENT]) if len(keys) > 1 else some(keys),
        cancel_in_flight=st.booleans(),
        allow_partial=st.sampled_from([True, True, False]),
        validate_only=st.sampled_from([False, False, False, True]),
        stale=st.sampled_from([False, False, False, True]),
    )
    does = st.sampled_from([REQUEUE, *map(curate_trigger, CURATION.statuses)])
    each = st.builds(
        Each,
        triggers=st.dictionaries(st.sampled_from([*keys, ABSENT]), does, min_size=1),
        stale=st.sampled_from([False, False, False, True]),
    )
    queue_up = st.builds(SetStatus, status=st.sampled_from(sorted(CURATION.triggers)), keys=st.just(keys))
    triggers = st.sampled_from([COMPLETE, FIND_NOTHING, RETRY, RETRY, FAIL, RELEASE, POSTPONE])
    ends = st.builds(
        Finish,
        triggers=st.dictionaries(st.sampled_from(keys), triggers, min_size=1),
        later=st.sampled_from([False, False, True]),
        late=st.sampled_from([False, False, False, True]),
    )
    claims = st.builds(Claim, limit=st.integers(1, len(keys)))
    requeues = st.builds(Requeue, keys=st.just(keys))
    return st.one_of(
        users, queue_up, requeues, each, each, claims, claims, ends, ends, st.builds(Rescue, dead=st.booleans())
    )


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """The tables of crates."""
    migrate(database_url, Registry(CRATES))
    async with Database(database_url) as database:
        yield World(database)


# The database is the same in all examples; each starts by emptying it.
examples = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


LATE = Finish({1: COMPLETE}, later=False, late=True)
"""Of an item that is with a worker it is told from a result in time by its version alone."""


@examples
@given(path=st.lists(steps(KEYS[:1]), min_size=4, max_size=14))
@example(path=[SetStatus(min(CURATION.triggers), KEYS[:1]), Claim(1), LATE])
async def test_one_item_goes_the_same_way_through_the_machine_and_the_sql(world: World, path: list[Step]) -> None:
    await _walk(world, KEYS[:1], path)


@examples
@given(path=st.lists(steps(KEYS), min_size=4, max_size=14))
async def test_several_items_go_the_same_way_through_the_machine_and_the_sql(world: World, path: list[Step]) -> None:
    await _walk(world, KEYS, path)


async def _walk(world: World, keys: Sequence[int], path: Sequence[Step]) -> None:
    async with world.database.transaction() as connection:
        await world.start(connection, keys)
    for step in path:
        await _take(world, step)
