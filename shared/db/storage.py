"""How PostgreSQL keeps a source table, whose rows change three times on their way through the queue.

Each of these changes leaves a dead version of the row, and a dead entry in every index. Where vacuums come late, pages
of indexes fill with them and are split in two, and nothing ever joins them again. What was measured is in
`docs/performance.md`.
"""

from __future__ import annotations

from sqlalchemy import Connection, Table, text

SETTINGS = {
    # Room on each page for the next version of its rows: the table does not grow, and a vacuum finds few pages to read.
    "fillfactor": "70",
    # A vacuum when a twentieth of the rows is dead, not a fifth.
    "autovacuum_vacuum_scale_factor": "0.05",
    # And without the pauses by which a vacuum of a table that is busy takes longer than it has.
    "autovacuum_vacuum_cost_delay": "0",
}
"""Storage parameters of PostgreSQL."""

# Of a partitioned table its partitions; of tables that are another's to change, none.
_UNSET = text(
    """SELECT part.oid::regclass::text AS name, given.setting, given.value
    FROM (SELECT relid FROM pg_partition_tree(to_regclass(:name)) WHERE isleaf
          UNION SELECT to_regclass(:name)) tree
    JOIN pg_class part ON part.oid = tree.relid AND part.relkind = 'r' AND pg_has_role(part.relowner, 'USAGE')
    CROSS JOIN unnest(CAST(:settings AS text[]), CAST(:values AS text[])) AS given (setting, value)
    WHERE NOT EXISTS (SELECT FROM pg_options_to_table(part.reloptions) o WHERE o.option_name = given.setting)
    ORDER BY part.oid"""
)


def set_storage(connection: Connection, table: Table) -> None:
    """Sets what nobody has set, whatever the value; a table that has it all is not touched, nor locked.

    Otherwise it takes a lock that reads and writes do not notice, but another vacuum does.
    """
    name = connection.dialect.identifier_preparer.format_table(table)
    given = {"name": name, "settings": list(SETTINGS), "values": list(SETTINGS.values())}
    missing: dict[str, list[str]] = {}
    for part, setting, value in connection.execute(_UNSET, given):
        missing.setdefault(part, []).append(f"{setting} = {value}")
    for part, settings in missing.items():
        connection.exec_driver_sql(f"ALTER TABLE {part} SET ({', '.join(settings)})")
