"""Reads a local business's website: its title, its description, its mail addresses and the links of its sitemap.

A website is asked for one page, its robots.txt and a few sitemaps. Of robots.txt only `Sitemap` is read: what it
disallows is asked for all the same.
"""

from __future__ import annotations

import asyncio

import httpx

from shared.enrichment import EnrichmentError, Failed, Retry, Skip
from shared.workflow import EnrichmentContext, Item, Values
from workflows.local_businesses.addresses import Network, parse_networks
from workflows.local_businesses.fetch import Document, Fetcher
from workflows.local_businesses.page import Page, parse_page, parse_robots, parse_sitemap

PAGE_TYPES = ("text/html", "application/xhtml+xml")
SITEMAPS_READ_MAX = 3
STATUSES_TO_RETRY = frozenset({408, 425, 429})
"""Besides all from 500."""


async def enrich(item: Item, context: EnrichmentContext) -> Values | None:
    """The website's row.

    Raises:
        Skip: the business has no website.
        Failed: the website is none that may or can be read.
        Retry: the website cannot be reached at the moment.
    """
    url = _website(item)
    fetcher = Fetcher(http=context.http, allowed=_networks(context))
    # Many businesses may share a host: of those that name it two are read at once, by all workers. Hosts that it
    # redirects to or keeps sitemaps at are not counted, for who holds a key must not wait for another.
    async with context.limit(url.host or "nowhere"):
        return await _read(item, url, fetcher, context)


async def _read(item: Item, url: httpx.URL, fetcher: Fetcher, context: EnrichmentContext) -> Values:
    await context.progress("fetching the website", 0.0)
    document = await fetcher.fetch(url)
    _refuse(document)
    await context.progress("reading the page", 0.4)
    page = await asyncio.to_thread(parse_page, document.body, document.charset)
    await context.progress("reading the sitemap", 0.6)
    links = await _sitemap_links(fetcher, document.url, page)
    return {
        "business_id": item.key,
        "url": str(document.url),
        "http_status": document.status,
        "content_type": document.content_type,
        "size_bytes": len(document.body),
        "title": page.title,
        "description": page.description,
        "emails": page.emails,
        "sitemap_links": links,
    }


def _website(item: Item) -> httpx.URL:
    """The address as somebody typed it, `http://` added where it is missing."""
    typed = (item.data["website"] or "").strip()
    if not typed:
        raise Skip("The business has no website")
    try:
        return httpx.URL(typed if "://" in typed else f"http://{typed}")
    except httpx.InvalidURL as error:
        raise Failed(f"{typed[:200]!r} is no address of a website: correct it") from error


def _networks(context: EnrichmentContext) -> tuple[Network, ...]:
    try:
        return parse_networks(context.settings.get("WEBSITE_ALLOWED_NETWORKS", ""))
    except ValueError as error:
        raise Failed(f"WEBSITE_ALLOWED_NETWORKS is not a list of networks: {error}") from error


def _refuse(document: Document) -> None:
    """Raises for every answer that is no page."""
    status, host = document.status, document.url.host
    if status >= 500 or status in STATUSES_TO_RETRY:
        raise Retry(f"{host} answers HTTP {status} at the moment", document.retry_after_s)
    if not 200 <= status < 300:
        raise Failed(f"{host} has no such page (HTTP {status}): correct the website")
    if document.content_type not in PAGE_TYPES:
        raise Failed(f"{host} answers with {document.content_type[:100] or 'something unnamed'} instead of a web page")


async def _sitemap_links(fetcher: Fetcher, url: httpx.URL, page: Page) -> list[str]:
    """Links of the first sitemap that has any: those the page names, then those of robots.txt, then the usual place."""
    robots = await _read_beside(fetcher, url, "/robots.txt")
    named = [*page.sitemaps, *(parse_robots(robots) if robots else []), "/sitemap.xml"]
    for location in list(dict.fromkeys(named))[:SITEMAPS_READ_MAX]:
        body = await _read_beside(fetcher, url, location)
        if body and (links := await asyncio.to_thread(parse_sitemap, body)):
            return links
    return []


async def _read_beside(fetcher: Fetcher, url: httpx.URL, location: str) -> bytes | None:
    """A document that may be missing. Its absence, or any trouble with it, does not spoil the page that was read."""
    try:
        document = await fetcher.fetch(url.join(location))
    except (EnrichmentError, httpx.InvalidURL, ValueError):
        return None
    return document.body if document.status == httpx.codes.OK else None
