"""Claims: takes what is due from the queue, the oldest first, past whatever other workers hold."""

from __future__ import annotations

from functools import lru_cache

from psycopg import sql

from shared.db.engine import Connection
from shared.db.statement import item_names
from shared.db.writer import NOTIFY, Write, compose
from shared.machine import CLAIM
from shared.table import TransitionTable
from shared.workflow import Item, Workflow

_DUE = sql.SQL(
    """{source} s
    WHERE s.{queue} = 'queued' AND s.{run_at} <= now()
    ORDER BY s.{run_at}, s.{key}
    LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED"""
)
_CLAIMED = sql.SQL(
    """, noticed AS MATERIALIZED (SELECT {notify} FROM position)
SELECT c.key, c.new_version, c.to_attempts{columns}
FROM changed c LEFT JOIN (SELECT count(*) FROM noticed) n ON true"""
)


async def claim(
    connection: Connection, workflow: Workflow, table: TransitionTable, *, session: int, limit: int
) -> list[Item]:
    """Marks up to `limit` due items as processing by this worker session, and returns them.

    Skips rows that others have locked; so any number of workers claim at once without waiting, or meeting.
    """
    parameters = {"limit": limit, "session": session, "resource": workflow.resource}
    cursor = await connection.execute(_statement(workflow, table), parameters, prepare=True)
    names = [column.name for column in workflow.data_columns]
    return [Item(row[0], row[1], row[2], dict(zip(names, row[3:], strict=True))) for row in await cursor.fetchall()]


@lru_cache
def _statement(workflow: Workflow, table: TransitionTable) -> bytes:
    columns = [sql.Identifier(column.name) for column in workflow.data_columns]
    taken = [sql.Identifier(f"data {column.name}") for column in workflow.data_columns]
    return compose(
        workflow,
        Write(
            name=f"claim {workflow.resource}",
            chosen=_DUE.format(**item_names(workflow)),
            rules=table.of(CLAIM),
            trigger=sql.SQL("'claim'::text"),
            worker=sql.SQL("%(session)s::bigint"),
            returned=sql.SQL("").join(
                sql.SQL(", s.{} AS {}").format(*pair) for pair in zip(columns, taken, strict=True)
            ),
            answer=_CLAIMED.format(
                notify=NOTIFY, columns=sql.SQL("").join(sql.SQL(", c.{}").format(name) for name in taken)
            ),
        ),
    )
