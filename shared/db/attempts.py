"""How far an attempt under way has come, from the log, and how much of an API's limits is in use."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shared.db.engine import Connection
from shared.db.sessions import ALIVE
from shared.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Underway:
    """An attempt that is under way."""

    claimed_at: datetime | None
    """None when the log no longer reaches back to the claim."""
    step: str
    """The last one reported."""
    fraction: float


@dataclass(frozen=True, slots=True)
class Taken:
    """How much is in use of the limits that hold for all workers together."""

    workers: int
    """Alive, and serving the workflow."""
    next_call_at: datetime | None
    """The first call that the API's rate still allows; None when that is now."""
    slots: int
    """Leased by workers, of those for the API as a whole."""


async def read_underway(connection: Connection, key: str, version: int, *, claim: int | None) -> Underway:
    """How far the attempt at an item of this version has come; `claim` is the position in the log of its claim."""
    cursor = await connection.execute(
        """/* read_underway */
        SELECT (SELECT min(at) FROM status_event WHERE position = %(claim)s),
               (array_agg(e.steps[array_position(e.items, %(key)s)] ORDER BY e.position DESC))[1],
               (array_agg(e.fractions[array_position(e.items, %(key)s)] ORDER BY e.position DESC))[1]
        FROM status_event e
        WHERE e.kind = 'progress' AND e.items @> ARRAY[%(key)s] AND e.position > %(claim)s
          AND e.versions[array_position(e.items, %(key)s)] = %(version)s""",
        {"key": key, "version": version, "claim": claim},
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return Underway(row[0], row[1] or "", row[2] or 0.0)


async def read_taken(connection: Connection, workflow: Workflow) -> Taken:
    """How many workers serve a workflow, and how much of the limits of its API is in use."""
    cursor = await connection.execute(
        f"""/* read_taken */
        WITH alive AS MATERIALIZED (SELECT id, resources FROM worker_session WHERE {ALIVE})
        SELECT (SELECT count(*) FROM alive WHERE %(resource)s = ANY(resources)),
               (SELECT next_at FROM call_schedule WHERE api = %(api)s AND key = '' AND next_at > clock_timestamp()),
               (SELECT coalesce(sum(l.slots), 0) FROM call_lease l JOIN alive a ON a.id = l.session
                WHERE l.api = %(api)s AND l.key = '')""",  # noqa: S608 - our own words
        {"resource": workflow.resource, "api": workflow.api},
    )
    row = await cursor.fetchone()
    assert row is not None, "three subqueries have a row"
    return Taken(*row)
