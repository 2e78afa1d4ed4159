"""What is read out of a page, a robots.txt and a sitemap; strangers wrote them."""

from __future__ import annotations

import pytest

from workflows.local_businesses.page import (
    EMAILS_MAX,
    SITEMAP_LINKS_MAX,
    parse_page,
    parse_robots,
    parse_sitemap,
)


@pytest.mark.parametrize(
    ("text", "emails"),
    [
        ("write to a@b.de.", ["a@b.de"]),
        ("<b>a@b.de</b>Call us", ["a@b.de"]),
        ("A@B.de a@b.DE", ["a@b.de"]),
        ("first.last+tag@sub.b-c.co.uk", ["first.last+tag@sub.b-c.co.uk"]),
        ("logo@2x.png icon@3x.webp", []),
        ("a@b, a@, @b.de, a@-", []),
        ('<a href="mailto:x%40y.example,z@y.example?cc=no@y.example">mail</a>', ["x@y.example", "z@y.example"]),
        ('<a href="MAILTO:up@y.example">mail</a>', ["up@y.example"]),
        ("<script>a@b.de</script><style>c@d.de</style>", []),
        ("<!-- a@b.de -->", []),
        ("a&#64;b.de", ["a@b.de"]),
    ],
)
def test_mail_addresses_are_found_whole(text: str, emails: list[str]) -> None:
    assert parse_page(text.encode(), None).emails == emails


def test_mail_addresses_are_bounded_in_number() -> None:
    text = " ".join(f"a{n}@b.de" for n in range(1000))
    assert len(parse_page(text.encode(), None).emails) == EMAILS_MAX


@pytest.mark.parametrize(
    ("body", "charset", "title"),
    [
        ("<title>Café</title>".encode(), None, "Café"),
        ("<title>Café</title>".encode("latin-1"), "iso-8859-1", "Café"),
        ('<meta charset="windows-1252"><title>Café</title>'.encode("cp1252"), None, "Café"),
        (b"<title>a\x00b</title>", None, "ab"),
        (b"<title>\xff</title>", None, "�"),
        (b"<title>x</title>", "no-such-charset", "x"),
        (b"<title>one</title><p>t</p><svg><title>two</title></svg>", None, "one"),
        (b"<title>  </title>", None, None),
        (b"<p>no title", None, None),
        (b"", None, None),
    ],
)
def test_a_title_is_read_in_its_charset(body: bytes, charset: str | None, title: str | None) -> None:
    assert parse_page(body, charset).title == title


def test_an_unclosed_title_does_not_swallow_the_page_beyond_its_limit() -> None:
    page = parse_page(b"<title>" + b"x" * 100_000, None)
    assert page.title is None or len(page.title) <= 300


@pytest.mark.parametrize("piece", ["<!--", "<a ", "a@", "<a href='mailto:", "&#", "<![CDATA[", "</title", "a.b-c@d."])
def test_hostile_repetition_is_read_within_the_time_of_a_test(piece: str) -> None:
    parse_page(piece.encode() * (2 * 1024 * 1024 // len(piece)), None)


def test_robots_name_sitemaps_in_any_case() -> None:
    robots = b"User-agent: *\r\nSITEMAP: https://a.example/1.xml\nSitemap:/2.xml\nDisallow: /\nsitemap:\n"
    assert parse_robots(robots) == ["https://a.example/1.xml", "/2.xml"]


def test_a_sitemap_gives_its_web_links_each_once() -> None:
    links = "<loc>https://a.example/1</loc><loc>ftp://a.example</loc><LOC>\nhttps://a.example/2\n</LOC>"
    assert parse_sitemap((links + links).encode()) == ["https://a.example/1", "https://a.example/2"]


def test_a_sitemap_is_bounded_in_number() -> None:
    text = "".join(f"<loc>https://a.example/{n}</loc>" for n in range(1000))
    assert len(parse_sitemap(text.encode())) == SITEMAP_LINKS_MAX
