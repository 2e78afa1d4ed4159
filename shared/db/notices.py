"""Notices: entries of the event log about a whole workflow, so that watchers hear of them in order with the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from shared.db.engine import Connection
from shared.db.writer import CHANNEL

NoticeKind: TypeAlias = Literal["pause", "resume", "breaker_open", "breaker_close"]
"""Nobody claims, by order or because the external API is down; or the end of it."""


async def append_notice(connection: Connection, resources: Sequence[str], kind: NoticeKind, detail: str) -> None:
    """Appends a notice for each of these resources: an entry without items, `detail` its one step.

    The caller has changed the row that the notice is about, and so holds its lock: notices are in the order of changes.
    """
    await connection.execute(
        """/* append_notice */
        WITH appended AS (
            INSERT INTO status_event (position, part, resource, kind, from_status, to_status,
                                      items, versions, attempts, steps)
            SELECT nextval('status_event_position'), 1, resource, %(kind)s, '', '', '{}', '{}', '{}', ARRAY[%(detail)s]
            FROM unnest(%(resources)s::text[]) AS r (resource)
            RETURNING resource
        )
        SELECT pg_notify(%(channel)s, resource) FROM appended""",
        {"kind": kind, "detail": detail, "resources": list(resources), "channel": CHANNEL},
    )
