"""`python -m enrichment_worker`: a worker with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import sys

from enrichment_worker.app import run_worker
from enrichment_worker.settings import WorkerSettings
from shared.program import run_program
from shared.registry import load_registry


def run(settings: WorkerSettings) -> None:
    """Runs a worker; its enrichers see the whole environment."""
    asyncio.run(run_worker(settings, load_registry(), dict(os.environ)))


if __name__ == "__main__":
    sys.exit(run_program("enrichment_worker", WorkerSettings, run))
