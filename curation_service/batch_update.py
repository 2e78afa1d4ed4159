"""The use case of this project: set a status on many items, or retry them, once.

One statement does it, the batch's row included, and is a transaction of its own: it takes one round trip, and an error
anywhere leaves nothing, so that a call that was refused may be made again under its request_id. A repeated request_id
changes nothing, and gets the answer of the first call; so does one that comes while the first is under way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import (
    IntegrityError,
    InvalidTextRepresentation,
    StringDataRightTruncation,
    WithCheckOptionViolation,
)

from curation_service.batch_request import BatchUpdate, Keys, Matching
from curation_service.filters import to_driver_sql
from curation_service.update_groups import UpdateGroups
from shared.db.batches import Batch, find_batch, get_batch, list_outcomes
from shared.db.curate import CurateCall, Curated, NewBatch, curate
from shared.db.curate_each import concerns_one
from shared.db.engine import Connection, Database
from shared.db.errors import breaks_policy, met_in_trigger
from shared.db.failure_groups import check_group
from shared.db.log import log_identity
from shared.db.models import machinery
from shared.db.token import encode_token
from shared.errors import FieldViolation, InvalidRequest, ItemsRefused, Outcome, TableRefused
from shared.machine import UNCHANGED
from shared.table import TransitionTable

RULES = (IntegrityError, InvalidTextRepresentation, StringDataRightTruncation, WithCheckOptionViolation)
"""Errors of a constraint, of a trigger that leaves an update out, of a column's type, of a view."""
PLANNED_ONCE_MAX = 100
"""For up to so many keys planning takes longer than changing them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchAnswer:
    """What a batch did, or with `validate_only` would do."""

    batch: Batch | None
    """None with `validate_only`."""
    requested: int
    changed: int
    queued: int
    counts: Mapping[str, int]
    """Items left unchanged, by reason."""
    outcomes: Sequence[Outcome]
    """The first of them."""
    resume_token: str = ""
    """A position just behind the changes; empty when there are none."""
    replayed: bool = False
    """Whether an earlier call with the same request_id did it."""


class BatchUpdates:
    """Carries out batch updates."""

    def __init__(
        self,
        *,
        database: Database,
        tables: Mapping[str, TransitionTable],
        groups: Mapping[str, UpdateGroups],
        items_max: int,
        outcomes_max: int,
    ) -> None:
        """`tables` are the transition tables by resource; `groups` is where calls for one item meet."""
        self._database = database
        self._tables = tables
        self._groups = groups
        self._items_max = items_max
        self._outcomes_max = outcomes_max

    async def carry_out(self, command: BatchUpdate) -> BatchAnswer:
        """Does what was asked for, unless it was done before.

        Raises:
            InvalidRequest: the filter matches too many items.
            ItemsRefused: an item cannot change, and the call does not allow that.
            TableRefused: a constraint, a trigger or a policy of the table does not allow it.
            RequestIdReused: another request came under this request_id.
            UnknownBatch, UnknownFailureGroup: the items are chosen by one that is not there.
            DatabaseUnavailable: it may have been carried out; the same request_id tells.
        """
        call = self._call(command)
        if concerns_one(call):
            curated = await self._groups[command.workflow.resource].carry_out(call)
            if curated is not None:
                return _answer(curated, command)
        few = isinstance(command.selection, Keys) and len(command.selection.keys) <= PLANNED_ONCE_MAX
        async with self._database.autocommit(planned_once=few) as connection:
            await _check_exists(connection, command)
            try:
                return await self._carry_out(connection, command, call)
            except psycopg.Error as error:
                if not _is_of_the_table(error):
                    raise
                if error.diag.table_name not in machinery.tables:
                    raise TableRefused(command.workflow.resource, error.diag.message_primary or "") from error
                # Another call under this id was committed while this one waited for its rows.
                if (earlier := await _earlier(connection, command)) is None:
                    raise
                return await self._replay(connection, earlier)

    async def _carry_out(self, connection: Connection, command: BatchUpdate, call: CurateCall) -> BatchAnswer:
        curated = await curate(connection, command.workflow, self._tables[command.workflow.resource], call)
        refused = curated.refused and not command.allow_partial
        # What stands in the way may be what the first call under this id has done.
        if (refused or curated.batch is None) and (earlier := await _earlier(connection, command)) is not None:
            return await self._replay(connection, earlier)
        if curated.requested > self._items_max:
            assert isinstance(command.selection, Matching), "the keys were counted before"
            problem = f"matches more than {self._items_max} items; narrow it down"
            raise InvalidRequest(FieldViolation(command.selection.field, problem))
        if refused:
            # An item that already is what was asked for did not stand in the way.
            counts = {reason: n for reason, n in curated.counts.items() if reason != UNCHANGED}
            outcomes = [outcome for outcome in curated.outcomes if outcome.reason != UNCHANGED]
            raise ItemsRefused(status=command.status, counts=counts, outcomes=outcomes)
        return _answer(curated, command)

    def _call(self, command: BatchUpdate) -> CurateCall:
        batch = NewBatch(
            status=command.status,
            actor=command.actor,
            reason=command.reason,
            request_id=command.request_id,
            digest=command.digest,
        )
        return CurateCall(
            trigger=command.trigger,
            batch=None if command.validate_only else batch,
            weight=command.weight,
            allow_partial=command.allow_partial,
            cancel_in_flight=command.cancel_in_flight,
            items_max=self._items_max,
            outcomes_max=self._outcomes_max,
            **_selected(command),
        )

    async def _replay(self, connection: Connection, batch: Batch) -> BatchAnswer:
        outcomes = await list_outcomes(connection, batch.id, after=0, limit=self._outcomes_max)
        return BatchAnswer(
            batch=batch,
            requested=batch.requested,
            changed=batch.changed,
            queued=batch.queued,
            counts=batch.outcome_counts,
            outcomes=[outcome for _, outcome in outcomes],
            resume_token=await _resume_token(connection, batch),
            replayed=True,
        )


async def _check_exists(connection: Connection, command: BatchUpdate) -> None:
    resource = command.workflow.resource
    if command.batch is not None:
        await get_batch(connection, command.batch, resource=resource)
    if command.failure_group is not None:
        await check_group(connection, resource, command.failure_group)


def _is_of_the_table(error: psycopg.Error) -> bool:
    """Whether a rule of the table's own does not allow it; the error of a trigger may be of any kind."""
    if isinstance(error, psycopg.OperationalError):
        return False
    return isinstance(error, RULES) or breaks_policy(error) or met_in_trigger(error)


async def _earlier(connection: Connection, command: BatchUpdate) -> Batch | None:
    """The batch of an earlier call under this request_id, if there was one. Raises `RequestIdReused`."""
    if command.request_id is None:
        return None
    return await find_batch(connection, command.request_id, command.digest)


def _selected(command: BatchUpdate) -> dict[str, Any]:
    if isinstance(command.selection, Keys):
        return {"keys": command.selection.keys, "versions": command.selection.versions}
    where, parameters = to_driver_sql(command.selection.condition)
    # In brackets: what follows it in the statement must not bind into it.
    return {"where": sql.SQL("({})").format(where), "parameters": parameters}


def _answer(curated: Curated, command: BatchUpdate) -> BatchAnswer:
    batch = None
    if curated.batch is not None and curated.made_at is not None:
        batch = Batch(
            id=curated.batch,
            resource=command.workflow.resource,
            status=command.status,
            actor=command.actor,
            reason=command.reason,
            created_at=curated.made_at,
            weight=command.weight,
            requested=curated.requested,
            changed=curated.changed,
            queued=curated.queued,
            outcome_counts=curated.counts,
            position=curated.position,
        )
    return BatchAnswer(
        batch=batch,
        requested=curated.requested,
        changed=curated.changed,
        queued=curated.queued,
        counts=curated.counts,
        outcomes=curated.outcomes,
        resume_token="" if curated.position is None else encode_token(curated.log, curated.position),
    )


async def _resume_token(connection: Connection, batch: Batch) -> str:
    if batch.position is None:
        return ""
    return encode_token((await log_identity(connection)).id, batch.position)
