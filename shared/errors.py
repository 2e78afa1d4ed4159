"""Every error a caller can meet, in one tree.

    CurationError
    ├── ProcessError              no caller is told: a process cannot start, or go on
    │   ├── SettingsInvalid       its environment says what cannot be
    │   ├── AddressUnavailable    it cannot listen where it should
    │   ├── CertificateUnusable   a file of its TLS cannot be read, or is not what it should be
    │   ├── DatabaseUnfit         PostgreSQL is too old, a standby, or not migrated
    │   ├── WorkflowError         a declaration that cannot work
    │   ├── LogRewound            the log has lost what was read from it
    │   ├── BackboneUnavailable   NATS cannot be reached; streams wait
    │   ├── EnrichersStuck        what a worker holds is only freed by a new process
    │   └── Interrupted           a second signal ended it before it had let go of what it had
    ├── MessageUnreadable    bytes that are no message of the method
    ├── MessageTooLarge      a message beyond the limit
    ├── InvalidRequest       a field of a request is wrong
    ├── UnknownResource      no workflow has that name
    ├── UnknownItem          no item has that key
    ├── UnknownBatch         no batch has that id
    ├── UnknownFailureGroup  nothing has failed in that way
    ├── RequestIdReused      the same request_id came with another body
    ├── ItemsRefused         at least one item cannot change, and the call asked for all or nothing
    ├── TableRefused         a rule of the table's own does not allow what the call asked for
    ├── TokenInvalid         a resume token that this log did not give
    ├── TokenExpired         a resume token older than the log
    ├── CallTooLong          it took longer than the service lets a call take
    ├── ServerStopping       the service stops, or the stream reached its age; go on elsewhere
    └── DatabaseUnavailable  PostgreSQL cannot be reached, is out of room for us, or gave up
        └── StatementCanceled  PostgreSQL ended a statement that took too long for it

Each has a stable `reason`, and fields instead of prose. That items of a call are refused is data (`Outcome`) as long
as the call goes through; only an all-or-nothing call turns it into an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """Its path, e.g. `ids[3]`."""
    description: str
    """What is wrong with it, and what would be right."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An item that a batch left unchanged, and why."""

    item: str
    """Its key, as text."""
    reason: str
    """One of `unchanged`, `not_found`, `illegal_transition`, `in_flight`, `stale_version`."""
    status: str | None
    queue_status: str | None
    version: int | None


class CurationError(Exception):
    """The root: anything this project refuses on purpose."""

    reason: ClassVar[str] = "UNKNOWN"


class ProcessError(CurationError):
    """A process cannot start, or go on; no caller is told."""


class SettingsInvalid(ProcessError):
    """The environment of a process says what cannot be."""

    reason = "SETTINGS_INVALID"

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{v.field} {v.description}" for v in violations))
        self.violations = violations
        """By variable."""


class AddressUnavailable(ProcessError):
    """A process cannot listen where its settings say."""

    reason = "ADDRESS_UNAVAILABLE"

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"cannot listen on {address}: {problem}")
        self.address = address


class CertificateUnusable(ProcessError):
    """A file of a process's TLS cannot be read, or is not what it should be."""

    reason = "CERTIFICATE_UNUSABLE"


class DatabaseUnfit(ProcessError):
    """PostgreSQL is there, but not as this version needs it: too old, a standby, or not migrated."""

    reason = "DATABASE_UNFIT"


class WorkflowError(ProcessError):
    """A declaration that cannot work."""

    reason = "WORKFLOW_INVALID"

    def __init__(self, resource: str, problem: str) -> None:
        super().__init__(f"workflow {resource!r}: {problem}")
        self.resource = resource
        self.problem = problem


class MessageUnreadable(CurationError):
    """The bytes are no message of this method: cut off, another message, or text that is not UTF-8."""

    reason = "MESSAGE_UNREADABLE"


class MessageTooLarge(CurationError):
    """The message is beyond the limit of the service."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, *, size: int, size_max: int) -> None:
        super().__init__(f"a message of {size} bytes; at most {size_max} are read: use a filter, or several calls")
        self.size = size
        self.size_max = size_max


class InvalidRequest(CurationError):
    """One or more fields of a request are wrong; nothing was changed."""

    reason = "INVALID_REQUEST"

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = violations


class UnknownResource(CurationError):
    """No workflow has that name."""

    reason = "UNKNOWN_RESOURCE"

    def __init__(self, resource: str, known: Sequence[str]) -> None:
        super().__init__(f"no resource {resource!r}; there are: {', '.join(sorted(known))}")
        self.resource = resource


class UnknownItem(CurationError):
    """No item has that key."""

    reason = "UNKNOWN_ITEM"

    def __init__(self, resource: str, key: str) -> None:
        super().__init__(f"no item {key!r} in {resource!r}")
        self.resource = resource
        self.key = key


class UnknownBatch(CurationError):
    """No batch has that id."""

    reason = "UNKNOWN_BATCH"

    def __init__(self, batch_id: str) -> None:
        super().__init__(f"no batch {batch_id!r}")
        self.batch_id = batch_id


class UnknownFailureGroup(CurationError):
    """Nothing of that resource has failed in that way, as far as is known."""

    reason = "UNKNOWN_FAILURE_GROUP"

    def __init__(self, group_id: str) -> None:
        super().__init__(f"no group of failures {group_id!r}")
        self.group_id = group_id


class RequestIdReused(CurationError):
    """The same request_id came with another body."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"request_id {request_id} was used for another request")
        self.request_id = request_id


class ItemsRefused(CurationError):
    """At least one item cannot change, and the call asked for all or nothing; nothing was changed."""

    reason = "ITEMS_REFUSED"

    def __init__(self, *, status: str, counts: Mapping[str, int], outcomes: Sequence[Outcome]) -> None:
        total = sum(counts.values())
        why = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
        asked = f"set to {status!r}" if status else "retried"
        super().__init__(f"{total} of the items cannot be {asked} ({why}); nothing was changed")
        self.status = status
        """The status that was asked for; empty for a retry."""
        self.counts = counts
        self.outcomes = outcomes


class TableRefused(CurationError):
    """A constraint or a trigger of the source table does not allow it; nothing was changed."""

    reason = "TABLE_REFUSED"

    def __init__(self, resource: str, problem: str) -> None:
        super().__init__(f"the table of {resource!r} does not allow it: {problem}")
        self.resource = resource


class TokenInvalid(CurationError):
    """A resume token that this log did not give."""

    reason = "TOKEN_INVALID"


class TokenExpired(CurationError):
    """A resume token older than the log, or ahead of a log that was restored; a snapshot is the way out."""

    reason = "TOKEN_EXPIRED"


class CallTooLong(CurationError):
    """A call took longer than the service lets any take; it may have been carried out."""

    reason = "CALL_TOO_LONG"

    def __init__(self, age_max_s: float) -> None:
        super().__init__(
            f"the call took longer than {age_max_s:g} seconds, the most here; it may have been carried out: "
            "the same request_id tells"
        )


class ServerStopping(CurationError):
    """The service stops, or the stream reached its age; the last token goes on elsewhere."""

    reason = "SERVER_STOPPING"


class DatabaseUnavailable(CurationError):
    """PostgreSQL cannot be reached, has no connection free for us, or gave up (a deadlock, a full disk); try again."""

    reason = "DATABASE_UNAVAILABLE"


class StatementCanceled(DatabaseUnavailable):
    """PostgreSQL ended a statement: it took longer than a `statement_timeout` allows, or somebody cancelled it.

    To a process that goes on by itself the database is away for a moment; a caller who tries again waits as long again.
    """

    reason = "STATEMENT_CANCELED"

    def __init__(self) -> None:
        super().__init__(
            "the database canceled a statement of this call (statement_timeout, or by hand); nothing was changed"
        )


class LogRewound(ProcessError):
    """What was read from the log is no longer in it: the database was restored, or a standby lost the last commits."""

    reason = "LOG_REWOUND"


class BackboneUnavailable(ProcessError):
    """NATS cannot be reached, or refuses; streams wait until it is back."""

    reason = "BACKBONE_UNAVAILABLE"


class EnrichersStuck(ProcessError):
    """As many attempts are stuck as there are places. What they hold is only freed by a new process."""

    reason = "ENRICHERS_STUCK"


class Interrupted(ProcessError):
    """A second signal ended the process before it had let go of what it had; nothing is lost by that."""

    reason = "INTERRUPTED"
