"""The worker's one HTTP client: one pool for all enrichers, and nothing of one answer kept for the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

CONNECT_S = 5.0
READ_S = 30.0
"""Between two pieces of an answer; an attempt as a whole is bounded by the workflow's own limit."""
POOL_SIZE = 8
"""Connections of one pool. httpcore looks at all connections of a pool for each request that begins or ends: 50 in one
pool cost 5.0 ms of processor time per request (200 requests/s), in six pools 0.8 ms (1,200 requests/s)."""


def http_client(*, connections_max: int, version: str) -> httpx.AsyncClient:
    """A client for so many requests at once. It follows no redirects, and heeds no proxy variables or netrc."""
    return SharedClient(
        transport=SpreadTransport(connections_max=connections_max),
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        headers={"User-Agent": f"curation/{version}"},
        # A cookie set by the answer for one item would go out with the request for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    )


class SharedClient(httpx.AsyncClient):
    """Closed by leaving it, by nothing else."""

    async def aclose(self) -> None:
        """Raises `RuntimeError`: an enricher may take it for its duty, but all other items' requests would fail."""
        raise RuntimeError("the worker's HTTP client is for all items, and not to be closed")


class SpreadTransport(httpx.AsyncBaseTransport):
    """Spreads requests over several small pools, the least busy first; together they have `connections_max`."""

    def __init__(self, *, connections_max: int) -> None:
        count = max(1, connections_max // POOL_SIZE)
        sizes = [connections_max // count + (n < connections_max % count) for n in range(count)]
        self._pools = [_Pool(size) for size in sizes]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends it through the pool that is least busy for its size."""
        return await min(self._pools, key=lambda pool: pool.load).send(request)

    async def aclose(self) -> None:
        """Closes every connection."""
        for pool in self._pools:
            await pool.transport.aclose()


class _Pool:
    def __init__(self, size: int) -> None:
        limits = httpx.Limits(max_connections=size, max_keepalive_connections=size)
        self.transport = httpx.AsyncHTTPTransport(limits=limits, trust_env=False)
        self._size, self._requests = size, 0

    @property
    def load(self) -> float:
        return self._requests / self._size

    async def send(self, request: httpx.Request) -> httpx.Response:
        self._requests += 1
        try:
            response = await self.transport.handle_async_request(request)
        except BaseException:
            self.leave()
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Stream(response.stream, self)
        return response

    def leave(self) -> None:
        self._requests -= 1


class _Stream(httpx.AsyncByteStream):
    """An answer's body, which has its connection until it is closed."""

    def __init__(self, body: httpx.AsyncByteStream, pool: _Pool) -> None:
        self._body, self._pool = body, pool
        self._open, self._loop = True, asyncio.get_running_loop()

    def __del__(self) -> None:
        # Its enricher has left it open. This may run in any thread.
        if self._open and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.create_task, self.aclose())

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            yield piece

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._pool.leave()
        await self._body.aclose()
