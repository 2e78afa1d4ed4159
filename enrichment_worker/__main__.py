"""`python -m enrichment_worker`: a worker with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Set as AbstractSet
from functools import partial

from enrichment_worker.app import run_worker
from enrichment_worker.settings import WorkerSettings
from shared.program import FAILED, run_program
from shared.registry import load_registry
from shared.thread import in_own_thread

LEFT_OVER_S = 1.0
"""What enrichers left behind, tasks or threads, may take so long to end."""

log = logging.getLogger("enrichment_worker")


def run(settings: WorkerSettings) -> None:
    """Runs a worker; its enrichers see the whole environment."""
    asyncio.run(_run(settings))


async def _run(settings: WorkerSettings) -> None:
    died_of, others = None, frozenset(threading.enumerate())
    try:
        await run_worker(settings, load_registry(), dict(os.environ))
    except Exception as error:  # noqa: BLE001 - raised below, unless that would never be seen
        died_of = error
    if await _is_something_left(others):
        # It would be waited for, for ever.
        log.error("ends with enrichers that do not end%s", f": {died_of}" if died_of else "")
        logging.shutdown()
        os._exit(FAILED if died_of else 0)
    if died_of is not None:
        raise died_of


async def _is_something_left(others: AbstractSet[threading.Thread]) -> bool:
    """Whether a task ignores its cancellation, or a thread does not end; `others` are the threads from before."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    ending = asyncio.create_task(asyncio.get_running_loop().shutdown_default_executor())
    joined = in_own_thread(partial(_join_threads, others), name="the last threads")
    return bool((await asyncio.wait({*tasks, ending, joined}, timeout=LEFT_OVER_S))[1])


def _join_threads(others: AbstractSet[threading.Thread]) -> None:
    for thread in set(threading.enumerate()) - others:
        if not thread.daemon:
            thread.join()


if __name__ == "__main__":
    sys.exit(run_program("enrichment_worker", WorkerSettings, run))
