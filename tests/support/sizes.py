"""How large the tables of a database are, how much of that is rows, and which of them grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.db.engine import Connection

_TABLES = """
SELECT coalesce(parent.relname, c.relname) AS name, sum(pg_table_size(c.oid))::bigint,
       sum(pg_indexes_size(c.oid))::bigint, sum((t.x).tuple_count)::bigint, sum((t.x).tuple_len)::bigint
FROM pg_class c
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class parent ON parent.oid = i.inhparent
CROSS JOIN LATERAL (SELECT pgstattuple(c.oid::regclass) AS x) t
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class Size:
    """Of one table, all its partitions together, in bytes."""

    table: int
    indexes: int
    rows: int
    """How many there are that somebody may see."""
    row_bytes: int

    @property
    def bloat(self) -> float:
        """How many times the size of its rows it takes, its indexes left out."""
        return self.table / max(1, self.row_bytes)


async def measure(connection: Connection) -> Mapping[str, Size]:
    """The size of each table."""
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pgstattuple")
    cursor = await connection.execute(_TABLES)
    return {name: Size(*numbers) for name, *numbers in await cursor.fetchall()}


@dataclass(slots=True)
class Sizes:
    """Samples of a run."""

    samples: list[tuple[float, Mapping[str, Size]]] = field(default_factory=list)
    """Seconds since its begin, and the sizes then."""

    async def sample(self, connection: Connection, at_s: float) -> None:
        """Looks."""
        self.samples.append((at_s, await measure(connection)))

    def growth(self, name: str) -> float:
        """How many times as large as in the middle of the run, table and indexes, it is at the end."""
        _, middle = self.samples[len(self.samples) // 2]
        _, last = self.samples[-1]
        return (last[name].table + last[name].indexes) / max(1, middle[name].table + middle[name].indexes)

    def table(self) -> str:
        """To print: at the begin, in the middle and at the end."""
        chosen = [self.samples[0], self.samples[len(self.samples) // 2], self.samples[-1]]
        head = " | ".join(f"after {at_s / 60:.0f} min" for at_s, _ in chosen)
        lines = [f"| table, kB with indexes | {head} | rows | bloat |", f"| --- {'| ---: ' * (len(chosen) + 2)}|"]
        for name, last in sorted(chosen[-1][1].items()):
            sizes = " | ".join(f"{_kilobytes(sizes.get(name)):,}" for _, sizes in chosen)
            lines.append(f"| {name} | {sizes} | {last.rows:,} | {last.bloat:.1f} |")
        return "\n".join(lines)


def _kilobytes(size: Size | None) -> int:
    return 0 if size is None else (size.table + size.indexes) // 1024
