"""Runs the machine on every reachable pair and writes down what it did: the transition table.

The table is what the set-based SQL takes, so the SQL cannot disagree with the machine. Each field is probed with
marked values: what comes out tells whether the machine kept it, cleared it or took what the trigger brought.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

from shared.machine import (
    ILLEGAL_TRANSITION,
    NONE,
    REQUEUE,
    WORKER_TRIGGERS,
    Facts,
    ItemState,
    Lifecycle,
    curate_trigger,
)
from shared.workflow import Workflow

KEEP, CLEAR, GIVEN = "keep", "clear", "given"
"""What becomes of a field: it stays, becomes NULL, or takes the value that the trigger brought."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What one trigger does to items of one pair."""

    trigger: str
    cancel_in_flight: bool
    status: str
    queue_status: str
    exhausted: bool | None
    """Whether the attempts are used up; None when it makes no difference."""
    verdict: str
    """`changed`, `unchanged` or `in_flight`; an illegal transition has no rule."""
    to_status: str
    to_queue_status: str
    attempts_factor: int
    """New attempts = old attempts * factor + `attempts_step`."""
    attempts_step: int
    error: str
    failure: str
    result: str
    """`keep`, `clear`, or the result itself."""
    turn: str
    run_at: str
    worker: str
    batch: str


@dataclass(frozen=True, slots=True, eq=False)
class TransitionTable:
    """Every rule of a workflow. Anything without a rule is an illegal transition."""

    rules: tuple[Rule, ...]

    def of(self, *triggers: str) -> tuple[Rule, ...]:
        """The rules of these triggers."""
        return tuple(rule for rule in self.rules if rule.trigger in triggers)

    def of_user(self, trigger: str, *, cancel_in_flight: bool = False) -> tuple[Rule, ...]:
        """The rules of what a user does, with or without taking items away from workers."""
        return tuple(rule for rule in self.of(trigger) if rule.cancel_in_flight == cancel_in_flight)


_PROBED = ("error", "failure", "result", "turn", "run_at", "worker", "batch")
"""Fields of an item of which the table says keep, clear or given."""
_PROBE_ATTEMPTS_MAX = 1000
"""The machine only ever compares attempts with their limit, so any limit shows its rules."""


# Cached: running the machine takes a tenth of a second, and composed statements are cached by their table.
@lru_cache
def transition_table(workflow: Workflow) -> TransitionTable:
    """Runs the workflow's machine on every pair reachable from a new item, with attempts left and without."""
    lifecycle = Lifecycle(workflow.curation, attempts_max=_PROBE_ATTEMPTS_MAX)
    triggers = [
        *product(map(curate_trigger, workflow.curation.statuses), (False, True)),
        *product((REQUEUE, *WORKER_TRIGGERS), (False,)),
    ]
    seen, waiting = set[tuple[str, str]](), [(workflow.curation.initial, NONE)]
    rules: list[Rule] = []
    while waiting:
        pair = waiting.pop()
        if pair in seen:
            continue
        seen.add(pair)
        found = [rule for trigger, cancel in triggers for rule in _rules(lifecycle, trigger, pair, cancel)]
        waiting += [(rule.to_status, rule.to_queue_status) for rule in found]
        rules += found
    return TransitionTable(tuple(rules))


def _rules(lifecycle: Lifecycle, trigger: str, pair: tuple[str, str], cancel: bool) -> Iterator[Rule]:
    fresh = _probe(lifecycle, trigger, pair, cancel, attempts=(10, 20))
    exhausted = _probe(lifecycle, trigger, pair, cancel, attempts=(_PROBE_ATTEMPTS_MAX, _PROBE_ATTEMPTS_MAX + 10))
    if fresh == exhausted:
        yield from filter(None, [fresh])
    else:
        yield from (replace(r, exhausted=used) for r, used in ((fresh, False), (exhausted, True)) if r)


class _Mark(str):
    """A value that is recognised by identity."""

    __slots__ = ()


_BEFORE, _GIVEN = _Mark("before"), _Mark("given")


def _probe(
    lifecycle: Lifecycle, trigger: str, pair: tuple[str, str], cancel: bool, *, attempts: tuple[int, int]
) -> Rule | None:
    given = dict.fromkeys(("later", "error", "failure", "turn", "worker", "batch"), _GIVEN)
    before: dict[str, Any] = dict.fromkeys(_PROBED, _BEFORE)
    facts = Facts(**given, cancel_in_flight=cancel)
    items = [ItemState(*pair, attempts=n, **before) for n in attempts]
    verdict, _ = (lifecycle.apply(item, trigger, facts) for item in items)
    if verdict == ILLEGAL_TRANSITION:
        return None
    item, other = items
    factor = (other.attempts - item.attempts) // (attempts[1] - attempts[0])
    return Rule(
        trigger=trigger,
        cancel_in_flight=cancel,
        status=pair[0],
        queue_status=pair[1],
        exhausted=None,
        verdict=verdict,
        to_status=item.status,
        to_queue_status=item.queue_status,
        attempts_factor=factor,
        attempts_step=item.attempts - factor * attempts[0],
        **{name: _effect(getattr(item, name)) for name in _PROBED},
    )


def _effect(value: object) -> str:
    if value is None:
        return CLEAR
    names = {id(_BEFORE): KEEP, id(_GIVEN): GIVEN}
    return names.get(id(value)) or str(value)
