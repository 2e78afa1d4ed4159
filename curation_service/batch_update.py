"""The use case of this project: set a status on many items, or retry them, in one transaction, once.

The batch's row comes first: a second call with the same request_id waits there until the first has committed, and then
gets its answer. Then the items, then what became of them. An error anywhere leaves nothing, the batch's row included,
so that a call that was refused may be made again under its request_id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from curation_service.batch_request import BatchUpdate, Keys, Matching
from curation_service.filters import to_driver_sql
from shared.db.batches import Batch, close_batch, get_batch, list_outcomes, open_batch
from shared.db.curate import CurateCall, Curated, curate
from shared.db.engine import Connection, Database
from shared.db.failure_groups import check_group
from shared.db.log import log_identity
from shared.db.token import encode_token
from shared.errors import FieldViolation, InvalidRequest, ItemsRefused, Outcome, UnknownBatch
from shared.machine import UNCHANGED
from shared.table import TransitionTable


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
        self, *, database: Database, tables: Mapping[str, TransitionTable], items_max: int, outcomes_max: int
    ) -> None:
        """`tables` are the transition tables by resource."""
        self._database = database
        self._tables = tables
        self._items_max = items_max
        self._outcomes_max = outcomes_max

    async def carry_out(self, command: BatchUpdate) -> BatchAnswer:
        """Does what was asked for, unless it was done before.

        Raises:
            InvalidRequest: the filter matches too many items.
            ItemsRefused: an item cannot change, and the call does not allow that.
            RequestIdReused: another request came under this request_id.
            UnknownBatch, UnknownFailureGroup: the items are chosen by one that is not there.
        """
        async with self._database.transaction() as connection:
            await _check_there(connection, command)
            if command.validate_only:
                # A request_id names what was done; nothing is, so that the real call may follow under the same.
                return _answer(await self._curate(connection, command, batch=None))
            opened = await open_batch(
                connection,
                resource=command.workflow.resource,
                status=command.status,
                actor=command.actor,
                reason=command.reason,
                request_id=command.request_id,
                digest=command.digest,
                weight=command.weight,
            )
            if isinstance(opened, Batch):
                return await self._replay(connection, opened)
            curated = await self._curate(connection, command, batch=opened)
            batch = await close_batch(connection, opened, curated)
            return _answer(curated, batch=batch, resume_token=await _resume_token(connection, batch))

    async def _curate(self, connection: Connection, command: BatchUpdate, *, batch: int | None) -> Curated:
        call = CurateCall(
            trigger=command.trigger,
            batch=batch,
            weight=command.weight,
            allow_partial=command.allow_partial,
            validate_only=command.validate_only,
            cancel_in_flight=command.cancel_in_flight,
            items_max=self._items_max,
            outcomes_max=self._outcomes_max,
            **_selected(command),
        )
        curated = await curate(connection, command.workflow, self._tables[command.workflow.resource], call)
        if curated.requested > self._items_max:
            assert isinstance(command.selection, Matching), "the keys were counted before"
            problem = f"matches more than {self._items_max} items; narrow it down"
            raise InvalidRequest(FieldViolation(command.selection.field, problem))
        if curated.refused and not command.allow_partial:
            raise ItemsRefused(status=command.status, **_refusals(curated))
        return curated

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


async def _check_there(connection: Connection, command: BatchUpdate) -> None:
    resource = command.workflow.resource
    if command.batch is not None and (await get_batch(connection, command.batch)).resource != resource:
        raise UnknownBatch(str(command.batch))
    if command.failure_group is not None:
        await check_group(connection, resource, command.failure_group)


def _selected(command: BatchUpdate) -> dict[str, Any]:
    if isinstance(command.selection, Keys):
        return {"keys": command.selection.keys, "versions": command.selection.versions}
    where, parameters = to_driver_sql(command.selection.condition)
    # In brackets: what follows it in the statement must not bind into it.
    return {"where": sql.SQL("({})").format(where), "parameters": parameters}


def _refusals(curated: Curated) -> dict[str, Any]:
    """What stood in the way; an item that already is what was asked for did not."""
    return {
        "counts": {reason: n for reason, n in curated.counts.items() if reason != UNCHANGED},
        "outcomes": [outcome for outcome in curated.outcomes if outcome.reason != UNCHANGED],
    }


def _answer(curated: Curated, *, batch: Batch | None = None, resume_token: str = "") -> BatchAnswer:
    return BatchAnswer(
        batch=batch,
        requested=curated.requested,
        changed=curated.changed,
        queued=curated.queued,
        counts=curated.counts,
        outcomes=curated.outcomes,
        resume_token=resume_token,
    )


async def _resume_token(connection: Connection, batch: Batch) -> str:
    if batch.position is None:
        return ""
    return encode_token((await log_identity(connection)).id, batch.position)
