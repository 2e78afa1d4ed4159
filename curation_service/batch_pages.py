"""Pages of batches and of their outcomes: what is asked for, and the tokens between pages."""

from __future__ import annotations

from dataclasses import dataclass

from curation.v1 import curation_pb2 as pb
from curation_service.kinds import BIGINT
from curation_service.page_tokens import read_page_token, write_page_token
from curation_service.requests import read_batch_id, read_page_size
from curation_service.violations import Violations
from shared.registry import Registry

OUTCOMES_PAGE_SIZE_DEFAULT = 1_000
OUTCOMES_PAGE_SIZE_MAX = 10_000
_NUMBER = (BIGINT,)


@dataclass(frozen=True, slots=True)
class BatchesQuery:
    """A page of batches, newest first."""

    resource: str | None
    """Only those of this resource."""
    before: int | None
    """Only those with a smaller id."""
    page_size: int


@dataclass(frozen=True, slots=True)
class OutcomesQuery:
    """A page of a batch's outcomes."""

    batch: int
    after: int
    """The ordinal of the last one seen; they start at 1."""
    page_size: int


def read_list_batches(request: pb.ListBatchesRequest, registry: Registry) -> BatchesQuery:
    """A `ListBatches` request, checked. Raises `UnknownResource`, `InvalidRequest`."""
    resource = registry[request.resource].resource if request.resource else None
    violations = Violations()
    page_size = read_page_size(request.page_size, violations)
    violations.check()
    before = _place(request.page_token, ("batches", request.resource)) if request.page_token else None
    return BatchesQuery(resource, before, page_size)


def read_list_outcomes(request: pb.ListBatchOutcomesRequest) -> OutcomesQuery:
    """A `ListBatchOutcomes` request, checked. Raises `InvalidRequest`, `UnknownBatch`."""
    batch, violations = read_batch_id(request.batch_id), Violations()
    page_size = read_page_size(
        request.page_size, violations, default=OUTCOMES_PAGE_SIZE_DEFAULT, most=OUTCOMES_PAGE_SIZE_MAX
    )
    violations.check()
    after = _place(request.page_token, ("outcomes", str(batch))) if request.page_token else 0
    return OutcomesQuery(batch, after, page_size)


def batches_token(resource: str | None, before: int) -> str:
    """The token of the page of batches older than this one."""
    return write_page_token(("batches", resource or ""), _NUMBER, (before,))


def outcomes_token(batch: int, after: int) -> str:
    """The token of the page of outcomes behind this ordinal."""
    return write_page_token(("outcomes", str(batch)), _NUMBER, (after,))


def _place(token: str, query: tuple[str, ...]) -> int:
    (place,) = read_page_token(token, query, _NUMBER)
    return int(place)
