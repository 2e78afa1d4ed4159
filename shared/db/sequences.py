"""The sequences of the machinery's tables: where one is behind its table, what it gives next is taken already.

Logical replication leaves them so: it copies rows and no sequences. The log would then get events before those that
have been read, and nobody would hear of them.
"""

from __future__ import annotations

from typing import Any

import psycopg

from shared.errors import DatabaseUnfit

# Sequences are read after the tables, so that others may write meanwhile. One that this user may not draw from is left
# out.
_BEHIND = """
WITH kept (sequence, newest) AS (VALUES
    ('status_event_position', (SELECT max(position) FROM status_event)),
    ('status_event_position', (SELECT max(position) FROM worker_claim)),
    (pg_get_serial_sequence('status_batch', 'id'), (SELECT max(id) FROM status_batch)),
    (pg_get_serial_sequence('worker_session', 'id'), (SELECT max(id) FROM worker_session))
)
SELECT sequence, max(newest) FROM kept
WHERE CASE WHEN has_sequence_privilege(sequence, 'SELECT, USAGE')
           THEN newest > coalesce(pg_sequence_last_value(sequence::regclass), 0) END
GROUP BY sequence ORDER BY sequence"""
_CACHE = "SELECT seqcache FROM pg_sequence WHERE seqrelid = 'status_event_position'::regclass"


def check_sequences(connection: psycopg.Connection[Any]) -> None:
    """Raises `DatabaseUnfit` when one is behind its table, or positions are not given in the order of their asking."""
    for sequence, _ in connection.execute(_BEHIND):
        raise DatabaseUnfit(
            f"the sequence {sequence} is behind its table, as logical replication leaves it: "
            "run `python -m shared.db.migrate`"
        )
    if connection.execute(_CACHE).fetchone() != (1,):
        raise DatabaseUnfit(
            "each connection would draw positions of the log ahead, and events be missed: "
            "ALTER SEQUENCE status_event_position CACHE 1"
        )


def advance_sequences(connection: psycopg.Connection[Any]) -> None:
    """Moves those on that are behind; no rollback takes it back."""
    for sequence, newest in connection.execute(_BEHIND).fetchall():
        connection.execute("SELECT setval(%s::regclass, %s)", (sequence, newest))
