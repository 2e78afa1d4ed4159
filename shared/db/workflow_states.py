"""What keeps all workers from claiming items of a workflow: operators pause and resume it, its API is held or down.

A pause holds when its transaction commits. It takes `workflow_state` for itself, and a claim that has looked there
keeps the table open until its own commit: so claims under way come before the pause, and those that come after it see
it. Claims pay nothing for that.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.errors import LockNotAvailable
from psycopg.rows import class_row

from shared.db.engine import Connection
from shared.db.log import append_state

log = logging.getLogger(__name__)

STATE_CHANNEL = "curation_state"
"""Where pauses and their ends are announced to workers; the payload is the resource."""

CLAIMS_S_MAX = 2
"""A pause waits so long for claims under way; meanwhile no other claim begins. One that hangs for longer, its worker
frozen or cut off, must not keep an operator from pausing."""


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """The state of one workflow and of its external API."""

    resource: str
    paused_at: datetime | None
    paused_by: str
    pause_reason: str
    draining: bool
    resumed_at: datetime | None
    resumed_by: str
    resume_reason: str
    api: str
    held_until: datetime | None
    """The API asked everybody to wait until then; None when that is past."""
    broken_since: datetime | None
    probe_at: datetime | None
    """While it is broken: when it is tried next."""
    api_error: str
    """What broke it."""


async def read_states(connection: Connection, apis: Mapping[str, str]) -> Sequence[WorkflowState]:
    """The states of workflows, in the order of `apis`: the external API of each resource."""
    async with connection.cursor(row_factory=class_row(WorkflowState)) as cursor:
        await cursor.execute(
            """/* read_states */
            SELECT r.resource, w.paused_at, coalesce(w.paused_by, '') AS paused_by,
                   coalesce(w.pause_reason, '') AS pause_reason, coalesce(w.draining, false) AS draining,
                   w.resumed_at, coalesce(w.resumed_by, '') AS resumed_by,
                   coalesce(w.resume_reason, '') AS resume_reason,
                   r.api, CASE WHEN a.held_until > clock_timestamp() THEN a.held_until END AS held_until,
                   a.broken_since, CASE WHEN a.broken_since IS NOT NULL THEN a.probe_at END AS probe_at,
                   CASE WHEN a.broken_since IS NULL THEN '' ELSE a.error END AS api_error
            FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS r (resource, api, n)
            LEFT JOIN workflow_state w ON w.resource = r.resource
            LEFT JOIN api_state a ON a.api = r.api
            ORDER BY r.n""",
            (list(apis), list(apis.values())),
        )
        return await cursor.fetchall()


async def read_draining(connection: Connection, resources: Sequence[str]) -> frozenset[str]:
    """Those of these workflows whose workers are to give back what they have not begun."""
    cursor = await connection.execute(
        "/* read_draining */ SELECT resource FROM workflow_state WHERE draining AND resource = ANY(%s)",
        (list(resources),),
    )
    return frozenset([resource for (resource,) in await cursor.fetchall()])


async def pause(connection: Connection, resource: str, *, by: str, reason: str, drain: bool = False) -> bool:
    """Lets nobody claim items of a workflow any more; with `drain`, workers give back what they have not begun.

    Returns whether that changed anything. In a transaction in which nothing else was done before.
    """
    await _wait_for_claims(connection)
    cursor = await connection.execute(
        """/* pause */
        INSERT INTO workflow_state AS w (resource, paused_at, paused_by, pause_reason, draining)
        VALUES (%(resource)s, clock_timestamp(), %(by)s, %(reason)s, %(drain)s)
        ON CONFLICT (resource) DO UPDATE
        SET paused_at = coalesce(w.paused_at, excluded.paused_at), draining = excluded.draining,
            paused_by = excluded.paused_by, pause_reason = excluded.pause_reason
        WHERE w.paused_at IS NULL OR (excluded.draining AND NOT w.draining)""",
        {"resource": resource, "by": by, "reason": reason, "drain": drain},
    )
    return await _told(connection, resource, changed=cursor.rowcount == 1)


async def resume(connection: Connection, resource: str, *, by: str, reason: str) -> bool:
    """Lets workers claim again. Returns whether the workflow was paused."""
    cursor = await connection.execute(
        """/* resume */
        UPDATE workflow_state
        SET paused_at = NULL, paused_by = '', pause_reason = '', draining = false,
            resumed_at = clock_timestamp(), resumed_by = %(by)s, resume_reason = %(reason)s
        WHERE resource = %(resource)s AND paused_at IS NOT NULL""",
        {"resource": resource, "by": by, "reason": reason},
    )
    return await _told(connection, resource, changed=cursor.rowcount == 1)


async def announce(connection: Connection, resources: Iterable[str]) -> None:
    """Tells watchers, in the order of the log, and workers that these workflows' state has changed, or their API's."""
    for resource in resources:
        await append_state(connection, resource)
        await alert(connection, resource)


async def alert(connection: Connection, resource: str) -> None:
    """Tells workers alone that there is something to look at."""
    await connection.execute("SELECT pg_notify(%s, %s)", (STATE_CHANNEL, resource))


async def _told(connection: Connection, resource: str, *, changed: bool) -> bool:
    if changed:
        await announce(connection, [resource])
    return changed


async def _wait_for_claims(connection: Connection) -> None:
    # Before the block below, which is a savepoint only where something was executed: else it would free its lock again.
    await connection.execute(f"SET LOCAL lock_timeout = '{CLAIMS_S_MAX}s'")
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE workflow_state IN ACCESS EXCLUSIVE MODE")
    except LockNotAvailable:
        log.warning("a claim has been under way for %s s; the pause does not wait for it", CLAIMS_S_MAX)
    await connection.execute("SET LOCAL lock_timeout TO DEFAULT")
