"""The workflow of `gadgets` for workers in processes of their own, with an enricher that does what an item's name says.

Loaded by entry point, as anybody's workflow is; its limits come from the environment, where a test puts them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from dataclasses import replace

import httpx

from shared.enrichment import Failed, Retry
from shared.workflow import EnrichmentContext, Item, Limits, Rate, Values
from tests.support.worker import GADGETS, enrich

workflow = replace(
    GADGETS,
    enricher="tests.support.misbehaving:misbehave",
    limits=Limits(
        attempts_max=int(os.environ.get("GADGETS_ATTEMPTS_MAX", "3")),
        timeout_s=float(os.environ.get("GADGETS_TIMEOUT_S", "20")),
        concurrency=int(os.environ.get("GADGETS_CONCURRENCY", "4")),
        backoff_s=float(os.environ.get("GADGETS_BACKOFF_S", "0.01")),
        backoff_max_s=2,
        concurrency_total=int(os.environ.get("GADGETS_CONCURRENCY_TOTAL", "0")) or None,
        rate=Rate(calls=float(os.environ["GADGETS_RATE"])) if "GADGETS_RATE" in os.environ else None,
        breaker_failures=None,
    ),
)
all_of_them = threading.Barrier(workflow.limits.concurrency)
"""As many attempts as there may be at once."""


async def misbehave(item: Item, context: EnrichmentContext) -> Values | None:
    """What the name says; asks the API and saves what it answers where it says nothing."""
    match item.data["name"].split(" "):
        case ["kills", *_]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["blocks", seconds]:
            time.sleep(float(seconds))  # noqa: ASYNC251 - what no enricher should do
        case ["meets", *_]:
            await asyncio.to_thread(all_of_them.wait)
        case ["lingers", *_]:
            threading.Thread(target=threading.Event().wait).start()
            await asyncio.to_thread(threading.Event().wait)
        case ["tells", how]:
            return await tell(context, how)
    return await enrich(item, context)


async def tell(context: EnrichmentContext, how: str) -> Values | None:
    """Puts the key of the environment wherever a careless author might."""
    key = context.settings["GADGETS_API_KEY"]
    await context.progress(f"asking with {key}", 0.1)
    logging.getLogger("careless").warning("asking with %s", key)
    match how:
        case "by-url":
            response = await context.http.get(f"{context.settings['API_URL']}/refused?key={key}")
            response.raise_for_status()
        case "by-header":
            headers = {"Authorization": f"Bearer {key}", "X-Api-Key": key}
            (await context.http.get(f"{context.settings['API_URL']}/down", headers=headers)).raise_for_status()
        case "in-a-message":
            raise ValueError(f"{key} was not accepted")
        case "for-good":
            raise Failed(f"the API does not know {key}")
        case "for-now":
            raise Retry(f"the API is busy, says {key}")
        case "by-address":
            await httpx.AsyncClient(trust_env=False).get(f"http://{key}@127.0.0.1:1/{key}")
        case "in-a-value":
            return {"code": "x", "label": "x", "size": key}
    return None
