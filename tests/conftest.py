"""The fixtures that every kind of test may ask for."""

import os

# A process that talks gRPC cannot fork without it crashing in the child, and PostgreSQL is started by a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

pytest_plugins = [
    "tests.support.chaos",
    "tests.support.containers",
    "tests.support.postgres",
    "tests.support.service",
    "tests.support.worker",
    "tests.support.worker_site",
]
