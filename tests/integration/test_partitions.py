"""The partitions of the log on a real PostgreSQL: made ahead, dropped late, and no number is lost with them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from curation_service.log_keeper import LogKeeper
from shared.db.batches import Progress, read_progress
from shared.db.engine import Database
from shared.db.log import log_identity
from shared.db.partitions import DAY_SIZE, EPOCH, Kept, keep_partitions
from tests.support.eventually import eventually
from tests.support.proxy import proxied

Connection = psycopg.Connection[Any]
LATER_DAYS = 40
MOVES = (
    # kind, from and to queue status, caused by the batch itself, items
    ("curate", None, "queued", True, 5),
    ("claim", "queued", "processing", False, 4),
    ("progress", "processing", "processing", False, 4),
    ("find_nothing", "processing", "completed", False, 2),
    ("fail", "processing", "failed", False, 1),
)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection that commits each statement."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def keep(connection: Connection, retention_days: int | None = None) -> Kept:
    with connection.transaction():
        return keep_partitions(connection, retention_days=retention_days)


def today(connection: Connection) -> date:
    row = connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    day: date = row[0]
    return day


def number(day: date) -> int:
    return (day - EPOCH).days


def partitions(connection: Connection) -> set[str]:
    rows = connection.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'status_event'::regclass"
    ).fetchall()
    return {name for (name,) in rows}


def name_of(day: date) -> str:
    return f"status_event_{day:%Y%m%d}"


def drawn(connection: Connection) -> int:
    row = connection.execute("SELECT last_value FROM status_event_position").fetchone()
    assert row is not None
    return int(row[0])


def go_back_to(connection: Connection, day: date) -> None:
    """The log as it was when nobody has kept it since that day."""
    for name in partitions(connection):
        connection.execute(f"DROP TABLE {name}")
    start = number(day) * DAY_SIZE
    connection.execute(
        f"CREATE TABLE {name_of(day)} PARTITION OF status_event FOR VALUES FROM ({start}) TO ({start + DAY_SIZE})"
    )
    connection.execute("SELECT setval('status_event_position', %s)", (start,))
    connection.execute("UPDATE event_log SET pruned_through = %s", (start - 1,))


def add_batch(connection: Connection) -> int:
    row = connection.execute(
        "INSERT INTO status_batch (resource, status, queued) VALUES ('parcels', 'Scan', 5) RETURNING id"
    ).fetchone()
    assert row is not None
    return int(row[0])


def append(connection: Connection, batch: int, *moves: tuple[str, str | None, str, bool, int]) -> None:
    """Appends events as the writer does, where the sequence is."""
    for kind, from_queue, to_queue, own, count in moves:
        connection.execute(
            """INSERT INTO status_event (position, part, resource, kind, from_status, to_status, from_queue, to_queue,
                                         batch, cause, items, versions, attempts)
               SELECT nextval('status_event_position'), 1, 'parcels', %(kind)s, 'New', 'Scan', %(left)s, %(entered)s,
                      %(batch)s, %(cause)s, array_agg(n::text), array_agg(n), array_agg(1)
               FROM generate_series(1, %(count)s::bigint) n""",
            {
                "kind": kind,
                "left": from_queue,
                "entered": to_queue,
                "batch": batch,
                "cause": batch if own else None,
                "count": count,
            },
        )


async def progress(url: str, batch: int) -> Progress:
    async with Database(url) as database, database.transaction() as connection:
        return await read_progress(connection, batch)


async def pruned_through(url: str) -> int:
    async with Database(url) as database, database.transaction() as connection:
        return (await log_identity(connection)).pruned_through


def test_keeping_makes_the_partitions_of_today_and_tomorrow_once(connection: Connection) -> None:
    day = today(connection)
    go_back_to(connection, day - timedelta(days=LATER_DAYS))
    assert keep(connection) == Kept(created=2, dropped=0)
    expected = {name_of(day + timedelta(days=days)) for days in (-LATER_DAYS, 0, 1)}
    assert partitions(connection) == expected
    assert keep(connection) == Kept(created=0, dropped=0)
    assert partitions(connection) == expected


def test_events_go_to_the_partition_of_the_day_that_they_were_written_on(connection: Connection) -> None:
    day = today(connection)
    go_back_to(connection, day - timedelta(days=LATER_DAYS))
    batch = add_batch(connection)
    append(connection, batch, MOVES[0])
    keep(connection)
    append(connection, batch, MOVES[1])
    rows = connection.execute("SELECT tableoid::regclass::text FROM status_event ORDER BY position").fetchall()
    assert [name for (name,) in rows] == [name_of(day - timedelta(days=LATER_DAYS)), name_of(day)]


def test_no_statistics_are_taken_of_what_nothing_is_looked_for_by(connection: Connection) -> None:
    append(connection, 1, *MOVES)
    partition = name_of(today(connection))
    connection.execute(f"ANALYZE {partition}")
    query = "SELECT attname::text FROM pg_stats WHERE tablename = %s"
    known = {name for (name,) in connection.execute(query, [partition])}
    arrays = "SELECT attname::text FROM pg_attribute WHERE attrelid = 'status_event'::regclass AND attndims > 0"
    assert known >= {"position", "kind"}
    assert not known & {name for (name,) in connection.execute(arrays)}


def test_the_sequence_only_moves_forward(connection: Connection) -> None:
    keep(connection)
    ahead = number(today(connection)) * DAY_SIZE + 1_000_000
    connection.execute("SELECT setval('status_event_position', %s)", (ahead,))
    keep(connection, retention_days=1)
    assert drawn(connection) == ahead


async def test_dropped_partitions_leave_what_they_said_of_batches(connection: Connection, database_url: str) -> None:
    now = today(connection)
    day = now - timedelta(days=LATER_DAYS)
    go_back_to(connection, day)
    batch, other = add_batch(connection), add_batch(connection)
    append(connection, batch, *MOVES)
    append(connection, other, MOVES[0])
    keep(connection)
    append(connection, batch, ("fail", "processing", "failed", False, 1))
    before = await progress(database_url, batch), await progress(database_url, other)
    assert before[0] == Progress(total=5, queued=1, processing=0, completed=2, failed=2, dequeued=0)
    assert keep(connection, retention_days=LATER_DAYS) == Kept(created=0, dropped=0)
    assert await pruned_through(database_url) == number(day) * DAY_SIZE - 1
    assert keep(connection, retention_days=LATER_DAYS - 1) == Kept(created=0, dropped=1)
    assert (await progress(database_url, batch), await progress(database_url, other)) == before
    assert name_of(day) not in partitions(connection)
    assert await pruned_through(database_url) == number(now) * DAY_SIZE - 1


async def test_what_several_partitions_said_adds_up(connection: Connection, database_url: str) -> None:
    day = today(connection) - timedelta(days=LATER_DAYS)
    go_back_to(connection, day)
    batch = add_batch(connection)
    append(connection, batch, *MOVES[:2])
    start = (number(day) + 1) * DAY_SIZE
    connection.execute(
        f"CREATE TABLE {name_of(day + timedelta(days=1))} PARTITION OF status_event"
        f" FOR VALUES FROM ({start}) TO ({start + DAY_SIZE})"
    )
    connection.execute("SELECT setval('status_event_position', %s)", (start,))
    append(connection, batch, *MOVES[2:], ("curate", "queued", "none", False, 1))
    before = await progress(database_url, batch)
    assert before == Progress(total=5, queued=0, processing=1, completed=2, failed=1, dequeued=1)
    for retention_days in (LATER_DAYS - 1, LATER_DAYS - 2):
        assert keep(connection, retention_days=retention_days).dropped == 1
        assert await progress(database_url, batch) == before


@pytest.mark.parametrize("statement", ["DROP TABLE {}", "ALTER TABLE status_event DETACH PARTITION {}"])
async def test_what_somebody_else_took_out_of_the_log_is_no_longer_said_to_be_in_it(
    connection: Connection, database_url: str, statement: str
) -> None:
    day = today(connection)
    gone = day - timedelta(days=LATER_DAYS)
    go_back_to(connection, gone)
    keep(connection)
    connection.execute(statement.format(name_of(gone)))
    assert keep(connection) == Kept(created=0, dropped=0)
    assert await pruned_through(database_url) == number(day) * DAY_SIZE - 1


@pytest.fixture
def gives_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who keeps the partitions waits for no lock that it will not get."""
    monkeypatch.setattr("shared.db.partitions.LOCK_TIMEOUT", "SET LOCAL lock_timeout = '100ms'")


@pytest.mark.usefixtures("gives_up_soon")
def test_a_partition_that_somebody_reads_is_dropped_later(connection: Connection, database_url: str) -> None:
    day = today(connection) - timedelta(days=LATER_DAYS)
    go_back_to(connection, day)
    batch = add_batch(connection)
    append(connection, batch, MOVES[0])
    with psycopg.connect(database_url) as reader:
        reader.execute(f"SELECT FROM {name_of(day)}")  # and stays in its transaction
        assert keep(connection, retention_days=1) == Kept(created=2, dropped=0)
    append(connection, batch, MOVES[1])
    assert keep(connection, retention_days=1) == Kept(created=0, dropped=1)


def test_tomorrow_is_made_while_somebody_reads_the_whole_log_as_a_backup_does(
    connection: Connection, database_url: str
) -> None:
    keep(connection)
    connection.execute(f"DROP TABLE {name_of(today(connection) + timedelta(days=1))}")
    with psycopg.connect(database_url) as reader:
        reader.execute("LOCK TABLE status_event IN ACCESS SHARE MODE")
        assert keep(connection) == Kept(created=1, dropped=0)


def test_of_two_who_keep_the_log_at_once_one_waits_and_finds_it_done(connection: Connection, database_url: str) -> None:
    go_back_to(connection, today(connection) - timedelta(days=LATER_DAYS))
    with psycopg.connect(database_url) as first, ThreadPoolExecutor(1) as other:
        assert keep_partitions(first, retention_days=None) == Kept(created=2, dropped=0)
        second = other.submit(keep, connection)
        while not (second.done() or first.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall()):
            pass
        first.commit()
        assert second.result() == Kept(created=0, dropped=0)


def test_a_log_is_never_said_to_reach_back_further_than_it_did(connection: Connection) -> None:
    # An old day came back, e.g. to look at it.
    go_back_to(connection, today(connection) - timedelta(days=LATER_DAYS))
    connection.execute("UPDATE event_log SET pruned_through = 2::bigint ^ 62")
    assert keep(connection, retention_days=1) == Kept(created=2, dropped=1)
    assert connection.execute("SELECT pruned_through = 2::bigint ^ 62 FROM event_log").fetchone() == (True,)


@pytest.mark.usefixtures("gives_up_soon")
def test_a_bound_for_the_statements_of_users_is_none_for_who_keeps_the_log(connection: Connection) -> None:
    connection.execute("SET statement_timeout = '1min'")
    with connection.transaction():
        keep_partitions(connection, retention_days=1)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",)
    assert connection.execute("SHOW statement_timeout").fetchone() == ("1min",)


@pytest.mark.usefixtures("gives_up_soon")
def test_a_log_that_is_read_while_it_has_no_partition_of_today_is_left_as_it_was(
    connection: Connection, database_url: str
) -> None:
    day = today(connection) - timedelta(days=LATER_DAYS)
    go_back_to(connection, day)
    position = drawn(connection)
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM status_event")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            keep(connection, retention_days=1)
    assert partitions(connection) == {name_of(day)}
    assert drawn(connection) == position
    append(connection, add_batch(connection), MOVES[0])  # there still is a partition to take it


async def test_a_keeper_whose_database_is_away_for_a_while_keeps_the_log_afterwards(
    database_url: str, connection: Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation_service.log_keeper.INTERVAL_S", 0.05)
    go_back_to(connection, today(connection) - timedelta(days=LATER_DAYS))
    async with proxied(database_url) as (proxy, url):
        proxy.refuse()
        async with LogKeeper(url=url, retention_days=1, batch_retention_days=None, workflows=[]):
            await eventually(lambda: "the log's partitions, or old batches, are left for later" in caplog.text)
            await proxy.accept()
            await eventually(lambda: name_of(today(connection)) in partitions(connection))
