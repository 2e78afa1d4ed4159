"""The enricher of local businesses, against a real web server on this machine."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import pytest
import pytest_asyncio

from curation_cli.http_server import Answer
from shared.outcome import RETRY_AFTER_S_MAX
from shared.testing import EnricherRun, item, run_enricher
from tests.support.websites import Website, html, redirect
from workflows.local_businesses import workflow
from workflows.local_businesses.fetch import REDIRECTS_MAX, SIZE_BYTES_MAX
from workflows.local_businesses.models import websites

LOOPBACK = "127.0.0.0/8"
PAGE = """<html><head><title> Café
 Central </title><meta name="Description" content="Coffee &amp; cake"></head>
<body><a href="mailto:Info@Cafe.example?subject=x">mail</a> or tower@cafe.example, logo@2x.png
<script>var a = "hidden@cafe.example"</script></body></html>"""


@pytest_asyncio.fixture
async def website() -> AsyncIterator[Website]:
    async with Website().serve() as website:
        yield website


async def read(address: str | None, *, allowed: str = LOOPBACK) -> EnricherRun:
    return await run_enricher(workflow, item(7, website=address), settings={"WEBSITE_ALLOWED_NETWORKS": allowed})


async def error_of(address: str, *, allowed: str = LOOPBACK) -> tuple[str, str]:
    """How it ended, and why."""
    outcome = (await read(address, allowed=allowed)).outcome
    return outcome.trigger, outcome.error or ""


async def test_a_page_becomes_a_row_of_its_findings(website: Website) -> None:
    website.pages = {
        "/": html(PAGE),
        "/robots.txt": html("User-agent: *\nSitemap: /map.xml\n", content_type="text/plain"),
        "/map.xml": html("<urlset><url><loc> http://a.example/?x=1&amp;y=2 </loc></url></urlset>"),
    }
    run = await read(website.url)
    assert run.outcome.values == {
        "business_id": 7,
        "url": website.url,
        "http_status": 200,
        "content_type": "text/html",
        "size_bytes": len(PAGE.encode()),
        "title": "Café Central",
        "description": "Coffee & cake",
        "emails": ["info@cafe.example", "tower@cafe.example"],
        "sitemap_links": ["http://a.example/?x=1&y=2"],
    }
    assert set(run.outcome.values) <= {column.name for column in websites.columns}
    assert [fraction for _, fraction in run.progress] == sorted(fraction for _, fraction in run.progress)


async def test_an_address_without_a_scheme_is_read_by_http(website: Website) -> None:
    website.pages = {"/": html("<title>x</title>")}
    assert (await read(website.url.removeprefix("http://"))).outcome.trigger == "complete"


@pytest.mark.parametrize("address", [None, "", "  "])
async def test_no_website_is_nothing_found(address: str | None) -> None:
    assert (await read(address)).outcome.trigger == "find_nothing"


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:1/",
        "localhost",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1",
        "http://100.64.0.1",
        "http://224.0.0.1",
        "http://0.0.0.0",
        "http://[fd00:ec2::254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[2001:0:7f00:1::]/",
        "http://[64:ff9b:1::a9fe:a9fe]/",
        "http://[::127.0.0.1]/",
        "http://[::]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[3fff::1]/",
        "http://192.0.0.192/opc/v2/",
        "http://168.63.129.16/",
        "http://100.100.100.200/latest/meta-data/",
        "http://255.255.255.255/",
        "http://198.18.0.1/",
        "http://127.1/",
        "http://0x7f000001/",
        "http://user@127.0.0.1/",
    ],
)
async def test_addresses_inside_are_refused(address: str) -> None:
    trigger, error = await error_of(address, allowed="")
    assert (trigger, "private network" in error) == ("fail", True)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "private network"),
        ("//[::ffff:10.0.0.1]/", "private network"),
        ("http://localhost.:1/", "Port 1 of|private network|does not exist|could not be resolved"),
        ("file:///etc/passwd", "Only http and https"),
        ("http://1.1.1.1:22/", "Port 22"),
        (":http://[", "not valid"),
    ],
)
@pytest.mark.parametrize("hops", [0, 3])
async def test_a_redirect_to_what_is_not_read_is_refused_wherever_it_comes(
    website: Website, location: str, why: str, hops: int
) -> None:
    website.pages = {f"/{n}": redirect(f"/{n + 1}") for n in range(hops)} | {f"/{hops}": redirect(location)}
    # Only this one server is allowed, not the network that it is in.
    trigger, error = await error_of(f"{website.url}/0", allowed="127.0.0.1/32")
    assert trigger in ("fail", "retry")
    assert re.search(why, error)
    assert website.paths == [f"/{n}" for n in range(hops + 1)]


async def test_a_server_that_drips_bytes_is_given_up(website: Website, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.local_businesses.fetch.FETCH_TIMEOUT_S", 0.2)
    async with dripping() as url:
        trigger, error = await error_of(url)
    assert (trigger, "did not answer in time" in error) == ("retry", True)


@asynccontextmanager
async def dripping() -> AsyncIterator[str]:
    """A server that is never silent, and never done."""
    ended, conversations = asyncio.Event(), set[asyncio.Task[None]]()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.current_task()
        assert conversation is not None
        conversations.add(conversation)
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            while not ended.is_set():
                writer.write(b".")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), 0.01)
        writer.transport.abort()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    ended.set()
    await asyncio.gather(*conversations)
    server.close()


async def test_a_page_without_a_content_type_fails_for_good(website: Website) -> None:
    website.pages = {"/": html(b"<title>x</title>", content_type="")}
    assert (await error_of(website.url))[0] == "fail"


@pytest.mark.parametrize(
    "address", ["ftp://example.com/", "file:///etc/passwd", "javascript:alert(1)", "http://", "a b"]
)
async def test_what_is_no_web_address_fails_for_good(address: str) -> None:
    assert (await error_of(address))[0] == "fail"


async def test_a_port_where_no_websites_are_is_refused() -> None:
    trigger, error = await error_of("http://1.1.1.1:22/")
    assert (trigger, "Port 22" in error) == ("fail", True)


async def test_redirects_are_followed_and_the_last_address_is_kept(website: Website) -> None:
    website.pages = {"/": redirect("/a"), "/a": redirect(f"{website.url}/b"), "/b": html("<title>there</title>")}
    values = (await read(website.url)).outcome.values
    assert values is not None
    assert (values["url"], values["title"]) == (f"{website.url}/b", "there")


async def test_redirects_without_end_fail_for_good(website: Website) -> None:
    website.pages = {"/": redirect("/")}
    trigger, error = await error_of(website.url)
    assert (trigger, "redirects more than" in error) == ("fail", True)
    assert len(website.requests) == REDIRECTS_MAX + 1


async def test_a_page_beyond_the_limit_is_refused(website: Website) -> None:
    website.pages = {"/": html(b"x" * (SIZE_BYTES_MAX + 1))}
    assert await error_of(website.url) == ("fail", "The page of 127.0.0.1 is larger than 2 MB")


async def test_a_page_that_unpacks_beyond_the_limit_is_refused(website: Website) -> None:
    website.pages = {"/": html(gzip.compress(b"x" * (50 * SIZE_BYTES_MAX)), **{"Content-Encoding": "gzip"})}
    assert await error_of(website.url) == ("fail", "The page of 127.0.0.1 is larger than 2 MB")


async def test_a_packed_page_is_unpacked(website: Website) -> None:
    website.pages = {"/": html(gzip.compress(b"<title>packed</title>"), **{"Content-Encoding": "gzip"})}
    values = (await read(website.url)).outcome.values
    assert values is not None
    assert values["title"] == "packed"


async def test_what_is_no_web_page_fails_for_good(website: Website) -> None:
    website.pages = {"/": html(b"%PDF", content_type="application/pdf")}
    assert await error_of(website.url) == ("fail", "127.0.0.1 answers with application/pdf instead of a web page")


@pytest.mark.parametrize(("status", "trigger"), [(404, "fail"), (410, "fail"), (429, "retry"), (503, "retry")])
async def test_an_error_of_the_website_is_retried_when_it_may_pass(website: Website, status: int, trigger: str) -> None:
    website.pages = {"/": Answer(HTTPStatus(status), b"", "text/html", {"Retry-After": "7"})}
    outcome = (await read(website.url)).outcome
    assert (outcome.trigger, str(status) in (outcome.error or "")) == (trigger, True)
    assert trigger == "fail" or outcome.delay_s >= 7


async def test_a_website_may_say_by_a_date_when_to_come_back(website: Website) -> None:
    headers = {"Retry-After": "Sun, 24 Nov 2126 12:00:00 GMT"}
    website.pages = {"/": Answer(HTTPStatus.SERVICE_UNAVAILABLE, b"", "text/html", headers)}
    assert (await read(website.url)).outcome.delay_s >= RETRY_AFTER_S_MAX


async def test_a_website_that_cannot_be_reached_is_retried() -> None:
    trigger, error = await error_of("http://127.0.0.1:9/")
    assert (trigger, "cannot be reached" in error) == ("retry", True)


@pytest.mark.parametrize("href", ["http://169.254.169.254/", ":http://["])
async def test_trouble_with_a_sitemap_does_not_spoil_the_page(website: Website, href: str) -> None:
    website.pages = {
        "/": html(f'<title>x</title><link rel="sitemap" href="{href}">'),
        "/sitemap.xml": html(b"x" * (SIZE_BYTES_MAX + 1)),
    }
    outcome = (await read(website.url)).outcome
    assert outcome.trigger == "complete"
    assert outcome.values is not None
    assert outcome.values["sitemap_links"] == []


async def test_a_request_carries_nothing_but_its_own_headers(website: Website) -> None:
    website.pages = {"/": html("<title>x</title>")}
    await read(website.url.replace("http://", "http://user:pass@"))
    _, headers = website.requests[0]
    assert set(headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert headers["connection"] == "close"


async def test_a_name_is_connected_to_by_the_address_that_was_checked(
    website: Website, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer_then_rebind(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if len(asked) == 1 else "169.254.169.254"]

    name_server(monkeypatch, answer_then_rebind)
    website.pages = {"/": html("<title>x</title>")}
    port = website.url.rpartition(":")[2]
    run = await read(f"http://shop.example:{port}/")
    assert run.outcome.trigger == "complete"
    assert website.requests[0][1]["host"] == f"shop.example:{port}"
    # The rebound answer was met when robots.txt and the sitemap were asked for, and refused.
    assert (asked, website.paths) == (["shop.example"] * 3, ["/"])


async def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    name_server(monkeypatch, lambda _: ["93.184.215.14", "10.0.0.1"])
    trigger, error = await error_of("http://shop.example/")
    assert (trigger, "private network" in error) == ("fail", True)


async def test_names_whose_servers_do_not_answer_hold_up_no_other(
    website: Website, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    ended = threading.Event()

    def answer(host: str) -> list[str]:
        if host == "slow.example":
            ended.wait()
        return ["127.0.0.1"]

    name_server(monkeypatch, answer)
    website.pages = {"/": html("<title>x</title>")}
    port = website.url.rpartition(":")[2]
    slow = [asyncio.create_task(read(f"http://slow.example:{port}/")) for _ in range(6)]
    try:
        run = await read(f"http://shop.example:{port}/")
    finally:
        ended.set()  # or its thread would keep the process
        await asyncio.gather(*slow)
    assert run.outcome.trigger == "complete"


def name_server(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Names have the addresses that `answer` gives."""

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer(host)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
