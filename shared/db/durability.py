"""A commit that does not wait for the disk, and who waits in its place.

A claim that PostgreSQL forgets in a crash was never made: its items are queued still, and what became of them has a
version that is none. So a worker need not wait before it begins them, which is a quarter of the time in which an idle
one picks an item up. But whoever tells of a claim waits first: a watcher that had read past one which is then forgotten
would miss what takes its place, under the same position.
"""

from __future__ import annotations

from collections.abc import Iterable

from shared.db.engine import Connection
from shared.db.log import Entry
from shared.machine import CLAIM

UNAWAITED = "-c synchronous_commit=off"
"""Of a session whose commits do not wait: it claims, and does nothing else that others are told of."""


async def entries_on_disk(connection: Connection, entries: Iterable[Entry]) -> None:
    """Returns once all of these are on disk: what is no claim was before it could be seen."""
    if any(entry.kind == CLAIM for entry in entries):
        await all_on_disk(connection)


async def all_on_disk(connection: Connection) -> None:
    """Returns once all that was committed before is on disk, and with the standbys that a commit waits for.

    Args:
        connection: in autocommit, of a session whose commits wait.
    """
    # The least that a transaction can write; without a word written, a commit waits for nothing.
    await connection.execute("SELECT pg_logical_emit_message(true, 'curation', '')")
