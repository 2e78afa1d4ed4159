"""The gRPC server as a part of the process: the service, standard health, reflection.

It reports SERVING once it is, and NOT_SERVING from the moment it is asked to stop; then streams are told to go on
elsewhere, calls under way get some seconds to end, and what is left is cancelled.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from contextlib import suppress

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from curation.v1 import curation_pb2, curation_pb2_grpc
from curation_service.interceptor import CallsUnderWay, ErrorInterceptor
from shared.errors import AddressUnavailable
from shared.lifecycle import Part

RECEIVE_FACTOR = 4
"""A message of up to this many times the limit is received and refused with details; beyond it gRPC hangs up."""
KEEPALIVE_MS = 30_000
"""A connection that was silent for so long is pinged, so that the streams of vanished clients end."""
KEEPALIVE_TIMEOUT_MS = 10_000
"""A client that has not answered a ping within so long is taken for gone."""
PING_INTERVAL_MS_MIN = 10_000
"""Clients may ping this often; gRPC's own five minutes would cut off those that keep a quiet stream alive."""
LEFT_OVER_S = 0.5
"""A server that stops waits so long when no call is under way, for calls that gRPC may be about to begin."""
GRPC_LOG = "grpc._cython.cygrpc"
"""The logger through which gRPC tells what went wrong in a call."""
SERVICE = curation_pb2.DESCRIPTOR.services_by_name["CurationService"].full_name


class Server(Part):
    """Serves one servicer on one address."""

    def __init__(
        self,
        *,
        servicer: curation_pb2_grpc.CurationServiceServicer,
        listen: str,
        message_size_max: int,
        calls_max: int,
        call_age_max_s: float,
        grace_s: float,
        draining: asyncio.Event,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        """`draining` is set when the server is asked to stop, before it waits for calls: streams end by it.

        Without `credentials` it speaks no TLS.
        """
        super().__init__()
        self._servicer = servicer
        self._listen = listen
        self._credentials = credentials
        self._grace_s = grace_s
        self._calls_max = calls_max
        self._call_age_max_s = call_age_max_s
        self._draining = draining
        self._message_size_max = message_size_max
        self._options = [
            ("grpc.max_receive_message_length", message_size_max * RECEIVE_FACTOR),
            ("grpc.max_send_message_length", message_size_max),
            ("grpc.keepalive_time_ms", KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.min_ping_interval_without_data_ms", PING_INTERVAL_MS_MIN),
            # Without it a second service on the same port starts, and gets some of the calls.
            ("grpc.so_reuseport", 0),
        ]
        self.port = 0
        """The port it listens on, once it is ready."""

    async def _run(self) -> None:
        errors = ErrorInterceptor(
            service=SERVICE, message_size_max=self._message_size_max, call_age_max_s=self._call_age_max_s
        )
        server = grpc.aio.server(
            interceptors=[errors],
            options=self._options,
            maximum_concurrent_rpcs=self._calls_max,
        )
        readiness = self._register(server)
        await asyncio.to_thread(_check_free, self._listen)
        logging.getLogger(GRPC_LOG).addFilter(tells_something)
        if self._credentials is None:
            self.port = server.add_insecure_port(self._listen)
        else:
            self.port = server.add_secure_port(self._listen, self._credentials)
        try:
            await server.start()
            for name in (health.OVERALL_HEALTH, SERVICE):
                await readiness.set(name, HealthCheckResponse.SERVING)
            self.ready()
            await self.stopping.wait()
            await readiness.enter_graceful_shutdown()
            self._draining.set()
            await self._stop(server, errors.under_way)
        finally:
            self._draining.set()
            await server.stop(None)

    async def _stop(self, server: grpc.aio.Server, under_way: CallsUnderWay) -> None:
        """Lets the calls under way end within the grace; the caller then cancels what is left.

        Two kinds of calls get a moment only. One that comes just as gRPC stops may be left with it, given to nobody,
        and gRPC would wait for its end (in one of forty stops amid calls, grpcio 1.85). And whoever watches the health
        may stay for ever.
        """
        # Never two stops at once: when its time is over, one would use what the other has freed.
        stopping = asyncio.create_task(server.stop(self._grace_s))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._grace_s):
                    await under_way.none.wait()
            await asyncio.wait({stopping}, timeout=LEFT_OVER_S)
        finally:
            stopping.cancel()
            await asyncio.wait({stopping})

    def _register(self, server: grpc.aio.Server) -> HealthServicer:
        readiness = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(readiness, server)
        curation_pb2_grpc.add_CurationServiceServicer_to_server(self._servicer, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return readiness


def tells_something(record: logging.LogRecord) -> bool:
    """Whether a record of gRPC's is kept: it logs a traceback of each watcher that vanishes amid a message."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, grpc.aio.InternalError) and "/WatchStatus]" in record.getMessage())


def _check_free(listen: str) -> None:
    """Raises `AddressUnavailable` with the system's reason: gRPC has none, and logs lines of its own."""
    host, _, port = listen.rpartition(":")
    problems: list[OSError] = []
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise AddressUnavailable(listen, error.strerror or str(error)) from error
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            problems.append(error)
    # A name may have an address of a protocol that this machine does not speak; gRPC takes the others.
    if len(problems) == len(found) or any(problem.errno == errno.EADDRINUSE for problem in problems):
        raise AddressUnavailable(listen, problems[0].strerror or str(problems[0])) from problems[0]
