"""What is measured, a program for each row: `python -m benchmarks.all`."""

import os

# A process that talks gRPC cannot fork without it crashing in the child at times, and PostgreSQL is started by a fork.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
