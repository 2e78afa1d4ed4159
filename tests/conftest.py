"""The fixtures that every kind of test may ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from shared.db.libpq_variables import forget_servers

# A process that talks gRPC cannot fork without it crashing in the child, and PostgreSQL is started by a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Tests talk to this machine alone; what reaches others through a proxy does not reach it.
for _name in ("all_proxy", "grpc_proxy", "http_proxy", "https_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
forget_servers()

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


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """What a test sets up of the logging is taken back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
