"""How PostgreSQL keeps a source table, whose rows change three times on their way through the queue.

Each of these changes leaves a dead version of the row, and two of them a dead entry in every index. Where vacuums come
late, or a page has no room, pages of indexes are split in two, and nothing ever joins them again. What was measured is
in `docs/performance/storage.md`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, text

TABLE_SETTINGS: Mapping[str, str] = {
    # Room on each page for the next version of its rows: the table does not grow, and a vacuum finds few pages to read.
    "fillfactor": "70",
    # A vacuum when a twentieth of the rows is dead, not a fifth.
    "autovacuum_vacuum_scale_factor": "0.05",
    # And without the pauses by which a vacuum of a table that is busy takes longer than it has.
    "autovacuum_vacuum_cost_delay": "0",
    # Statistics when half as many changes were made as there are rows, so a sixth of the items have gone their way, not
    # when it is a thirtieth: under a worker that drains that is at each look, and no hot statement needs them fresh.
    "autovacuum_analyze_scale_factor": "0.5",
}
"""Storage parameters of PostgreSQL for a source."""
INDEX_SETTINGS: Mapping[str, str] = {
    # A batch adds an entry for each of a page's rows before one of the old ones is dead: here they find room.
    "fillfactor": "50",
}
"""The same for each of its B-trees over all rows. The queue's are over a few, which come in order and leave again."""

# Of a partitioned table its partitions; of tables that are another's to change, none.
_UNSET = text(
    """WITH part AS (
        SELECT c.oid, c.reloptions
        FROM (SELECT relid FROM pg_partition_tree(to_regclass(:name)) UNION SELECT to_regclass(:name)) tree
        JOIN pg_class c ON c.oid = tree.relid AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')
    ), kept AS (
        SELECT 'TABLE' AS kind, oid, reloptions FROM part
        UNION ALL
        SELECT 'INDEX', c.oid, c.reloptions
        FROM part JOIN pg_index i ON i.indrelid = part.oid AND i.indpred IS NULL
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am ON pg_am.oid = c.relam AND pg_am.amname = 'btree'
    )
    SELECT kept.kind, kept.oid::regclass::text, given.setting, given.value
    FROM kept JOIN unnest(CAST(:kinds AS text[]), CAST(:settings AS text[]), CAST(:values AS text[]))
                   AS given (kind, setting, value) ON given.kind = kept.kind
    WHERE NOT EXISTS (SELECT FROM pg_options_to_table(kept.reloptions) o WHERE o.option_name = given.setting)
    ORDER BY kept.oid"""
)


def set_storage(connection: Connection, table: Table) -> None:
    """Sets what nobody has set, whatever the value; a table that has it all is not touched, nor locked.

    Otherwise it takes a lock that reads and writes do not notice, but another vacuum does. What is there already stays
    as it is packed: only new pages are as the settings say.
    """
    wanted = [
        (kind, setting, value)
        for kind, settings in (("TABLE", TABLE_SETTINGS), ("INDEX", INDEX_SETTINGS))
        for setting, value in settings.items()
    ]
    kinds, settings, values = (list(column) for column in zip(*wanted, strict=True))
    name = connection.dialect.identifier_preparer.format_table(table)
    missing: dict[tuple[str, str], list[str]] = {}
    for kind, part, setting, value in connection.execute(
        _UNSET, {"name": name, "kinds": kinds, "settings": settings, "values": values}
    ):
        missing.setdefault((kind, part), []).append(f"{setting} = {value}")
    for (kind, part), unset in missing.items():
        connection.exec_driver_sql(f"ALTER {kind} {part} SET ({', '.join(unset)})")
