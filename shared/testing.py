"""For workflow authors: run an enricher on one item as the worker would, without a worker or a database.

run = await run_enricher(workflow, item(name="Café Central"), settings={"PLACES_API_URL": server.url})
assert run.outcome.values == {...}
assert run.steps == ["looked up", "mapped"]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from shared.attempt import Bench, attempt, load_enricher
from shared.outcome import AttemptOutcome
from shared.workflow import Enricher, Item, ItemKey, Workflow


@dataclass(frozen=True, slots=True)
class EnricherRun:
    """What one attempt did."""

    outcome: AttemptOutcome
    """How it ended, as the worker would take it: `trigger`, and `values` or `error` and `delay_s`."""
    progress: tuple[tuple[str, float], ...]
    """Every progress report, in order."""

    @property
    def steps(self) -> list[str]:
        """The steps reported, in order."""
        return [step for step, _ in self.progress]


def item(key: ItemKey = 1, *, attempt: int = 1, **data: Any) -> Item:
    """An item with these columns, as an enricher gets it."""
    return Item(key=key, version=1, attempt=attempt, data=data)


async def run_enricher(
    workflow: Workflow,
    item: Item,
    *,
    enricher: Enricher | None = None,
    http: httpx.AsyncClient | None = None,
    settings: Mapping[str, str] | None = None,
) -> EnricherRun:
    """Runs one attempt with the workflow's limits. What the enricher raises is in the outcome.

    Args:
        workflow: whose enricher and limits.
        item: what to enrich; see `item()`.
        enricher: instead of the one that the workflow names.
        http: a client of your own, e.g. with `httpx.MockTransport`; a plain one when None.
        settings: what `context.settings` holds; empty when None.

    Raises:
        WorkflowError: the workflow's enricher cannot be loaded.
    """
    progress: list[tuple[str, float]] = []
    async with httpx.AsyncClient(trust_env=False) as own:
        bench = Bench(
            enricher=enricher or load_enricher(workflow),
            limits=workflow.limits,
            api=workflow.api,
            http=http or own,
            settings=settings or {},
            report=lambda _, step, fraction: progress.append((step, fraction)),
            random=lambda: 1.0,
        )
        outcome = await attempt(item, bench)
    return EnricherRun(outcome, tuple(progress))
