"""The machinery's indexes of a source: a table that is there may have those of an earlier version.

Those had the queue's status in their predicates, so that every completion wrote every index of its item.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.db.statement import item_names
from shared.workflow import Workflow

_OUTDATED = text(
    """SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = to_regclass(:table) AND c.relname = ANY(:names)
      AND strpos(pg_get_expr(i.indpred, i.indrelid), :status) > 0"""
)
# What the new predicates take for granted: what has a turn is queued, not for later; what is under way has no failure.
_TIDY = """UPDATE {source} s
    SET {turn} = CASE WHEN s.{queue} = 'queued' AND s.{run_at} IS NULL THEN s.{turn} END,
        {failure} = CASE WHEN s.{queue} IS DISTINCT FROM 'processing' THEN s.{failure} END
    WHERE (s.{turn} IS NOT NULL AND (s.{queue} IS DISTINCT FROM 'queued' OR s.{run_at} IS NOT NULL))
       OR (s.{failure} IS NOT NULL AND s.{queue} = 'processing')"""


def set_indexes(connection: Connection, workflow: Workflow) -> None:
    """Replaces what is outdated; whoever writes the table waits meanwhile. Otherwise it touches nothing."""
    source, queue = workflow.source, workflow.queue
    partial = {str(i.name): i for i in source.indexes if i.dialect_options["postgresql"]["where"] is not None}
    names = [*partial, f"ix_{source.name}_{queue.worker}"]
    table = connection.dialect.identifier_preparer.format_table(source)
    found = {"table": table, "names": names, "status": queue.status}
    outdated = list(connection.scalars(_OUTDATED, found))
    if not outdated:
        return
    for name in outdated:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    tidy = {name: part.as_string(None) for name, part in item_names(workflow).items()}
    connection.exec_driver_sql(_TIDY.format(**tidy))
    for index in partial.values():
        index.create(connection, checkfirst=True)
