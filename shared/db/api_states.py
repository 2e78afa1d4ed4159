"""What all workers together know of an external API: that it asked everybody to wait, or that it is down.

A hold or a breaker that opens is committed once and bars every claim from then on. The database's clock decides, and
one row for each API keeps all of it: failures in a row, and whose turn it is to probe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from shared.db.engine import Connection

HOLD_NEWS_S = 1.0
"""A hold that grows by less is not announced: of many calls under way, each is asked to wait within a moment."""


@dataclass(frozen=True, slots=True)
class ApiState:
    """One external API, in seconds from now."""

    api: str
    held_s: float | None
    """Nobody is to call it for so long; negative when that is over."""
    is_broken: bool
    probe_s: float | None
    """While it is broken: in how long it may be tried."""
    failures: int
    """Attempts in a row that found it down."""


async def read_apis(connection: Connection, apis: Iterable[str]) -> Sequence[ApiState]:
    """The states of these APIs; one of which nothing is known is left out."""
    async with connection.cursor(row_factory=class_row(ApiState)) as cursor:
        await cursor.execute(
            """/* read_apis */
            SELECT api, extract(epoch FROM held_until - clock_timestamp())::float8 AS held_s,
                   broken_since IS NOT NULL AS is_broken,
                   extract(epoch FROM probe_at - clock_timestamp())::float8 AS probe_s, failures
            FROM api_state WHERE api = ANY(%s)""",
            (list(apis),),
        )
        return await cursor.fetchall()


async def hold(connection: Connection, api: str, seconds: float) -> bool:
    """Nobody calls the API for so long; a hold never gets shorter. Returns whether that is worth telling."""
    cursor = await connection.execute(
        """/* hold */
        WITH before AS (SELECT held_until FROM api_state WHERE api = %(api)s)
        INSERT INTO api_state AS a (api, held_until) VALUES (%(api)s, clock_timestamp() + make_interval(secs => %(s)s))
        ON CONFLICT (api) DO UPDATE SET held_until = greatest(a.held_until, excluded.held_until)
        RETURNING NOT EXISTS (SELECT FROM before b WHERE b.held_until > clock_timestamp()
                              AND b.held_until + make_interval(secs => %(news)s) > a.held_until)""",
        {"api": api, "s": seconds, "news": HOLD_NEWS_S},
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def add_failures(
    connection: Connection, api: str, count: int, *, error: str, failures_max: int, probe_s: float
) -> bool:
    """So many more attempts in a row found the API down. Returns whether that opened its breaker.

    Args:
        connection: in a transaction.
        api: the API.
        count: attempts since the last call.
        error: what the last one met.
        failures_max: as many in a row, of all workers, open the breaker.
        probe_s: when it is open, the first probe comes after so long.
    """
    cursor = await connection.execute(
        """/* add_failures */
        INSERT INTO api_state AS a (api, failures, error, broken_since, probe_at)
        SELECT %(api)s, %(count)s, %(error)s, CASE WHEN opens THEN clock_timestamp() END,
               CASE WHEN opens THEN clock_timestamp() + make_interval(secs => %(probe_s)s) END
        FROM (SELECT %(count)s >= %(max)s AS opens) o
        ON CONFLICT (api) DO UPDATE
        SET failures = a.failures + %(count)s, error = excluded.error,
            broken_since = CASE WHEN a.broken_since IS NULL AND a.failures + %(count)s >= %(max)s
                                THEN clock_timestamp() ELSE a.broken_since END,
            probe_at = CASE WHEN a.broken_since IS NULL AND a.failures + %(count)s >= %(max)s
                            THEN clock_timestamp() + make_interval(secs => %(probe_s)s) ELSE a.probe_at END
        RETURNING a.failures >= %(max)s AND a.failures - %(count)s < %(max)s""",
        {"api": api, "count": count, "error": error, "max": failures_max, "probe_s": probe_s},
    )
    row = await cursor.fetchone()
    assert row is not None, "an upsert has a row"
    return bool(row[0])


async def clear_failures(connection: Connection, api: str) -> bool:
    """The API has answered. Returns whether that closed its breaker."""
    cursor = await connection.execute(
        """/* clear_failures */
        UPDATE api_state a
        SET failures = 0, broken_since = NULL, probe_at = NULL, probes = 0, error = ''
        FROM (SELECT api, broken_since FROM api_state WHERE api = %s FOR UPDATE) before
        WHERE a.api = before.api AND (a.failures > 0 OR before.broken_since IS NOT NULL)
        RETURNING before.broken_since IS NOT NULL""",
        (api,),
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def may_probe(connection: Connection, api: str) -> bool:
    """Whether the caller may try an API that is down; then no one else may before the transaction ends."""
    cursor = await connection.execute(
        """/* may_probe */
        SELECT FROM api_state
        WHERE api = %s AND broken_since IS NOT NULL AND probe_at <= clock_timestamp()
          AND (held_until IS NULL OR held_until <= clock_timestamp())
        FOR UPDATE SKIP LOCKED""",
        (api,),
    )
    return await cursor.fetchone() is not None


async def begin_probe(connection: Connection, api: str, *, lease_s: float) -> None:
    """The caller probes, and nobody else for so long: a prober that dies must not be the last."""
    await connection.execute(
        """/* begin_probe */
        UPDATE api_state SET probes = probes + 1, probe_at = clock_timestamp() + make_interval(secs => %s)
        WHERE api = %s""",
        (lease_s, api),
    )


async def end_probe(connection: Connection, api: str, *, first_s: float, longest_s: float) -> bool:
    """The API is still down: the next probe comes later, after each one twice as late. Returns whether it is down."""
    cursor = await connection.execute(
        """/* end_probe */
        UPDATE api_state
        SET probe_at = clock_timestamp()
                       + make_interval(secs => least(%(longest)s, %(first)s * power(2, least(probes, 30))))
        WHERE api = %(api)s AND broken_since IS NOT NULL""",
        {"api": api, "first": first_s, "longest": longest_s},
    )
    return cursor.rowcount == 1


async def abandon_probe(connection: Connection, api: str) -> None:
    """The probe was not carried out: somebody else may at once."""
    await connection.execute(
        """/* abandon_probe */
        UPDATE api_state SET probe_at = clock_timestamp(), probes = greatest(probes - 1, 0)
        WHERE api = %s AND broken_since IS NOT NULL""",
        (api,),
    )
