"""`python -m enrichment_worker`: a worker with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from enrichment_worker.app import run_worker
from enrichment_worker.settings import WorkerSettings
from shared.errors import CurationError
from shared.registry import load_registry
from shared.telemetry import configure_logging


def main() -> int:
    """Runs the worker. Returns the exit code: 1 when it could not go on."""
    settings = WorkerSettings()  # from the environment
    configure_logging(level=settings.log_level, format=settings.log_format)
    try:
        asyncio.run(run_worker(settings, load_registry(), dict(os.environ)))
    except CurationError as error:
        logging.getLogger("enrichment_worker").error("%s: %s", error.reason, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
