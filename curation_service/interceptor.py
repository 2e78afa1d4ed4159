"""Maps the errors of every method of the service, unary or streaming, in one place; so too bytes that are no request.
It also bounds how long a call may take: one without a deadline could wait for ever for what another one holds. And it
counts the calls under way, for the server to stop once they have ended.

A handler raises what it means; the caller gets a `google.rpc.Status`. A cancelled call stays cancelled: swallowing
that leaks memory in grpc.aio (grpc/grpc#43360).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServerInterceptor, ServicerContext

from curation_service.rpc_errors import to_status, trailing_metadata
from shared.errors import CallTooLong, CurationError, MessageTooLarge, MessageUnreadable

Context: TypeAlias = ServicerContext[Any, Any]
CODES = {code.value[0]: code for code in grpc.StatusCode}


class CallsUnderWay:
    """Calls from when their first bytes come until the last of their answer has been sent."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.none = asyncio.Event()
        """Set while there is none."""
        self.none.set()

    def add(self, task: asyncio.Task[Any]) -> None:
        """Counts the call that this task carries out."""
        self._tasks.add(task)
        self.none.clear()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.none.set()


class ErrorInterceptor(ServerInterceptor):
    """Stands around each method of one service."""

    def __init__(self, *, service: str, message_size_max: int, call_age_max_s: float) -> None:
        self._prefix = f"/{service}/"
        self._message_size_max = message_size_max
        self._call_age_max_s = call_age_max_s
        self.under_way = CallsUnderWay()

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method, with its errors mapped; those of other services (health, reflection) as they are."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(self._prefix):
            return handler
        if (task := asyncio.current_task()) is not None:  # gRPC's, for all of this call
            self.under_way.add(task)
        read = _reader(handler.request_deserializer, size_max=self._message_size_max)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _streaming(handler.unary_stream, method), read, _unless_serialised(handler.response_serializer)
            )
        return grpc.unary_unary_rpc_method_handler(
            _unary(handler.unary_unary, method, age_max_s=self._call_age_max_s), read, handler.response_serializer
        )


def _reader(deserialise: Callable[[bytes], Any], *, size_max: int) -> Callable[[bytes], Any]:
    """Returns an error in place of a message: if raised here, it would reach the caller as UNKNOWN, without details."""

    def read(data: bytes) -> Any:
        if len(data) > size_max:
            return MessageTooLarge(size=len(data), size_max=size_max)
        try:
            return deserialise(data)
        except DecodeError:
            return MessageUnreadable()

    return read


def _unless_serialised(serialise: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """Lets bytes pass: a stream whose messages go to many callers serialises them once."""
    return lambda message: message if isinstance(message, bytes) else serialise(message)


def _unary(inner: Callable[[Any, Context], Awaitable[Any]], method: str, *, age_max_s: float) -> Any:
    async def answer(request: Any, context: Context) -> Any:
        async with _mapped_errors(context, method), _bounded(age_max_s):
            return await inner(_checked(request), context)

    return answer


def _streaming(inner: Callable[[Any, Context], AsyncGenerator[Any, None]], method: str) -> Any:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        async with _mapped_errors(context, method), aclosing(inner(_checked(request), context)) as responses:
            async for response in responses:
                yield response

    return stream


def _checked(request: Any) -> Any:
    if isinstance(request, CurationError):
        raise request
    return request


@asynccontextmanager
async def _bounded(age_max_s: float) -> AsyncIterator[None]:
    bound = asyncio.timeout(age_max_s)
    try:
        async with bound:
            yield
    except TimeoutError:
        if not bound.expired():
            raise
        raise CallTooLong(age_max_s) from None


@asynccontextmanager
async def _mapped_errors(context: Context, method: str) -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever it is, the caller gets an answer
        status = to_status(error, method=method)
        await context.abort(CODES[status.code], status.message, trailing_metadata(status))
