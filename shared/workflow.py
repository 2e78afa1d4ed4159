"""A workflow is one declaration: which rows are curated, how, and what enriches them.

A workflow author writes two tables, one `Curation` and one enricher; everything else is the project's. The
enricher is named by import string, so that the service, which never runs one, never imports what it needs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from sqlalchemy import BigInteger, Column, DateTime, Double, Index, Integer, Table, Text, and_, text

from shared.workflow_check import check_workflow

if TYPE_CHECKING:
    import httpx

ItemKey: TypeAlias = Any
"""A primary key as the driver gives it: `uuid.UUID`, `int` or `str`."""
Values: TypeAlias = Mapping[str, Any]
"""What an enricher found, by column of the target table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueColumns:
    """Names of the columns that hold an item's enrichment; `named("deep_scan")` gives `deep_scan_status`, ...."""

    status: str
    """none (NULL), `queued`, `processing`, `completed` or `failed`."""
    error: str
    """What went wrong last, for a curator to read."""
    failure: str
    """The group of failures that it belongs to."""
    result: str
    """`found` or `nothing_found`, once completed."""
    attempts: str
    """Claims since it was queued."""
    turn: str
    """Its place in the queue: a virtual time, so that batches take turns."""
    run_at: str
    """Not to be claimed before; NULL when it need not wait."""
    worker: str
    """The worker session that has it, while processing."""
    batch: str
    """The batch that queued it last."""
    event: str
    """Where in the log its last event is."""

    @classmethod
    def named(cls, name: str) -> QueueColumns:
        """The columns `<name>_status`, `<name>_error` and so on."""
        return cls(**{column.name: f"{name}_{column.name}" for column in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The statuses users set, and from which to which."""

    initial: str
    """The status of a new row."""
    transitions: Mapping[str, tuple[str, ...]]
    """For each status the ones it may be changed to. Every status is a key."""
    triggers: frozenset[str]
    """Statuses that queue the item; setting one again on an item that has ended queues it again."""
    column: str = "status"
    """The column that holds it."""
    version_column: str = "version"
    """The column that counts an item's transitions; nothing else may change it."""

    @property
    def statuses(self) -> tuple[str, ...]:
        """Every status, in the order declared."""
        return tuple(self.transitions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many calls in a period, by all workers together."""

    calls: float
    per_s: float = 1.0
    """The period, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What bounds a workflow's enrichment."""

    attempts_max: int = 5
    """Claims of an item before it fails for good."""
    timeout_s: float = 30.0
    """Seconds that one attempt may take."""
    concurrency: int = 50
    """Enrichers that one worker runs at once."""
    concurrency_total: int | None = None
    """Enrichers that all workers together run at once; None for no such limit."""
    rate: Rate | None = None
    """Attempts that all workers together begin; None for no such limit."""
    key_concurrency: int | None = None
    """Uses of one key at once, by all workers together: see `EnrichmentContext.limit`."""
    key_rate: Rate | None = None
    """Uses of one key, by all workers together."""
    breaker_failures: int | None = 20
    """After so many attempts in a row that found the external API down, nobody claims until it answers again; None
    where there is no one API that could be down."""
    backoff_s: float = 1.0
    """The first retry waits up to this long, each further one up to twice as long (full jitter)."""
    backoff_max_s: float = 300.0
    """No retry waits longer, unless the external API asks for it."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row as an enricher sees it."""

    key: ItemKey
    """The primary key."""
    version: int
    """The version under which it was claimed."""
    attempt: int
    """1 at the first attempt."""
    data: Mapping[str, Any]
    """The row's columns by name, without those of the machinery. A value that Python has no type for, e.g. a date of
    `infinity`, is text."""


class EnrichmentContext(Protocol):
    """What an enricher may ask of the worker that runs it."""

    @property
    def http(self) -> httpx.AsyncClient:
        """The worker's one `httpx.AsyncClient`, for all items of all workflows: headers go with a request, not here."""

    @property
    def settings(self) -> Mapping[str, str]:
        """The environment of the worker, for URLs and keys; never to be put into an error."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the result any more: the time is over, the item was taken away, or the worker stops. For
        plain functions, which nobody can interrupt; what is async is cancelled.
        """

    async def progress(self, step: str, fraction: float) -> None:
        """Tell watchers how far this item is: a step in words and a fraction, 0 to 1. Cheap; sent in batches."""

    def limit(self, key: str) -> AbstractAsyncContextManager[None]:
        """Waits until a key may be used, by the `key_rate` and `key_concurrency` that all workers together keep to.

        Write `async with context.limit("example.com"):` around what uses the key, and `with` in a plain function. A
        `Retry-After` that leaves the block as an error holds the key for all workers. Use one key at a time: an attempt
        that holds one and waits for another may wait for itself. Keys are kept in the database: pass no secret.

        Raises:
            TurnedAway: the wait would be too long. Let it pass: the item comes back later, and no attempt is lost.
        """


Enricher: TypeAlias = Callable[[Item, EnrichmentContext], Awaitable[Values | None] | Values | None]
"""Calls the external API for one item. Returns what to upsert into the target, or None when nothing is to be found. An
async function; a plain one runs in a thread, and may block."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Workflow:
    """One kind of row that can be curated and enriched."""

    resource: str
    """Its name in every request, e.g. `places`."""
    source: Table
    """The curated rows. One primary key column, a UUID, a whole number or a text, and `*item_columns(...)`."""
    target: Table
    """Where an enricher's values go."""
    target_key: str
    """The target's column that decides between insert and update; the table declares it unique."""
    curation: Curation
    queue: QueueColumns
    enricher: str
    """`package.module:function`, an `Enricher`."""
    limits: Limits = field(default_factory=Limits)
    api: str = ""
    """The external API in words, as errors name it. Workflows that call the same API share its limits on rate and
    concurrency, and its breaker. The resource's name when left out."""

    def __post_init__(self) -> None:
        check_workflow(self)
        if not self.api:
            object.__setattr__(self, "api", f"{self.resource.replace('_', ' ')} API")

    @cached_property
    def key(self) -> Column[Any]:
        """The primary key column of the source."""
        return next(iter(self.source.primary_key.columns))

    @cached_property
    def machinery_columns(self) -> frozenset[str]:
        """Columns of the source that only the writer changes."""
        return frozenset({self.curation.column, self.curation.version_column, *astuple(self.queue)})

    @cached_property
    def data_columns(self) -> tuple[Column[Any], ...]:
        """Columns of the source that are the author's own, the key left out."""
        return tuple(c for c in self.source.columns if c.name not in self.machinery_columns and not c.primary_key)

    @cached_property
    def value_columns(self) -> tuple[Column[Any], ...]:
        """Columns of the target that an enricher may fill: those that the database does not fill by itself."""
        return tuple(
            c
            for c in self.target.columns
            if c.server_default is None
            and c.computed is None
            and c.identity is None
            and "machinery" not in c.info
            # A primary key that counts by itself, as SQLAlchemy makes one of a whole number.
            and (c is not self.target.autoincrement_column or c.name == self.target_key)
        )

    @cached_property
    def value_names(self) -> frozenset[str]:
        """The names of `value_columns`."""
        return frozenset(column.name for column in self.value_columns)


def item_columns(curation: Curation, queue: QueueColumns, *, key: str = "id") -> tuple[Column[Any] | Index, ...]:
    """The columns and indexes that make a table's rows items; put them into its `Table(...)`, `key` its primary key.

    Three partial indexes serve the worker (what can be claimed now, and what later) and the list of failures; one over
    all rows serves the grid, by status. A completion changes no column that they name, so it writes no index at all. An
    index of your own on one of these columns, or with one in its predicate, is written at every transition.
    """

    def column(name: str, type_: Any, **options: Any) -> Column[Any]:
        return Column(name, type_, info={"machinery": True}, **options)

    turn, run_at = column(queue.turn, Double), column(queue.run_at, DateTime(timezone=True))
    failure = column(queue.failure, BigInteger)
    return (
        column(curation.column, Text, nullable=False, server_default=curation.initial),
        column(curation.version_column, BigInteger, nullable=False, server_default=text("1")),
        column(queue.status, Text),
        column(queue.error, Text),
        failure,
        column(queue.result, Text),
        column(queue.attempts, Integer, nullable=False, server_default=text("0")),
        turn,
        run_at,
        column(queue.worker, BigInteger),
        column(queue.batch, BigInteger),
        column(queue.event, BigInteger),
        Index(None, queue.turn, key, postgresql_where=turn.is_not(None)),
        Index(None, queue.run_at, postgresql_where=run_at.is_not(None)),
        Index(
            *(None, queue.failure, key, queue.batch),
            postgresql_where=and_(failure.is_not(None), run_at.is_(None)),
        ),
        Index(None, curation.column, key),
    )
