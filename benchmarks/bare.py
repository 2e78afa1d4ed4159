"""A server of grpc.aio and nothing else, in a process of its own: the least that a call or a stream can take."""

from __future__ import annotations

import asyncio
import pkgutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from benchmarks.bed import Bed
from curation.v1 import curation_pb2_grpc as pb_grpc


@asynccontextmanager
async def bare_server(servicer: str) -> AsyncIterator[Bed]:
    """Serves one, named as `package.module:Class`; the bed has no database."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bare", servicer, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Bed("", int(await process.stdout.readline()), process.pid)
    finally:
        process.terminate()
        await process.wait()


async def main(servicer: str) -> None:
    """Serves until it is ended; prints its port."""
    server = grpc.aio.server()
    pb_grpc.add_CurationServiceServicer_to_server(pkgutil.resolve_name(servicer)(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)  # noqa: T201 - told to who started it
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
