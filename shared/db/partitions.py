"""Partitions of the event log: one a day, made ahead, dropped when they are older than the retention.

A position says its day: at midnight the sequence jumps to day * 2^40. So the log is partitioned by position, which is
what readers ask by, and dropped by age, which is what operators ask for. Where nobody keeps the partitions for days,
events go on in the last one: nothing is ever without a partition.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import LockNotAvailable

from shared.db.batches import fold, moves

log = logging.getLogger(__name__)

DAY_SIZE = 2**40
"""Positions of a day."""
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '5s'"
"""For what takes a table for itself: whoever comes later waits behind it, and it may wait for a reader of hours."""
UNBOUNDED = """SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout')"""
"""What a role or a database has set for its users is no bound for a transaction that nobody waits for. Not every
version has both."""
UNREAD = ("items", "versions", "attempts", "earlier", "errors", "run_ats", "steps", "fractions")
"""Arrays of whose elements no plan needs to know. Statistics of them read all of the log: half a second of a core for
the entries of 300,000 items, and under a worker that drains they are taken at each look of autovacuum."""
EPOCH = date(1970, 1, 1)
_LOCK = 0x63757262
"""The number of the advisory lock that `keep_alone` takes."""


def day_start(position: int) -> int:
    """The position at which the day of a position begins; no entry ever has it."""
    return position - position % DAY_SIZE


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping the partitions did."""

    created: int
    dropped: int


def keep_partitions(connection: psycopg.Connection[Any], *, retention_days: int | None) -> Kept:
    """Makes today's and tomorrow's partitions, moves the sequence to today, drops what is older than the retention.

    Args:
        connection: in a transaction, which the caller commits.
        retention_days: how many whole days before today are kept; all when None.

    Before a partition goes, what it says of the progress of batches is added to their rows, and the items of a claim
    that is not settled are copied to its row. While somebody reads it, e.g. for a backup, it stays.
    """
    keep_alone(connection)
    row = connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    today = (row[0] - EPOCH).days
    days = _days(connection)
    created = [day for day in (today, today + 1) if day not in days]
    if today in created:
        # The sequence is moved before others see the partition. Nobody else reads or writes the log meanwhile.
        connection.execute("LOCK TABLE ONLY status_event IN ACCESS EXCLUSIVE MODE")
    for day in created:
        create_partition(connection, day)
    expired = [] if retention_days is None else sorted(day for day in days if day < today - retention_days)
    dropped = _drop(connection, expired)
    oldest = min({*days, *created}.difference(expired[:dropped]))
    # Asked of what is there: of a partition that somebody else dropped or detached, watchers are told, too.
    connection.execute(
        "UPDATE event_log SET pruned_through = %(through)s WHERE pruned_through < %(through)s",
        {"through": oldest * DAY_SIZE - 1},
    )
    # The last step: no rollback takes it back, and without today's partition nobody could write any more.
    connection.execute(
        "SELECT setval('status_event_position', %(start)s) FROM status_event_position WHERE last_value < %(start)s",
        {"start": today * DAY_SIZE},
    )
    return Kept(len(created), dropped)


def keep_alone(connection: psycopg.Connection[Any]) -> None:
    """Lets one process at a time keep the log, and what outlives it, for as long as the transaction lasts."""
    connection.execute(UNBOUNDED)
    connection.execute(LOCK_TIMEOUT)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def create_partition(connection: psycopg.Connection[Any], day: int) -> None:
    """Makes the partition of a day, which is counted from the epoch. Who reads or writes the log is not waited for."""
    bounds = sql.Literal(day * DAY_SIZE), sql.Literal((day + 1) * DAY_SIZE)
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE status_event INCLUDING ALL)").format(_partition(day)))
    unread = sql.SQL(", ").join(sql.SQL(f"ALTER {name} SET STATISTICS 0") for name in UNREAD)
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(_partition(day), unread))
    # The user may be one of several members of the owning role; the next to migrate, or to drop it, may be another.
    asked = "SELECT pg_get_userbyid(relowner), current_user FROM pg_class WHERE oid = 'status_event'::regclass"
    owner, user = connection.execute(asked).fetchone() or ("", "")
    if owner != user:
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(_partition(day), sql.Identifier(owner)))
    connection.execute(
        sql.SQL("ALTER TABLE status_event ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            _partition(day), *bounds
        )
    )


def _days(connection: psycopg.Connection[Any]) -> set[int]:
    """The days that have a partition. What somebody else attached, e.g. a default, has another name and is theirs."""
    cursor = connection.execute(
        """SELECT right(relname, 8)::date FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
        WHERE inhparent = 'status_event'::regclass AND relname ~ '^status_event_[0-9]{8}$'"""
    )
    return {(day - EPOCH).days for (day,) in cursor.fetchall()}


def _partition(day: int) -> sql.Identifier:
    return sql.Identifier(f"status_event_{EPOCH + timedelta(days=day):%Y%m%d}")


def _drop(connection: psycopg.Connection[Any], days: Sequence[int]) -> int:
    """Drops partitions, the oldest first, until one is in use. Returns how many."""
    for n, day in enumerate(days):
        try:
            with connection.transaction():
                connection.execute(fold(moves(_partition(day), sql.SQL("IS NOT NULL"))))
                connection.execute(_COPY_CLAIMS.format(partition=_partition(day)))
                # From here on nobody else reads or writes the log.
                connection.execute(sql.SQL("DROP TABLE {}").format(_partition(day)))
        except LockNotAvailable:
            log.info("the log's oldest partitions are dropped later: somebody reads them")
            return n
    return len(days)


_COPY_CLAIMS = sql.SQL(
    """
UPDATE worker_claim c SET items = e.items
FROM (SELECT position, array_agg(key) AS items FROM {partition}, unnest(items) AS key
      WHERE position IN (SELECT position FROM worker_claim) GROUP BY position) e
WHERE c.position = e.position
"""
)
