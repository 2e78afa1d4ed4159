"""Reads what operators ask for: pauses, and pages of workflows and workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from curation.v1 import curation_pb2 as pb
from curation_service.kinds import BIGINT, TEXT
from curation_service.page_tokens import read_page_token, write_page_token
from curation_service.requests import check_origin, read_page_size, read_workflow
from curation_service.violations import Violations
from shared.registry import Registry
from shared.workflow import Workflow

StateRequest: TypeAlias = pb.PauseWorkflowRequest | pb.DrainWorkflowRequest | pb.ResumeWorkflowRequest
_NUMBER, _TEXT = (BIGINT,), (TEXT,)


@dataclass(frozen=True, slots=True)
class StateChange:
    """Who wants a workflow paused, drained or resumed, and why."""

    workflow: Workflow
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkflowsQuery:
    """A page of workflows, by resource."""

    after: str
    """Only those whose resource comes behind."""
    page_size: int


@dataclass(frozen=True, slots=True)
class WorkersQuery:
    """A page of workers, newest first."""

    resource: str | None
    """Only those that serve it."""
    with_ended: bool
    before: int | None
    """Only those with a smaller id."""
    page_size: int


def read_state_change(request: StateRequest, registry: Registry) -> StateChange:
    """A request that changes a workflow's state, checked. Raises `UnknownResource`, `InvalidRequest`."""
    workflow, violations = read_workflow(request.resource, registry), Violations()
    check_origin(request.actor, request.reason, violations)
    violations.check()
    return StateChange(workflow, request.actor, request.reason)


def read_list_workflows(request: pb.ListWorkflowsRequest) -> WorkflowsQuery:
    """A `ListWorkflows` request, checked. Raises `InvalidRequest`."""
    violations = Violations()
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    after = read_page_token(request.page_token, ("workflows",), _TEXT)[0] if request.page_token else ""
    return WorkflowsQuery(after, page_size)


def read_list_workers(request: pb.ListWorkersRequest, registry: Registry) -> WorkersQuery:
    """A `ListWorkers` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    resource = registry[request.resource].resource if request.resource else None
    violations = Violations()
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    before = None
    if request.page_token:
        (before,) = read_page_token(request.page_token, _workers(resource, request.with_ended), _NUMBER)
    return WorkersQuery(resource, request.with_ended, before, page_size)


def workflows_token(after: str) -> str:
    """The token of the page of workflows behind this resource."""
    return write_page_token(("workflows",), _TEXT, (after,))


def workers_token(query: WorkersQuery, before: int) -> str:
    """The token of the page of workers older than this one."""
    return write_page_token(_workers(query.resource, query.with_ended), _NUMBER, (before,))


def _workers(resource: str | None, with_ended: bool) -> tuple[str, ...]:
    return ("workers", resource or "", "ended" if with_ended else "")
