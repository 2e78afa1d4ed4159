"""`python -m curation_service`: the service with settings from the environment, until SIGTERM."""

from __future__ import annotations

import asyncio
import sys

from curation_service.app import run_service
from curation_service.settings import ServiceSettings
from shared.program import run_program
from shared.registry import load_registry


def run(settings: ServiceSettings) -> None:
    """Runs the service."""
    asyncio.run(run_service(settings, load_registry()))


if __name__ == "__main__":
    sys.exit(run_program("curation_service", ServiceSettings, run))
