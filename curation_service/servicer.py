"""The RPCs: each reads its request, calls what does the work, and writes the answer. Errors are the interceptor's."""
# ruff: noqa: N802 -- the methods have gRPC's names

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, TypeAlias

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.batch_pages import batches_token, outcomes_token, read_list_batches, read_list_outcomes
from curation_service.batch_request import BatchRequest, BatchUpdate, read_batch_update
from curation_service.batch_update import BatchUpdates
from curation_service.explain import explain
from curation_service.failures import group_message, list_groups, read_list_groups, read_retry_failed
from curation_service.item_requests import read_count_items, read_explain_item, read_get_item, read_list_items
from curation_service.listing import count_items, find_item, find_row, list_items
from curation_service.messages import (
    answer_message,
    batch_message,
    count_message,
    event_message,
    item_reader,
    outcome_message,
    progress_message,
)
from curation_service.operation_messages import state_message, worker_message, workflow_message
from curation_service.operation_requests import (
    read_list_workers,
    read_list_workflows,
    read_state_change,
    workers_token,
    workflows_token,
)
from curation_service.operations import Operations
from curation_service.progress import Told
from curation_service.requests import read_batch_id, read_off_loop, read_workflow
from curation_service.watch import Watch
from shared.db.batches import get_batch, list_batches, list_outcomes, read_progress
from shared.db.engine import Database, driver_connection
from shared.registry import Registry

Context: TypeAlias = Any
"""`grpc.aio.ServicerContext`; the generated base class asks for what is also the one of threads."""


class Servicer(pb_grpc.CurationServiceServicer):
    """`curation.v1.CurationService` on one database."""

    def __init__(
        self,
        *,
        database: Database,
        reads: Database,
        registry: Registry,
        updates: BatchUpdates,
        items_max: int,
        watch: Watch,
        told: Told,
    ) -> None:
        """`reads` is where items are listed, counted and found: the same database, or a standby of it.

        `told` is said whenever a caller hears how far a batch is.
        """
        self._database, self._reads = database, reads
        self._registry = registry
        self._updates = updates
        self._items_max = items_max
        self._watch, self._told = watch, told
        self._operations = Operations(database=database, registry=registry)

    async def BatchUpdateStatus(
        self, request: pb.BatchUpdateStatusRequest, context: Context
    ) -> pb.BatchUpdateStatusResponse:
        """Sets a status on many items."""
        command = await self._read(read_batch_update, request)
        return answer_message(pb.BatchUpdateStatusResponse, await self._updates.carry_out(command), command)

    def WatchStatus(  # type: ignore[override] # serialised already; the interceptor lets bytes pass
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncGenerator[bytes, None]:
        """Streams what happens to items."""
        return self._watch.stream(request)

    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:
        """A page of items, with counts when asked; both of one moment."""
        query = read_list_items(request, self._registry)
        read = item_reader(query.items.workflow)
        async with self._reads.core(isolation="REPEATABLE READ" if request.with_counts else None) as connection:
            page = await list_items(connection, query, read)
            counts = await count_items(connection, query.items, query.condition) if request.with_counts else []
        return pb.ListItemsResponse(
            items=page.items, next_page_token=page.next_page_token, counts=map(count_message, counts)
        )

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """One item with its history; both of one moment."""
        query = read_get_item(request, self._registry)
        async with self._reads.core(isolation="REPEATABLE READ") as connection:
            found = await find_item(connection, query.workflow, query.key, history_size=query.history_size)
        history = [event_message(entry, index) for entry, index in found.history]
        return pb.GetItemResponse(item=item_reader(query.workflow)(found.row), history=history)

    async def CountItems(self, request: pb.CountItemsRequest, context: Context) -> pb.CountItemsResponse:
        """Counts of the items that match."""
        query = read_count_items(request, self._registry)
        async with self._reads.core() as connection:
            counts = await count_items(connection, query.items, query.condition)
        return pb.CountItemsResponse(counts=map(count_message, counts))

    async def GetBatch(self, request: pb.GetBatchRequest, context: Context) -> pb.GetBatchResponse:
        """One batch, and how far its items have come."""
        batch_id = read_batch_id(request.batch_id)
        async with self._database.transaction() as connection:
            batch, progress = await get_batch(connection, batch_id), await read_progress(connection, batch_id)
        self._told(batch_id, progress)
        return pb.GetBatchResponse(batch=batch_message(batch), progress=progress_message(batch_id, progress))

    async def ListBatches(self, request: pb.ListBatchesRequest, context: Context) -> pb.ListBatchesResponse:
        """A page of batches."""
        query = read_list_batches(request, self._registry)
        async with self._database.transaction() as connection:
            batches = await list_batches(
                connection, resource=query.resource, before=query.before, limit=query.page_size + 1
            )
        page = batches[: query.page_size]
        token = batches_token(query.resource, page[-1].id) if len(batches) > query.page_size else ""
        return pb.ListBatchesResponse(batches=map(batch_message, page), next_page_token=token)

    async def ListBatchOutcomes(
        self, request: pb.ListBatchOutcomesRequest, context: Context
    ) -> pb.ListBatchOutcomesResponse:
        """A page of the items that a batch left unchanged."""
        query = read_list_outcomes(request)
        async with self._database.transaction() as connection:
            await get_batch(connection, query.batch)
            found = await list_outcomes(connection, query.batch, after=query.after, limit=query.page_size + 1)
        page = found[: query.page_size]
        token = outcomes_token(query.batch, page[-1][0]) if len(found) > query.page_size else ""
        outcomes = [outcome_message(outcome) for _, outcome in page]
        return pb.ListBatchOutcomesResponse(outcomes=outcomes, next_page_token=token)

    async def RetryFailed(self, request: pb.RetryFailedRequest, context: Context) -> pb.RetryFailedResponse:
        """Queues failed items again."""
        command = await self._read(read_retry_failed, request)
        return answer_message(pb.RetryFailedResponse, await self._updates.carry_out(command), command)

    async def ListFailureGroups(
        self, request: pb.ListFailureGroupsRequest, context: Context
    ) -> pb.ListFailureGroupsResponse:
        """A page of groups of failures."""
        groups, token = await list_groups(self._database, read_list_groups(request, self._registry))
        return pb.ListFailureGroupsResponse(groups=map(group_message, groups), next_page_token=token)

    async def ExplainItem(self, request: pb.ExplainItemRequest, context: Context) -> pb.ExplainItemResponse:
        """What stands in the way of an item; all of one moment."""
        query = read_explain_item(request, self._registry)
        async with self._database.core(isolation="REPEATABLE READ") as connection:
            row = await find_row(connection, query.workflow, query.key)
            causes = await explain(await driver_connection(connection), query.workflow, row)
        return pb.ExplainItemResponse(item=item_reader(query.workflow)(row), causes=causes)

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        """One workflow as it stands."""
        view = await self._operations.workflow(read_workflow(request.resource, self._registry))
        return pb.GetWorkflowResponse(workflow=workflow_message(view))

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Context) -> pb.ListWorkflowsResponse:
        """A page of workflows."""
        views, more = await self._operations.workflows(read_list_workflows(request))
        token = workflows_token(views[-1].workflow.resource) if more else ""
        return pb.ListWorkflowsResponse(workflows=map(workflow_message, views), next_page_token=token)

    async def PauseWorkflow(self, request: pb.PauseWorkflowRequest, context: Context) -> pb.PauseWorkflowResponse:
        """Lets nobody claim."""
        state, changed = await self._operations.pause(read_state_change(request, self._registry))
        return pb.PauseWorkflowResponse(state=state_message(state), changed=changed)

    async def DrainWorkflow(self, request: pb.DrainWorkflowRequest, context: Context) -> pb.DrainWorkflowResponse:
        """Lets nobody claim, and workers give back what they have not begun."""
        view, changed = await self._operations.drain(read_state_change(request, self._registry))
        return pb.DrainWorkflowResponse(
            state=state_message(view.state), changed=changed, in_flight_count=view.counts.in_flight
        )

    async def ResumeWorkflow(self, request: pb.ResumeWorkflowRequest, context: Context) -> pb.ResumeWorkflowResponse:
        """Lets workers claim again."""
        state, changed = await self._operations.resume(read_state_change(request, self._registry))
        return pb.ResumeWorkflowResponse(state=state_message(state), changed=changed)

    async def ListWorkers(self, request: pb.ListWorkersRequest, context: Context) -> pb.ListWorkersResponse:
        """A page of workers."""
        query = read_list_workers(request, self._registry)
        views, more = await self._operations.workers(query)
        token = workers_token(query, views[-1].session.id) if more else ""
        return pb.ListWorkersResponse(workers=map(worker_message, views), next_page_token=token)

    async def _read(self, read: Callable[..., BatchUpdate], request: BatchRequest) -> BatchUpdate:
        return await read_off_loop(partial(read, request, self._registry, items_max=self._items_max), request)
