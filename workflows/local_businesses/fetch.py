"""Fetches one document of a stranger's website: checked addresses, few redirects, limited bytes, limited time.

The request is built by hand and sent to an address, not to a name (see `addresses`): so it carries none of the
client's headers, cookies or credentials, and each redirect is judged like the first address.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from shared.enrichment import Failed, Retry
from shared.retry_after import parse_retry_after
from workflows.local_businesses.addresses import Address, Network, resolve

REDIRECTS_MAX = 5
SIZE_BYTES_MAX = 2 * 1024 * 1024
"""The most that a document may be, as sent and unpacked."""
FETCH_TIMEOUT_S = 10.0
"""For all redirects and the document together, so that a server that drips bytes ends too. The five documents of an
item stay within the 60 s of the workflow's limit."""
STEP_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
USER_AGENT = "curation/0.1 (website reader)"


@dataclass(frozen=True, slots=True)
class Document:
    """What came back, whatever its status."""

    url: httpx.URL
    """Where it was, after redirects."""
    status: int
    """The HTTP status."""
    content_type: str
    """In lower case, without parameters; empty when none was given."""
    charset: str | None
    """As the server says."""
    retry_after_s: float | None
    """As the server asks."""
    body: bytes
    """Unpacked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetcher:
    """Fetches for one item."""

    http: httpx.AsyncClient
    """The worker's client: its connections and certificates are used, nothing else of it."""
    allowed: Sequence[Network] = ()
    """Networks that may be read although they are not public."""

    async def fetch(self, url: httpx.URL) -> Document:
        """The document at `url`, or where it redirects to.

        Raises:
            Failed: the address is refused, redirects do not end, or the document is too large.
            Retry: the server cannot be reached, breaks off or is too slow.
        """
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                return await self._follow(url)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Retry(f"{url.host} did not answer in time") from error
        except httpx.TransportError as error:
            raise Retry(f"{url.host} cannot be reached ({type(error).__name__})") from error
        except (httpx.InvalidURL, ValueError) as error:  # of `join`, also of httpx, which looks where a redirect leads
            raise Failed(f"{url.host} redirects to an address that is not valid") from error

    async def _follow(self, url: httpx.URL) -> Document:
        for _ in range(REDIRECTS_MAX + 1):
            response = await self._open(url)
            try:
                if not response.has_redirect_location:
                    return await _read(url, response)
                url = url.join(response.headers["location"])
            finally:
                await response.aclose()
        raise Failed(f"{url.host} redirects more than {REDIRECTS_MAX} times")

    async def _open(self, url: httpx.URL) -> httpx.Response:
        """The answer's head, from the first address of the name that takes a connection."""
        addresses = await resolve(url, allowed=self.allowed)
        for address in addresses[:-1]:
            try:
                return await self.http.send(_request(url, address), stream=True, auth=None, follow_redirects=False)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self.http.send(_request(url, addresses[-1]), stream=True, auth=None, follow_redirects=False)


def _request(url: httpx.URL, address: Address) -> httpx.Request:
    headers = {
        "Host": url.netloc.decode("ascii"),
        "User-Agent": USER_AGENT,
        "Accept": "text/html,application/xml;q=0.9,text/plain;q=0.8,*/*;q=0.1",
        "Accept-Encoding": "gzip",
        # The pool knows a connection by address: kept open, it would serve other names under this one's certificate.
        "Connection": "close",
    }
    extensions = {"timeout": STEP_TIMEOUT.as_dict(), "sni_hostname": url.raw_host.decode("ascii")}
    return httpx.Request(
        "GET", url.copy_with(host=str(address), userinfo=b"", fragment=None), headers=headers, extensions=extensions
    )


async def _read(url: httpx.URL, response: httpx.Response) -> Document:
    raw = bytearray()
    async for chunk in response.aiter_raw():
        raw += chunk
        if len(raw) > SIZE_BYTES_MAX:
            raise _too_large(url)
    return Document(
        url=url,
        status=response.status_code,
        content_type=response.headers.get("content-type", "").partition(";")[0].strip().lower(),
        charset=response.charset_encoding,
        retry_after_s=parse_retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)),
        body=_unpack(url, bytes(raw), response.headers.get("content-encoding", "identity").strip().lower()),
    )


def _unpack(url: httpx.URL, raw: bytes, encoding: str) -> bytes:
    """The document unpacked, within the limit: httpx would unpack a bomb whole."""
    if encoding in ("identity", "") or not raw:
        return raw
    if encoding not in ("gzip", "x-gzip"):
        raise Failed(f"{url.host} sends its pages packed in a way that was not asked for ({encoding[:20]})")
    unpacker = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        body = unpacker.decompress(raw, SIZE_BYTES_MAX)
    except zlib.error as error:
        raise Retry(f"{url.host} sent a page that cannot be unpacked") from error
    if unpacker.unconsumed_tail:
        raise _too_large(url)
    return body


def _too_large(url: httpx.URL) -> Failed:
    return Failed(f"The page of {url.host} is larger than {SIZE_BYTES_MAX // 1024 // 1024} MB")
