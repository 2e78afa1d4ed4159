"""What operators do: look at workflows and workers, pause, drain and resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from curation_service.operation_requests import StateChange, WorkersQuery, WorkflowsQuery
from shared.db.engine import Connection, Database
from shared.db.queue import QueueCounts, count_queue
from shared.db.sessions import WorkerSession, list_sessions
from shared.db.workflow_states import WorkflowState, pause, read_states, resume
from shared.registry import Registry
from shared.workflow import Workflow


@dataclass(frozen=True, slots=True)
class WorkflowView:
    """A workflow as it stands."""

    workflow: Workflow
    state: WorkflowState
    counts: QueueCounts


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker, and the states of the workflows that it serves."""

    session: WorkerSession
    states: Sequence[WorkflowState]


class Operations:
    """Carries out what operators ask for."""

    def __init__(self, *, database: Database, registry: Registry) -> None:
        self._database, self._registry = database, registry

    async def pause(self, change: StateChange) -> tuple[WorkflowState, bool]:
        """Pauses a workflow. Returns its state, and whether that is new."""
        resource = change.workflow.resource
        async with self._database.transaction() as connection:
            changed = await pause(connection, resource, by=change.actor, reason=change.reason)
            return await self._state(connection, resource), changed

    async def drain(self, change: StateChange) -> tuple[WorkflowView, bool]:
        """Pauses a workflow; workers give back what they have not begun. Returns it, and whether that is new."""
        resource = change.workflow.resource
        async with self._database.transaction() as connection:
            changed = await pause(connection, resource, by=change.actor, reason=change.reason, drain=True)
            return await self._view(connection, change.workflow), changed

    async def resume(self, change: StateChange) -> tuple[WorkflowState, bool]:
        """Resumes a workflow. Returns its state, and whether that is new."""
        resource = change.workflow.resource
        async with self._database.transaction() as connection:
            changed = await resume(connection, resource, by=change.actor, reason=change.reason)
            return await self._state(connection, resource), changed

    async def workflow(self, workflow: Workflow) -> WorkflowView:
        """One workflow as it stands."""
        async with self._database.transaction() as connection:
            return await self._view(connection, workflow)

    async def workflows(self, query: WorkflowsQuery) -> tuple[Sequence[WorkflowView], bool]:
        """A page of workflows, and whether there are more."""
        resources = sorted(resource for resource in self._registry if resource > query.after)
        async with self._database.transaction() as connection:
            views = [await self._view(connection, self._registry[name]) for name in resources[: query.page_size]]
        return views, len(resources) > query.page_size

    async def workers(self, query: WorkersQuery) -> tuple[Sequence[WorkerView], bool]:
        """A page of workers, and whether there are more."""
        async with self._database.transaction() as connection:
            sessions = await list_sessions(
                connection,
                resource=query.resource,
                with_ended=query.with_ended,
                before=query.before,
                limit=query.page_size + 1,
            )
            served = {resource for session in sessions for resource in session.resources}
            states = {state.resource: state for state in await read_states(connection, self._apis(served))}
        page = sessions[: query.page_size]
        views = [WorkerView(session, [states[resource] for resource in session.resources]) for session in page]
        return views, len(sessions) > query.page_size

    async def _view(self, connection: Connection, workflow: Workflow) -> WorkflowView:
        state = await self._state(connection, workflow.resource)
        return WorkflowView(workflow, state, await count_queue(connection, workflow))

    async def _state(self, connection: Connection, resource: str) -> WorkflowState:
        (state,) = await read_states(connection, self._apis([resource]))
        return state

    def _apis(self, resources: Iterable[str]) -> Mapping[str, str]:
        """The external API of each; empty for a workflow that only the workers know."""
        known = self._registry
        return {name: known[name].api if name in known else "" for name in sorted(resources)}
