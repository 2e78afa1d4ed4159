"""One attempt at one item: call the enricher within its time, and say how that ended. Its errors become outcomes.

The worker and `shared.testing` both run enrichers through here, so that what an author tests is what will happen.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from shared.deadline import Deadline
from shared.enrichment import Retry
from shared.errors import WorkflowError
from shared.key_use import Gate, KeyUse, KeyUses
from shared.outcome import AttemptOutcome, classify, clean
from shared.secrets import Secrets
from shared.thread import in_own_thread
from shared.workflow import Enricher, Item, Limits, Workflow

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

Report: TypeAlias = Callable[[Item, str, float], None]
"""Takes an item's progress: a step in words and a fraction, 0 to 1. May be called from any thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Everything one workflow's attempts need."""

    enricher: Enricher
    """Async, or a plain function, which then runs in a thread of its own."""
    limits: Limits
    api: str
    """What messages call the external API."""
    http: httpx.AsyncClient
    settings: Mapping[str, str]
    report: Report
    random: Callable[[], float]
    """Gives a number from 0 to 1, for the jitter of retries."""
    gate: Gate | None = None
    """The gate to the keys of the external API; None where none is limited."""
    deadline: Deadline = field(init=False)
    """Ends an attempt that takes too long."""
    secrets: Secrets = field(init=False)
    """The secrets among the settings, struck out of every message."""
    is_async: bool = field(init=False)
    """Whether the enricher is; asked once."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "deadline", Deadline(self.limits.timeout_s))
        object.__setattr__(self, "secrets", Secrets.of(self.settings))
        object.__setattr__(self, "is_async", _is_async(self.enricher))


async def attempt(item: Item, bench: Bench, task: asyncio.Task[Any] | None = None) -> AttemptOutcome:
    """Runs the enricher once. Raises nothing but a cancellation of the caller.

    `task` is the current one, where the caller has it at hand: asking for it is a system call (`os.getpid`).

    Returns when the enricher has ended, which may be long after its time, or never: it may swallow its cancellation,
    and a thread cannot be interrupted. A caller that cannot wait gives it up, and takes `overdue` for the outcome.
    """
    context = _Context(item, bench)
    try:
        return _found(await bench.deadline.run(_call(item, context, bench), task))
    except asyncio.CancelledError:
        task = task or asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # Nobody cancelled us: the enricher let a cancellation of its own escape, which must not pass for ours.
        return interrupted(item, bench)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except SystemExit as raised:
        error: Exception = RuntimeError(f"the enricher asked the process to exit ({raised.code})")
    except Exception as raised:
        log.debug("an attempt at item %s of %s", item.key, bench.api, exc_info=True)
        error = raised
    except BaseException as raised:  # noqa: BLE001 - a library in Rust that panics raises such a one
        error = RuntimeError(f"the enricher raised {type(raised).__name__}")
    outcome = _classified(error, item, bench)
    # What was asked for a key holds for that key alone.
    return replace(outcome, hold_s=None) if context.has_held_key else outcome


def overdue(item: Item, bench: Bench) -> AttemptOutcome:
    """The outcome of an attempt that did not end when its time was over."""
    return _classified(TimeoutError(), item, bench)


def interrupted(item: Item, bench: Bench) -> AttemptOutcome:
    """The outcome of an attempt that its enricher cancelled."""
    return _classified(ConnectionAbortedError("the enricher was interrupted"), item, bench)


def _classified(error: Exception, item: Item, bench: Bench) -> AttemptOutcome:
    try:
        return classify(
            error,
            item.attempt,
            bench.limits,
            random=bench.random,
            now=datetime.now(UTC),
            api=bench.api,
            secrets=bench.secrets,
        )
    except Exception:  # noqa: BLE001 - an author's own class of error may lack what its base has, or have no text
        unreadable = RuntimeError(f"the enricher raised {type(error).__name__}, which cannot be read")
        return _classified(unreadable, item, bench)


def load_enricher(workflow: Workflow) -> Enricher:
    """Imports what the workflow names as its enricher.

    Raises:
        WorkflowError: there is no such module or function, or it fails to import.
    """
    module_name, _, function_name = workflow.enricher.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for name in function_name.split("."):
            found = getattr(found, name)
    except Exception as error:
        problem = f"the enricher {workflow.enricher} cannot be loaded: {type(error).__name__}: {error}"
        raise WorkflowError(workflow.resource, problem) from error
    if not callable(found):
        raise WorkflowError(workflow.resource, f"the enricher {workflow.enricher} is no function")
    enricher: Enricher = found
    return enricher


def _call(item: Item, context: _Context, bench: Bench) -> Awaitable[Any]:
    enricher: Callable[[Item, Any], Any] = bench.enricher
    call: Awaitable[Any] = enricher(item, context) if bench.is_async else _in_thread(enricher, item, context)
    return call


async def _in_thread(enricher: Callable[[Item, Any], Any], item: Item, context: _Context) -> Any:
    """Runs a plain function, and lets it end: when it is cancelled, it is told by `context.cancelled`."""

    def run() -> tuple[Any, BaseException | None]:
        try:
            return enricher(item, context), None
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            return None, error

    try:
        ended = in_own_thread(run, name=f"enricher of {item.key}")
    except RuntimeError as refused:
        raise Retry("the worker could start no thread") from refused
    try:
        values, error = await asyncio.shield(ended)
    except asyncio.CancelledError:
        context.cancelled = True
        await asyncio.wait({ended})
        raise
    if error is not None:
        raise error
    return values


def _is_async(enricher: Callable[..., Any]) -> bool:
    """Whether calling it gives an awaitable, as far as can be told without calling it."""
    return inspect.iscoroutinefunction(enricher) or inspect.iscoroutinefunction(type(enricher).__call__)


def _found(values: object) -> AttemptOutcome:
    if values is None:
        return AttemptOutcome(trigger="find_nothing")
    if not isinstance(values, (dict, Mapping)):  # dict first: an abstract class takes its time
        raise TypeError(f"the enricher returned {type(values).__name__}, not a mapping of columns to values")
    return AttemptOutcome(trigger="complete", values=dict(values))


class _Context:
    """What an enricher sees of the worker: an `EnrichmentContext`."""

    __slots__ = ("_bench", "_item", "_uses", "cancelled")

    def __init__(self, item: Item, bench: Bench) -> None:
        self._item, self._bench = item, bench
        gate, limits = bench.gate, bench.limits
        self._uses = None if gate is None else KeyUses(gate, secrets=bench.secrets, timeout_s=limits.timeout_s)
        self.cancelled = False

    @property
    def has_held_key(self) -> bool:
        return self._uses is not None and self._uses.has_held

    @property
    def http(self) -> httpx.AsyncClient:
        return self._bench.http

    @property
    def settings(self) -> Mapping[str, str]:
        return self._bench.settings

    def progress(self, step: str, fraction: float) -> Coroutine[Any, Any, None]:
        """Counts at the call, so that a plain function in a thread, which cannot await, may use it too."""
        self._bench.report(self._item, clean(step, self._bench.secrets), min(1.0, max(0.0, float(fraction))))
        return _Done()

    def limit(self, key: str) -> KeyUse | nullcontext[None]:
        return nullcontext() if self._uses is None else self._uses.use(key)


class _Done(Coroutine[Any, Any, None]):
    """An awaitable that has happened already, and that nobody has to await."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield

    def send(self, _: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass
