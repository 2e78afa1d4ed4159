"""The machinery's indexes of a source: a table that is there may have those of an earlier version.

Those had the queue's status in their predicates, so that every completion wrote every index of its item. One of them
said what is in hand, as claims do now.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

from shared.db.in_hand import note_claims
from shared.db.statement import item_names
from shared.workflow import Workflow

# By what they are on, for a name depends on a schema, on a naming convention, and on how long it is.
_OUTDATED = text(
    """SELECT i.indexrelid::regclass::text, first.attname, (SELECT relname FROM pg_class WHERE oid = i.indexrelid)
    FROM pg_index i JOIN pg_attribute first ON first.attrelid = i.indrelid AND first.attnum = i.indkey[0]
    WHERE i.indrelid = to_regclass(:table) AND i.indpred IS NOT NULL AND first.attname = ANY(:columns)
      AND EXISTS (
        SELECT FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND a.attname = :status
      )"""
)
# What the new predicates take for granted: what has a turn is queued, not for later; what is under way has no failure.
_TIDY = """UPDATE {source} s
    SET {turn} = CASE WHEN s.{queue} = 'queued' AND s.{run_at} IS NULL THEN s.{turn} END,
        {failure} = CASE WHEN s.{queue} IS DISTINCT FROM 'processing' THEN s.{failure} END
    WHERE (s.{turn} IS NOT NULL AND (s.{queue} IS DISTINCT FROM 'queued' OR s.{run_at} IS NOT NULL))
       OR (s.{failure} IS NOT NULL AND s.{queue} = 'processing')"""


def set_indexes(connection: Connection, workflow: Workflow) -> None:
    """Replaces what is outdated; whoever writes the table waits meanwhile. Otherwise it touches nothing."""
    source, queue, quoted = workflow.source, workflow.queue, connection.dialect.identifier_preparer
    table = quoted.format_table(source)
    columns = [queue.turn, queue.run_at, queue.worker, queue.failure]
    outdated = connection.execute(_OUTDATED, {"table": table, "columns": columns, "status": queue.status}).all()
    if not outdated:
        return
    names = {name: part.as_string(None) for name, part in item_names(workflow).items()}
    driver = connection.connection.driver_connection
    assert driver is not None
    note_claims(driver, workflow)
    for name, _, _ in outdated:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    connection.exec_driver_sql(_TIDY.format(**names))
    # Each under the name of the index that it replaces: the name by the models may belong to another table, e.g. to the
    # one that a partitioned table has replaced.
    for index in source.indexes:
        first, where = index.columns[0].name, index.dialect_options["postgresql"]["where"]
        for name in [name for _, column, name in outdated if column == first and where is not None]:
            keys = ", ".join(quoted.quote(column.name) for column in index.columns)
            predicate = where.compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"CREATE INDEX {quoted.quote(name)} ON {table} ({keys}) WHERE {predicate}")
