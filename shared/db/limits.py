"""Limits that hold for all workers together: calls in a period, and calls at once, of an API or of a key of it.

Calls in a period are a schedule: one row says when the next call may begin, and a worker that reserves a portion moves
it on. So nothing is counted, an idle worker takes nothing, and what was reserved by one that died has lapsed within
the horizon. Calls at once are leases of slots: one row for each worker, which counts as long as its session lives.

Whoever takes a lease must have reserved before, in the same transaction: that locks the row of the schedule, so that
the leases of others are read when nobody changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from shared.db.engine import Connection
from shared.db.sessions import ALIVE
from shared.workflow import Rate

WHOLE = ""
"""The key that stands for an API as a whole."""
SPARE = 0.01
"""This part of a rate is left unused, so that calls may begin late by that part of a period and never be too many."""
LATE_S = 0.1
"""A call may begin so late in any case, or busy workers would lose their turns; in short periods this is the longer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a worker wants of one key."""

    key: str
    calls: int
    """How many, at most."""
    interval_s: float
    """Between the beginnings of two; 0 where there is no rate."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What it got."""

    key: str
    calls: int
    """How many calls are granted, perhaps none."""
    first_s: float
    """In how many seconds the first may begin; the others follow, an interval apart."""
    next_s: float
    """In how many seconds the first call that is still free may begin."""
    waited_s: float
    """How long the statement had taken when the clock was read: it may have waited for others."""


def interval_s(rate: Rate | None) -> float:
    """The time between the beginnings of two calls; 0 where there is no rate."""
    return 0.0 if rate is None else rate.per_s / rate.calls * (1 + SPARE)


def late_s(rate: Rate | None) -> float:
    """How late a call may begin: later it would begin together with others, and there would be too many."""
    return inf if rate is None else max(LATE_S, SPARE * rate.per_s)


async def reserve(connection: Connection, api: str, asks: Sequence[Ask], *, horizon_s: float) -> Mapping[str, Grant]:
    """Reserves calls that begin within the horizon, for each key as many as are asked for and free.

    The rows are locked until the transaction ends, in order of key.
    """
    grants = await _granted(connection, api, asks, horizon_s=horizon_s)
    if new := [ask for ask in asks if ask.key not in grants]:
        await connection.execute(_FIRST, {"api": api, "keys": [ask.key for ask in new]})
        return {**grants, **await _granted(connection, api, new, horizon_s=horizon_s)}
    return grants


async def _granted(connection: Connection, api: str, asks: Sequence[Ask], *, horizon_s: float) -> dict[str, Grant]:
    parameters = {
        "api": api,
        "horizon": horizon_s,
        "keys": [ask.key for ask in asks],
        "calls": [ask.calls for ask in asks],
        "intervals": [ask.interval_s for ask in asks],
    }
    return {row[0]: Grant(*row) for row in await (await connection.execute(_RESERVE, parameters)).fetchall()}


# The time is taken once the row is locked.
_RESERVE = """/* reserve */
WITH asked AS (
    SELECT * FROM unnest(%(keys)s::text[], %(calls)s::int[], %(intervals)s::float8[]) AS a (key, calls, interval_s)
),
locked AS MATERIALIZED (
    SELECT s.key, s.next_at, a.calls, a.interval_s
    FROM asked a JOIN call_schedule s ON s.api = %(api)s AND s.key = a.key
    ORDER BY s.key FOR UPDATE OF s
),
clocked AS MATERIALIZED (SELECT l.*, clock_timestamp() AS now FROM locked l),
timed AS (
    SELECT c.*, extract(epoch FROM c.next_at - c.now)::float8 AS ahead_s,
           extract(epoch FROM c.now - statement_timestamp())::float8 AS waited_s
    FROM clocked c
),
granted AS MATERIALIZED (
    SELECT t.key, t.next_at, t.interval_s, t.ahead_s, t.waited_s, greatest(t.ahead_s, 0) AS first_s,
           CASE WHEN t.ahead_s > %(horizon)s THEN 0
                WHEN t.interval_s = 0 THEN t.calls
                ELSE least(t.calls, 1 + floor((%(horizon)s - greatest(t.ahead_s, 0)) / t.interval_s)) END::int AS calls
    FROM timed t
),
moved AS (
    UPDATE call_schedule s
    SET next_at = g.next_at + make_interval(secs => g.first_s - g.ahead_s + g.calls * g.interval_s)
    FROM granted g
    WHERE s.api = %(api)s AND s.key = g.key AND g.calls > 0 AND g.interval_s > 0
)
SELECT key, calls, first_s, first_s + calls * interval_s, waited_s FROM granted"""

_FIRST = """/* first_call */
INSERT INTO call_schedule (api, key, next_at)
SELECT %(api)s, key, clock_timestamp() FROM unnest(%(keys)s::text[]) AS a (key) ORDER BY key
ON CONFLICT DO NOTHING"""


async def give_back(connection: Connection, api: str, key: str, seconds: float) -> None:
    """Gives back the end of what was reserved in this transaction."""
    await connection.execute(
        """/* give_back */
        UPDATE call_schedule SET next_at = next_at - make_interval(secs => %s) WHERE api = %s AND key = %s""",
        (seconds, api, key),
    )


async def postpone(connection: Connection, api: str, key: str, seconds: float) -> None:
    """Lets no call of a key begin for so long, whoever wants to."""
    await connection.execute(
        """/* postpone */
        INSERT INTO call_schedule AS s (api, key, next_at)
        VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s))
        ON CONFLICT (api, key) DO UPDATE SET next_at = greatest(s.next_at, excluded.next_at)""",
        (api, key, seconds),
    )


async def lease(
    connection: Connection, api: str, session: int, wanted: Mapping[str, tuple[int, int]], *, slots_max: int
) -> Mapping[str, int]:
    """Sets how many slots a worker holds of each key, as far as others leave them free.

    Args:
        connection: in a transaction that has reserved these keys.
        api: the API.
        session: the worker's; of other workers those count whose session lives.
        wanted: by key how many it wants, and how many it uses, which it keeps in any case; all its workflows together,
            for it holds no more than was wanted last.
        slots_max: slots of a key that there are.
    """
    parameters = {
        "api": api,
        "session": session,
        "max": slots_max,
        "keys": list(wanted),
        "wanted": [w for w, _ in wanted.values()],
        "used": [u for _, u in wanted.values()],
    }
    return dict(await (await connection.execute(_LEASE, parameters)).fetchall())


_LEASE = f"""/* lease */
WITH asked AS (
    SELECT * FROM unnest(%(keys)s::text[], %(wanted)s::int[], %(used)s::int[]) AS a (key, wanted, used)
),
taken AS (
    SELECT l.key, sum(l.slots) AS slots
    FROM asked a
    JOIN call_lease l ON l.api = %(api)s AND l.key = a.key AND l.session <> %(session)s
    JOIN worker_session w ON w.id = l.session
    WHERE {ALIVE}
    GROUP BY l.key
)
INSERT INTO call_lease AS l (api, key, session, slots)
SELECT %(api)s, a.key, %(session)s, greatest(a.used, least(a.wanted, %(max)s - coalesce(t.slots, 0)))
FROM asked a LEFT JOIN taken t ON t.key = a.key
ON CONFLICT (api, key, session) DO UPDATE SET slots = excluded.slots
RETURNING l.key, l.slots"""  # noqa: S608 - our own words


async def keep(connection: Connection, api: str, session: int, used: Mapping[str, int]) -> None:
    """Gives back all slots of these keys but those that the worker uses."""
    await connection.execute(
        """/* keep */
        UPDATE call_lease l SET slots = u.slots
        FROM unnest(%s::text[], %s::int[]) AS u (key, slots)
        WHERE l.api = %s AND l.session = %s AND l.key = u.key""",
        (list(used), list(used.values()), api, session),
    )


async def sweep(connection: Connection) -> None:
    """Removes what no longer says anything: leases of nothing or of the dead, schedules whose next call is long due.

    Waits for nobody: claims have both kinds locked in the other order.
    """
    await connection.execute(
        """/* sweep leases */
        DELETE FROM call_lease l
        USING (SELECT api, key, session FROM call_lease
               WHERE slots = 0 OR session NOT IN (SELECT id FROM worker_session WHERE ended_at IS NULL)
               FOR UPDATE SKIP LOCKED) o
        WHERE l.api = o.api AND l.key = o.key AND l.session = o.session"""
    )
    await connection.execute(
        """/* sweep schedules */
        DELETE FROM call_schedule s
        USING (SELECT api, key FROM call_schedule WHERE next_at < clock_timestamp() - interval '1 minute'
               FOR UPDATE SKIP LOCKED) o
        WHERE s.api = o.api AND s.key = o.key"""
    )
