"""`python -m curation_service`: the service with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import sys

from curation_service.app import run_service
from curation_service.settings import ServiceSettings
from shared.errors import CurationError
from shared.registry import load_registry
from shared.telemetry import configure_logging


def main() -> int:
    """Runs the service. Returns the exit code: 1 when it could not go on."""
    settings = ServiceSettings()  # from the environment
    configure_logging(level=settings.log_level, format=settings.log_format)
    try:
        asyncio.run(run_service(settings, load_registry()))
    except CurationError as error:
        logging.getLogger("curation_service").error("%s: %s", error.reason, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
