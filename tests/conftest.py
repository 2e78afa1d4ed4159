"""The fixtures that every kind of test may ask for."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop
from hypothesis import HealthCheck, settings

# A process that talks gRPC cannot fork without it crashing in the child, and PostgreSQL is started by a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# How fast examples are drawn and run says more of the machine than of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "tests.support.chaos",
    "tests.support.containers",
    "tests.support.nats",
    "tests.support.postgres",
    "tests.support.service",
    "tests.support.untraced",
    "tests.support.worker",
    "tests.support.worker_site",
]

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What a worker may run on."""
    return LOOPS if item.get_closest_marker("every_loop") else {"asyncio": LOOPS["asyncio"]}


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a test sets up of the logging is taken back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
