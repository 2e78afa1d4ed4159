"""The client for threads: the same calls as in `aio`, and a watch that is iterated plainly."""

from __future__ import annotations

import random
import threading
from collections.abc import Generator
from time import monotonic
from typing import Self, TypeVar, Unpack

import grpc

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_client.channel import channel_options
from curation_client.requests import (
    RetryOptions,
    StatusOptions,
    WatchOptions,
    retry_request,
    status_request,
    watch_request,
)
from curation_client.tls import HEALTH, handshake_failed
from curation_client.watch import Backoff, Update, WatchState, code_of

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class CurationClient:
    """Calls one curation service. `with CurationClient("127.0.0.1:50051") as client: ...`.

    Each call raises `grpc.RpcError` where the service refuses it or does not answer in time. `set_status`,
    `retry_failed` and `watch` raise `ValueError`, before they call, for options that contradict one another.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        backoff: Backoff | None = None,
        timeout_s: float = 60.0,
        wait_for_ready: bool = True,
    ) -> None:
        """A client of the service at `address` (host:port).

        Args:
            address: host and port of the service.
            credentials: `tls()`, or others of gRPC's, to speak TLS; None for plain text.
            backoff: how a watch waits before it goes on after a lost connection.
            timeout_s: how long any call but a watch may take.
            wait_for_ready: whether calls wait so long for a service that is away; else they fail within seconds, as
                does a watch that nobody has answered yet. Once a service has, a watch waits as long as it takes.
        """
        options = channel_options(wait_for_ready=wait_for_ready)
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._stub = pb_grpc.CurationServiceStub(self._channel)
        self._backoff = backoff or Backoff()
        self._timeout_s = timeout_s
        self._wait_for_ready = wait_for_ready
        self._greeted = credentials is None or not wait_for_ready
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the channel, and every watch of other threads with it."""
        self._closed.set()
        self._channel.close()

    def set_status(self, resource: str, status: str, **options: Unpack[StatusOptions]) -> pb.BatchUpdateStatusResponse:
        """Sets a status on many items; `options`: see `StatusOptions`."""
        return self._answer(self._stub.BatchUpdateStatus, status_request(resource, status, **options))

    def list_items(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        """One page of items."""
        return self._answer(self._stub.ListItems, request)

    def items(self, request: pb.ListItemsRequest) -> Generator[pb.Item, None, None]:
        """All items that the request matches, page after page."""
        page = pb.ListItemsRequest()
        page.CopyFrom(request)
        while True:
            response = self.list_items(page)
            yield from response.items
            page.page_token = response.next_page_token
            if not page.page_token:
                return

    def get_item(self, resource: str, key: str, *, history_size: int = 0) -> pb.GetItemResponse:
        """One item with its history."""
        request = pb.GetItemRequest(resource=resource, id=key, history_size=history_size)
        return self._answer(self._stub.GetItem, request)

    def count_items(self, resource: str, matching: str = "") -> pb.CountItemsResponse:
        """Counts by status and queue status, of the items that match an AIP-160 filter."""
        return self._answer(self._stub.CountItems, pb.CountItemsRequest(resource=resource, filter=matching))

    def get_batch(self, batch_id: str) -> pb.GetBatchResponse:
        """One batch and how far it has come."""
        return self._answer(self._stub.GetBatch, pb.GetBatchRequest(batch_id=batch_id))

    def list_batches(self, request: pb.ListBatchesRequest) -> pb.ListBatchesResponse:
        """One page of batches, newest first."""
        return self._answer(self._stub.ListBatches, request)

    def list_batch_outcomes(self, request: pb.ListBatchOutcomesRequest) -> pb.ListBatchOutcomesResponse:
        """One page of the items that a batch left unchanged."""
        return self._answer(self._stub.ListBatchOutcomes, request)

    def retry_failed(self, resource: str, **options: Unpack[RetryOptions]) -> pb.RetryFailedResponse:
        """Queues items that have failed again; `options`: see `RetryOptions`."""
        return self._answer(self._stub.RetryFailed, retry_request(resource, **options))

    def list_failure_groups(self, request: pb.ListFailureGroupsRequest) -> pb.ListFailureGroupsResponse:
        """One page of groups of failures, the largest first."""
        return self._answer(self._stub.ListFailureGroups, request)

    def explain_item(self, resource: str, key: str) -> pb.ExplainItemResponse:
        """Why an item is not running, or where it is."""
        request = pb.ExplainItemRequest(resource=resource, id=key)
        return self._answer(self._stub.ExplainItem, request)

    def get_workflow(self, resource: str) -> pb.GetWorkflowResponse:
        """One workflow: its statuses, its state, what its queue holds."""
        return self._answer(self._stub.GetWorkflow, pb.GetWorkflowRequest(resource=resource))

    def list_workflows(self, request: pb.ListWorkflowsRequest) -> pb.ListWorkflowsResponse:
        """One page of workflows, by resource."""
        return self._answer(self._stub.ListWorkflows, request)

    def pause_workflow(self, resource: str, *, actor: str = "", reason: str = "") -> pb.PauseWorkflowResponse:
        """Lets no worker claim items of a workflow until it is resumed."""
        request = pb.PauseWorkflowRequest(resource=resource, actor=actor, reason=reason)
        return self._answer(self._stub.PauseWorkflow, request)

    def drain_workflow(self, resource: str, *, actor: str = "", reason: str = "") -> pb.DrainWorkflowResponse:
        """The same, and workers give back what they have not begun."""
        request = pb.DrainWorkflowRequest(resource=resource, actor=actor, reason=reason)
        return self._answer(self._stub.DrainWorkflow, request)

    def resume_workflow(self, resource: str, *, actor: str = "", reason: str = "") -> pb.ResumeWorkflowResponse:
        """Lets workers claim again."""
        request = pb.ResumeWorkflowRequest(resource=resource, actor=actor, reason=reason)
        return self._answer(self._stub.ResumeWorkflow, request)

    def list_workers(self, request: pb.ListWorkersRequest) -> pb.ListWorkersResponse:
        """One page of workers, newest first."""
        return self._answer(self._stub.ListWorkers, request)

    def watch(self, resource: str, **options: Unpack[WatchOptions]) -> Generator[Update, None, None]:
        """Yields what happens, over any number of lost connections; `options`: see `WatchOptions`.

        Ends with `end_when_done`, when the client is closed, or never. Raises `grpc.RpcError` for what another try
        cannot mend. Leave it by `contextlib.closing` when you leave it early, so that its stream ends at once.
        """
        state = WatchState(
            watch_request(resource, **options),
            backoff=self._backoff,
            dice=random.Random(),  # noqa: S311
            wait_for_ready=self._wait_for_ready,
        )
        delay_s: float | None = 0.0
        while delay_s is not None and not self._closed.wait(delay_s):
            call = self._stub.WatchStatus(state.request, wait_for_ready=state.wait_for_ready)
            error = None
            try:
                self._greet()
                for response in call:
                    yield from state.received(response)
            except grpc.RpcError as raised:
                error = raised
            finally:
                # An abandoned stream is never collected (grpc/grpc#43462), whichever way it was left.
                call.cancel()
            if self._closed.is_set():
                return
            delay_s = state.lost(error)

    def _answer(self, method: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT], request: RequestT) -> ResponseT:
        deadline = monotonic() + self._timeout_s
        self._greet()
        return method(request, timeout=deadline - monotonic())

    def _greet(self) -> None:
        """Raises why no TLS comes about. Who waits for a service waits then too, and would never learn why."""
        if self._greeted:
            return
        greeting: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(HEALTH)
        try:
            greeting(b"", timeout=self._timeout_s, wait_for_ready=False)
        except grpc.RpcError as error:
            if handshake_failed(error) or self._closed.is_set():
                raise
            self._greeted = code_of(error) is not grpc.StatusCode.UNAVAILABLE
        else:
            self._greeted = True
