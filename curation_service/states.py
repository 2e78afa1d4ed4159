"""The state of workflows for those who watch: read once for all who ask at a time, never older than the asking."""

from __future__ import annotations

import asyncio
from functools import partial

from curation.v1 import curation_pb2 as pb
from curation_service.operation_messages import state_message
from shared.db.engine import Database
from shared.db.workflow_states import read_states
from shared.errands import Errands
from shared.registry import Registry
from shared.workflow import Workflow


class States:
    """Asks the database, one question at a time for each workflow."""

    def __init__(self, *, database: Database, errands: Errands, registry: Registry) -> None:
        self._database, self._errands = database, errands
        self._asking = {resource: asyncio.Lock() for resource in registry}
        self._latest: dict[str, tuple[float, bytes]] = {}

    async def part(self, workflow: Workflow) -> bytes:
        """The state as a part of a stream, serialised, without a token."""
        clock, resource = asyncio.get_running_loop().time, workflow.resource
        asked_s = clock()
        async with self._asking[resource]:
            began_s, part = self._latest.get(resource, (float("-inf"), b""))
            if began_s < asked_s:
                began_s = clock()
                part = await self._errands.run(partial(self._read, workflow))
                self._latest[resource] = began_s, part
        return part

    async def _read(self, workflow: Workflow) -> bytes:
        # In a transaction of its own, and a short one: a pause waits for whoever looks at the states.
        async with self._database.transaction() as connection:
            (state,) = await read_states(connection, {workflow.resource: workflow.api})
        return pb.WatchStatusResponse(workflow=state_message(state)).SerializeToString()
