"""One attempt: whatever an enricher does, the worker gets an outcome, and its own cancellation stays its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest

from shared.attempt import load_enricher
from shared.enrichment import Failed
from shared.errors import WorkflowError
from shared.testing import EnricherRun, item, run_enricher
from shared.workflow import EnrichmentContext, Item, Values
from tests.support.worker import GADGETS


async def run(enricher: Callable[[Item, Any], Any]) -> EnricherRun:
    return await run_enricher(GADGETS, item(7, name="g"), enricher=enricher)


async def test_an_author_sees_the_outcome_and_the_progress() -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        await context.progress("asked", 0.5)
        await context.progress("mapped", 7)
        return {"code": item.data["name"], "url": context.settings["API_URL"]}

    got = await run_enricher(GADGETS, item(7, name="g"), enricher=enrich, settings={"API_URL": "u"})
    assert (got.outcome.trigger, got.outcome.values) == ("complete", {"code": "g", "url": "u"})
    assert got.progress == (("asked", 0.5), ("mapped", 1.0))
    assert got.steps == ["asked", "mapped"]


async def test_an_author_may_answer_for_the_api() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/g"
        return httpx.Response(429, headers={"Retry-After": "9"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        got = await run_enricher(GADGETS, item(7, name="g"), http=http, settings={"API_URL": "http://api"})
    assert got.outcome.trigger == "retry"
    assert got.outcome.error == "gadgets API answered 429 Too Many Requests"
    assert got.outcome.delay_s >= 9
    assert got.steps == ["asking"]


async def test_a_plain_function_runs_in_a_thread_and_reports_progress_without_await() -> None:
    def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        context.progress("thinking", 0.3)  # type: ignore[unused-coroutine]
        return {"thread": threading.current_thread() is threading.main_thread()}

    got = await run(enrich)
    assert got.outcome.values == {"thread": False}
    assert got.progress == (("thinking", 0.3),)


async def test_an_item_is_tried_again_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    got = await run(lambda item, context: None)
    assert (got.outcome.trigger, got.outcome.is_outage) == ("retry", False)


async def test_an_author_may_have_logged_where_an_error_was_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        return {"code": item.data["nmae"]}

    with caplog.at_level("DEBUG", "shared.attempt"):
        await run(enrich)
    assert '"code": item.data["nmae"]' in caplog.text


async def test_a_cancellation_of_the_enrichers_own_does_not_pass_for_the_workers() -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        inner = asyncio.create_task(asyncio.Event().wait())
        inner.cancel()
        await inner
        raise AssertionError

    got = await run(enrich)
    assert got.outcome.trigger == "retry"


async def test_the_workers_own_cancellation_passes_through() -> None:
    began = asyncio.Event()

    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        began.set()
        await asyncio.Event().wait()
        return None

    running = asyncio.create_task(run(enrich))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_nothing_but_a_mapping_counts_as_values() -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Any:
        return ["no", "mapping"]

    got = await run(enrich)
    assert got.outcome.trigger == "fail"
    assert "returned list" in str(got.outcome.error)


class Nameless(Failed):
    def __init__(self) -> None:
        """Forgets its base."""


class Mute(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


class Panic(BaseException):
    """As libraries in Rust raise it."""


@pytest.mark.parametrize("error", [Nameless(), Mute(), Panic("lost"), SystemExit(2)])
async def test_an_item_fails_whatever_is_raised(error: BaseException) -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        raise error

    got = await run(enrich)
    assert got.outcome.trigger == "fail"
    assert "the enricher" in str(got.outcome.error)


async def test_values_are_read_once_where_what_they_do_is_the_enrichers() -> None:
    class Lazy(Mapping[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise KeyError(name)

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("the answer is gone")

        def __len__(self) -> int:
            return 1

    values: dict[str, Any] = {"code": "g"}

    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        return values

    async def enrich_lazily(item: Item, context: EnrichmentContext) -> Values | None:
        return Lazy()

    got = await run(enrich)
    values.clear()
    assert got.outcome.values == {"code": "g"}
    assert "the answer is gone" in str((await run(enrich_lazily)).outcome.error)


async def test_what_an_enricher_raises_on_purpose_is_what_a_curator_reads() -> None:
    async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
        raise Failed("closed for good")

    got = await run(enrich)
    assert (got.outcome.trigger, got.outcome.error) == ("fail", "closed for good")


def test_an_enricher_is_loaded_by_its_name() -> None:
    assert callable(load_enricher(GADGETS))


@pytest.mark.parametrize("name", ["nowhere:enrich", "json:nothing", "json:decoder.FLAGS", ":x", "json:"])
def test_an_enricher_that_cannot_be_loaded_is_named(name: str) -> None:
    with pytest.raises(WorkflowError, match=f"'gadgets': the enricher {name}"):
        load_enricher(replace(GADGETS, enricher=name))
