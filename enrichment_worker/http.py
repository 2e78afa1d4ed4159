"""The worker's one HTTP client: one pool for all enrichers, and nothing of one answer kept for the next request."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

CONNECT_S = 5.0
READ_S = 30.0
"""Between two pieces of an answer; an attempt as a whole is bounded by the workflow's own limit."""


def http_client(*, connections_max: int, version: str) -> httpx.AsyncClient:
    """A client for so many requests at once. It follows no redirects, and heeds no proxy variables or netrc."""
    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=connections_max, max_keepalive_connections=connections_max),
        timeout=httpx.Timeout(READ_S, connect=CONNECT_S),
        headers={"User-Agent": f"curation/{version}"},
        # A cookie set by the answer for one item would go out with the request for another.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        trust_env=False,
    )
