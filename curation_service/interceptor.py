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
    """Counts calls from when their method begins until the last of their answer has been sent."""

    def __init__(self) -> None:
        self._count = 0
        self.none = asyncio.Event()
        """Set while there is none."""
        self.none.set()

    def add(self, context: Context) -> None:
        """Counts one more."""
        self._count += 1
        self.none.clear()
        context.add_done_callback(self._ended)  # type: ignore[arg-type] # any function will do

    def _ended(self, _: Context) -> None:
        self._count -= 1
        if not self._count:
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
        read = _reader(handler.request_deserializer, size_max=self._message_size_max)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(handler.unary_stream, method), read, _unless_serialised(handler.response_serializer)
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(handler.unary_unary, method), read, handler.response_serializer
        )

    def _unary(self, inner: Callable[[Any, Context], Awaitable[Any]], method: str) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            self.under_way.add(context)
            async with _mapped_errors(context, method), _bounded(self._call_age_max_s):
                return await inner(_checked(request), context)

        return answer

    def _streaming(self, inner: Callable[[Any, Context], AsyncGenerator[Any, None]], method: str) -> Any:
        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            self.under_way.add(context)
            async with _mapped_errors(context, method), aclosing(inner(_checked(request), context)) as responses:
                async for response in responses:
                    yield response

        return stream


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
