"""THE writer: the one piece of SQL that changes statuses.

A caller says which rows (`chosen`, the FROM of the first step, with its lock) and under which rules; the writer locks
them in key order, looks each one's pair up in the transition table, updates the legal ones, appends their events to
the log and notifies once: one statement, in the caller's transaction.

    chosen ─▶ locked ─▶ judged ─▶ position ─▶ changed ─▶ appended
                          └── refusals: data for the caller

The position in the log is drawn after every lock is held. So of two transactions that touch the same item the later one
has the higher position, and the log in order of position is in order of versions. A row keeps the position of its last
event, and each event that of the one before: an item's history is a chain, which costs no index over arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import LiteralString, TypeAlias

from psycopg import sql

from shared.db.statement import after_comma, commas, item_names, literal
from shared.machine import CHANGED
from shared.table import CLEAR, GIVEN, KEEP, Rule
from shared.workflow import Workflow

CHANNEL = "curation"
"""Where the writer notifies; the payload is the resource."""
WATCH_CHANNEL = "curation_watch"
"""The same for what only watchers care about: claims and progress. Workers sleep on; else each would wake itself by its
own claim, before the answer has come."""

# An update that a trigger of the table leaves out, or alters, fails the whole statement: its batch would never be done.
# It fails by a text that is cast to a number.
_WRITE = sql.SQL(
    """/* {name} */
WITH {before}
rules (trigger, status, queue, exhausted, verdict, to_status, to_queue, attempts_factor, attempts_step,
       error, failure, result, turn, run_at, worker, batch) AS (VALUES
    {rules}),
judged AS MATERIALIZED (
    SELECT locked.*, {effects},
           CASE WHEN {locked.expected} <> locked.version THEN 'stale_version'
                ELSE coalesce(rules.verdict, 'illegal_transition') END AS verdict
    FROM (
        SELECT s.{key} AS key, s.{status} AS status, coalesce(s.{queue}, 'none') AS queue, s.{version} AS version,
               s.{attempts} AS attempts, s.{batch} AS batch, s.{event} AS event{carried}
        FROM {chosen}
    ) locked LEFT JOIN rules
      ON rules.trigger = {locked.trigger} AND rules.status = locked.status AND rules.queue = locked.queue
     AND coalesce(rules.exhausted = (locked.attempts >= {attempts_max}), true)
),
{between}
position AS MATERIALIZED (
    SELECT nextval('status_event_position') AS position, n
    FROM (SELECT count(*) AS n FROM judged WHERE verdict = 'changed') c WHERE n > 0 AND {gate}
),
changed AS (
    UPDATE {source} s
    SET {status} = {j.to_status},
        {queue} = nullif({j.to_queue}, 'none'),
        {version} = j.version + 1,
        {attempts} = {j.to_attempts},
        {error} = {new_error},
        {failure} = {new_failure},
        {result} = {new_result},
        {turn} = {new_turn},
        {run_at} = {new_run_at},
        {worker} = {new_worker},
        {batch} = {new_batch},
        {event} = (SELECT position FROM position)
    FROM judged j
    WHERE s.{key} = j.key AND j.verdict = 'changed' AND EXISTS (SELECT FROM position)
    RETURNING s.{version} AS new_version, s.{run_at} AS new_run_at, s.{error} AS new_error, s.{attempts} AS to_attempts,
              coalesce(s.{batch}, j.batch) AS event_batch,
              CASE WHEN s.{batch} <> j.batch AND j.queue IN ('queued', 'processing') THEN j.batch END AS left_batch,
              s.{version} > j.version AND s.{status} = {j.to_status}
                  AND coalesce(s.{queue}, 'none') = {j.to_queue} AS as_written,
              j.key, j.status, j.queue, j.event{kept}{returned}
),
appended AS (
    INSERT INTO status_event (position, part, resource, kind, from_status, to_status, from_queue, to_queue,
                              batch, left_batch, cause, worker, items, versions, attempts, errors, run_ats, earlier)
    SELECT p.position,
           CASE WHEN sum(cardinality(g.items)) OVER () = p.n THEN row_number() OVER ()
                ELSE format('a trigger of the source table has left out or altered %%s of %%s updates',
                            p.n - coalesce(sum(cardinality(g.items)) OVER (), 0), p.n)::bigint END,
           {resource}, g.*
    FROM position p LEFT JOIN (
        SELECT CASE WHEN {c.trigger} LIKE 'set %%' THEN 'curate' ELSE {c.trigger} END, c.status, {c.to_status},
               nullif(c.queue, 'none'), nullif({c.to_queue}, 'none'), c.event_batch, c.left_batch,
               {c.cause}, {c.worker}, array_agg(c.key::text) AS items, array_agg(c.new_version),
               array_agg(c.to_attempts),
               CASE WHEN bool_or(c.new_error IS NOT NULL) THEN array_agg(c.new_error) END,
               CASE WHEN {c.to_queue} = 'queued' THEN array_agg(c.new_run_at) END,
               CASE WHEN bool_or(c.event IS NOT NULL) THEN array_agg(c.event) END
        FROM changed c WHERE c.as_written
        GROUP BY c.status, c.queue, c.event_batch, c.left_batch{grouped}
    ) g ON true
){after}
{answer}"""
)


@dataclass(frozen=True, slots=True)
class Alike:
    """An expression that has one value for all rows: it stands where it is used, and no step hands it on."""

    expression: sql.Composable


Expression: TypeAlias = sql.Composable | Alike
"""What is written into a column: an expression over each row, or one value for all rows."""


def _alike(text: LiteralString) -> Callable[[], Expression]:
    return lambda: Alike(sql.SQL(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One use of the writer. Every part is composed once, at start, or per filter; values stay parameters."""

    name: str
    """The statement's name, for pg_stat_statements."""
    chosen: sql.Composable
    """Which rows: FROM's body over the source as `s`, ordered and locked, e.g. `FOR NO KEY UPDATE OF s`."""
    rules: Sequence[Rule]
    """What may happen to them; a pair without a rule is an illegal transition."""
    answer: sql.Composable
    """The last SELECT, over `judged`, `changed` and `position`."""
    trigger: Expression
    """What happens to the row; these expressions may name what `chosen` brings."""
    expected: Expression = field(default_factory=_alike("NULL::bigint"))
    """The version that the row must have, or NULL."""
    error: Expression = field(default_factory=_alike("NULL::text"))
    failure: Expression = field(default_factory=_alike("NULL::bigint"))
    """The group of failures that the error belongs to."""
    turn: sql.Composable = field(default_factory=partial(sql.SQL, "NULL::float8"))
    """The place in the queue of what is queued; may be a window over `locked`."""
    delay_s: Expression = field(default_factory=_alike("0.0::float8"))
    """Seconds until the next attempt, where there is one."""
    worker: Expression = field(default_factory=_alike("NULL::bigint"))
    """The session that claims, or that ended the attempt."""
    cause: Expression = field(default_factory=_alike("NULL::bigint"))
    """The batch that curates."""
    carried: Mapping[str, sql.Composable] = field(default_factory=dict)
    """More columns to take along from `chosen` to `changed`, by the name that they have there."""
    returned: sql.Composable = field(default_factory=partial(sql.SQL, ""))
    """More columns of the changed row `s`, or of what was judged of it, `j`, each with a comma in front."""
    gate: sql.Composable = field(default_factory=partial(sql.SQL, "true"))
    """Nothing changes unless this holds; it may ask `judged`."""
    before: sql.Composable = field(default_factory=partial(sql.SQL, ""))
    """CTEs that `chosen` needs, each followed by a comma."""
    between: sql.Composable = field(default_factory=partial(sql.SQL, ""))
    """CTEs that the gate needs, each followed by a comma."""
    after: sql.Composable = field(default_factory=partial(sql.SQL, ""))
    """CTEs that follow the append, each with a comma in front."""


def compose(workflow: Workflow, write: Write) -> bytes:
    """The statement, composed once and for all. Run it at READ COMMITTED, by itself or in a transaction."""
    names = item_names(workflow)
    given: dict[str, Expression] = {
        "trigger": write.trigger,
        "expected": write.expected,
        "error": write.error,
        "failure": write.failure,
        "delay_s": write.delay_s,
        "worker": write.worker,
        "cause": write.cause,
        **write.carried,
    }
    outcomes = _outcomes(write.rules)
    if any(rule.turn == GIVEN for rule in write.rules):
        outcomes["turn"] = write.turn
    own = {name: fact for name, fact in given.items() if not isinstance(fact, Alike)}
    judged = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, Alike)}
    spelled = {
        f"{row}.{name}": fact.expression if isinstance(fact, Alike) else sql.SQL(f"{row}.") + sql.Identifier(name)
        for row in ("locked", "j", "c")
        for name, fact in (given | outcomes).items()
    }
    told = [name for name in _TOLD if name in own | judged]
    effects, new = _effects(write.rules, names, spelled)
    statement = _WRITE.format(
        **names,
        **spelled,
        **new,
        name=sql.SQL(write.name),
        before=write.before,
        chosen=write.chosen,
        carried=after_comma(sql.SQL("{} AS {}").format(own[name], sql.Identifier(name)) for name in own),
        rules=sql.SQL(",\n    ").join(_values(rule) for rule in write.rules or (_NO_RULE,)),
        attempts_max=sql.Literal(workflow.limits.attempts_max),
        effects=commas([*effects, *(sql.SQL("{} AS {}").format(judged[n], sql.Identifier(n)) for n in judged)]),
        between=write.between,
        gate=write.gate,
        kept=after_comma(spelled[f"j.{name}"] for name in (*told, *write.carried)),
        returned=write.returned,
        grouped=after_comma(spelled[f"c.{name}"] for name in told),
        after=write.after,
        answer=write.answer,
    )
    return statement.as_bytes(None)


_TOLD = ("trigger", "to_status", "to_queue", "cause", "worker")
"""What an entry of the log says of all of its items, besides what they were before."""


NOTIFY, NOTIFY_WATCHERS = (
    sql.SQL("pg_notify({}, {})").format(sql.Literal(channel), sql.Placeholder("resource"))
    for channel in (CHANNEL, WATCH_CHANNEL)
)
"""For an answer, with `position` in its FROM where that may be empty: once per transaction that changed something."""

_GIVEN_VALUES = {
    "batch": "{j.cause}",
    "error": "{j.error}",
    "failure": "{j.failure}",
    "result": "",
    "turn": "j.turn",
    "run_at": "now() + make_interval(secs => {j.delay_s})",
    "worker": "{j.worker}",
}
"""The fields that a rule may keep, clear or give a value, with that value; a result is named by the rule itself."""


def _outcomes(rules: Sequence[Rule]) -> dict[str, Expression]:
    """What becomes of status, queue and attempts of a row."""
    changing = [rule for rule in rules if rule.verdict == CHANGED]
    statuses, queues = {rule.to_status for rule in changing}, {rule.to_queue_status for rule in changing}
    counts = {(rule.attempts_factor, rule.attempts_step) for rule in changing}
    outcomes: dict[str, Expression] = {
        "to_status": Alike(_text(*statuses)) if len(statuses) == 1 else sql.SQL("rules.to_status"),
        "to_queue": Alike(_text(*queues)) if len(queues) == 1 else sql.SQL("rules.to_queue"),
        "to_attempts": sql.SQL("locked.attempts * rules.attempts_factor + rules.attempts_step"),
    }
    if len(counts) == 1:
        ((factor, step),) = counts
        outcomes["to_attempts"] = Alike(sql.SQL("j.attempts * {} + {}").format(factor, step))
    return outcomes


def _effects(
    rules: Sequence[Rule], names: Mapping[str, sql.Composable], spelled: Mapping[str, sql.Composable]
) -> tuple[list[sql.Composable], dict[str, sql.Composable]]:
    """The columns that say what becomes of an item's fields, and the new values of these.

    What all rules say alike needs no column, and what they say of two fields alike needs one: each costs time per row.
    """
    said = {name: tuple(getattr(r, name) for r in rules if r.verdict == CHANGED) for name in _GIVEN_VALUES}
    columns, new = {said["batch"]: "batch"}, {}
    for name, given in _GIVEN_VALUES.items():
        value = {
            KEEP: sql.SQL("s.") + names[name],
            CLEAR: sql.SQL("NULL"),
            GIVEN: sql.SQL(given).format(**spelled),
        }
        effects = sorted(set(said[name]))
        outcomes = [value.get(effect, sql.Literal(effect)) for effect in effects]
        if len(effects) < 2:
            new[f"new_{name}"] = outcomes[0] if outcomes else value[KEEP]
            continue
        column = sql.Identifier(f"{columns.setdefault(said[name], name)}_effect")
        cases = (
            sql.SQL(" WHEN {} THEN {}").format(sql.Literal(effect), outcome)
            for effect, outcome in zip(effects[:-1], outcomes[:-1], strict=True)
        )
        new[f"new_{name}"] = sql.SQL("CASE j.{}{} ELSE {} END").format(column, sql.SQL("").join(cases), outcomes[-1])
    return [
        sql.SQL("rules.{} AS {}").format(sql.Identifier(name), sql.Identifier(f"{name}_effect"))
        for name in columns.values()
    ], new


_NO_RULE = Rule("", False, "", "", None, "", "", "", 1, 0, *[""] * 7)


def _values(rule: Rule) -> sql.Composed:
    values = (
        *(rule.trigger, rule.status, rule.queue_status, rule.exhausted, rule.verdict),
        *(rule.to_status, rule.to_queue_status, rule.attempts_factor, rule.attempts_step),
        *(rule.error, rule.failure, rule.result, rule.turn, rule.run_at, rule.worker, rule.batch),
    )
    typed = (
        sql.SQL("NULL::boolean") if v is None else sql.Literal(v) if not isinstance(v, str) else _text(v)
        for v in values
    )
    return sql.SQL("({})").format(commas(typed))


def _text(value: str) -> sql.Composed:
    return sql.SQL("{}::text").format(literal(value))
