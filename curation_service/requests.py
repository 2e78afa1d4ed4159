"""What the readers of requests share: the fields that many requests have, and where a large one is read.

A reader makes a typed, frozen command or query of a message. One that exists is right as far as can be said without
the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from curation_service.kinds import kind_of
from curation_service.violations import Violations
from shared.errors import FieldViolation, InvalidRequest, UnknownBatch
from shared.registry import Registry
from shared.workflow import ItemKey, Workflow

ACTOR_LENGTH_MAX = 200
REASON_LENGTH_MAX = 1_000
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000
BATCH_ID_MAX = (1 << 63) - 1
ID_LENGTH_MAX = 1_000
"""Characters of an id: each may come back in the answer, a thousand of them in one message."""
SMALL_BYTES = 4_096
"""A request of some hundred ids is read at once: a thread takes longer to ask."""

Command = TypeVar("Command")


async def read_off_loop(read: Callable[[], Command], request: Message) -> Command:
    """Reads in a thread where the request is large: 100,000 ids would stop the event loop for a quarter of a second."""
    return await asyncio.to_thread(read) if request.ByteSize() > SMALL_BYTES else read()


def read_workflow(resource: str, registry: Registry) -> Workflow:
    """The workflow of a request. Raises `InvalidRequest` for none, `UnknownResource` for an unknown one."""
    if not resource:
        known = ", ".join(sorted(registry))
        raise InvalidRequest(FieldViolation("resource", f"a resource is required; there are {known}"))
    return registry[resource]


def read_batch_id(text: str) -> int:
    """A batch's id. Raises `InvalidRequest` for none, `UnknownBatch` for one that no batch can have."""
    if not text:
        raise InvalidRequest(FieldViolation("batch_id", "a batch is required"))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= BATCH_ID_MAX):
        raise UnknownBatch(text)
    return int(text)


def read_page_size(
    asked: int,
    violations: Violations,
    *,
    field: str = "page_size",
    default: int = PAGE_SIZE_DEFAULT,
    most: int = PAGE_SIZE_MAX,
) -> int:
    """How many to send: what was asked for, within bounds (AIP-158: more than the most is no mistake)."""
    if asked < 0:
        violations.add(field, "must not be negative")
    return min(asked or default, most)


def read_keys(
    ids: Sequence[str], workflow: Workflow, violations: Violations, *, path: Callable[[int], str], items_max: int
) -> Sequence[ItemKey]:
    """Keys from their text, none twice. `path` names the field of the n-th in a violation."""
    if len(ids) > items_max:
        violations.add(
            path(items_max), f"at most {items_max} items at once, not {len(ids)}; use a filter or several calls"
        )
        return []
    kind = kind_of(workflow.key.type)
    if (keys := kind.parse_all(ids := list(ids))) is not None:
        return keys
    places: dict[ItemKey, int] = {}
    for n, text in enumerate(ids):
        try:
            if not text:
                raise ValueError("an id is required")
            if len(text) > ID_LENGTH_MAX:
                raise ValueError(f"an id has at most {ID_LENGTH_MAX} characters, not {len(text)}")
            if (first := places.setdefault(kind.parse(text), n)) != n:
                raise ValueError(f"the same item as {path(first)}")
        except ValueError as error:
            violations.add(path(n), str(error))
            if violations.full:
                break
    return list(places)


def check_origin(actor: str, reason: str, violations: Violations) -> None:
    """Notes what is wrong with the words that say in the history who asked, and why."""
    for field, text, length_max in (("actor", actor, ACTOR_LENGTH_MAX), ("reason", reason, REASON_LENGTH_MAX)):
        if len(text) > length_max:
            violations.add(field, f"at most {length_max} characters, not {len(text)}")
        if "\0" in text:
            violations.add(field, "a NUL character cannot be stored")
