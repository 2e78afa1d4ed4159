"""A service that answers at once and needs no database: what is tried is what gRPC does around it."""

from __future__ import annotations

import asyncio

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from curation_service.server import Server


class Quick(pb_grpc.CurationServiceServicer):
    """Answers two of the calls, with nothing."""

    async def ListWorkflows(self, request: object, context: object) -> pb.ListWorkflowsResponse:  # noqa: N802
        return pb.ListWorkflowsResponse()

    async def ListBatches(self, request: object, context: object) -> pb.ListBatchesResponse:  # noqa: N802
        return pb.ListBatchesResponse()


def quick_server(listen: str = "127.0.0.1:0") -> Server:
    """Such a service, to be entered."""
    return Server(
        servicer=Quick(),  # type: ignore[abstract]
        listen=listen,
        message_size_max=1_000_000,
        calls_max=100,
        call_age_max_s=60,
        grace_s=25,
        draining=asyncio.Event(),
    )
