"""`python -m enrichment_worker`: a worker with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from enrichment_worker.app import run_worker
from enrichment_worker.settings import WorkerSettings
from shared.program import FAILED, run_program
from shared.registry import load_registry

LEFT_OVER_S = 1.0
"""For so long may what enrichers left behind take to end."""

log = logging.getLogger("enrichment_worker")


def run(settings: WorkerSettings) -> None:
    """Runs a worker; its enrichers see the whole environment."""
    asyncio.run(_run(settings))


async def _run(settings: WorkerSettings) -> None:
    died_of = None
    try:
        await run_worker(settings, load_registry(), dict(os.environ))
    except Exception as error:  # noqa: BLE001 - raised below, unless that would never be seen
        died_of = error
    if await _is_something_left():
        # asyncio would wait for it for ever.
        log.error("ends with enrichers that do not end%s", f": {died_of}" if died_of else "")
        logging.shutdown()
        os._exit(FAILED if died_of else 0)
    if died_of is not None:
        raise died_of


async def _is_something_left() -> bool:
    """Whether a task does not heed its cancellation."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    return bool(left and (await asyncio.wait(left, timeout=LEFT_OVER_S))[1])


if __name__ == "__main__":
    sys.exit(run_program("enrichment_worker", WorkerSettings, run))
