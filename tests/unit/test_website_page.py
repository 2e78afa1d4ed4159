"""What is read out of a page, a robots.txt and a sitemap; strangers wrote them."""

from __future__ import annotations

import pytest

from workflows.local_businesses.fetch import SIZE_BYTES_MAX
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
        (b"<title>x</title>", "iso-8859-12", "x"),
        (b"<title>x</title>", "a\x00\u0663", "x"),
        ("<title>Café</title>".encode("utf-16"), None, "Café"),
        ("<title>Café</title>".encode("utf-16"), "iso-8859-1", "Café"),
        ("<title>Café</title>".encode("utf-16-be"), "UTF-16BE", "Café"),
        ("<title>Café</title>".encode("utf-8-sig"), "windows-1252", "Café"),
        ("<title>喫茶</title>".encode("shift_jis"), "Shift_JIS", "喫茶"),
        ('<meta charset="GB2312"><title>茶馆</title>'.encode("gb2312"), None, "茶馆"),
        (b"<meta charset=utf-16><title>x</title>", None, "x"),
        (b"<title>one</title><p>t</p><svg><title>two</title></svg>", None, "one"),
        (b"<title>  </title>", None, None),
        (b"<p>no title", None, None),
        (b"", None, None),
    ],
)
def test_a_title_is_read_in_its_charset(body: bytes, charset: str | None, title: str | None) -> None:
    assert parse_page(body, charset).title == title


@pytest.mark.parametrize("codec", ["idna", "undefined", "unicode_escape", "utf-7", "hex", "zlib", "rot13"])
def test_a_codec_that_is_none_of_the_web_is_not_used(codec: str) -> None:
    body = r"<title>Café +2AA- \ud800</title>".encode()
    assert parse_page(body, codec) == parse_page(f"<meta charset={codec}>".encode() + body, None)
    assert parse_page(body, codec).title == r"Café +2AA- \ud800"


def test_what_the_parser_cannot_read_ends_the_page_there() -> None:
    page = parse_page(b"<title>x</title>a@b.de <![ x ]> c@d.de", None)
    assert (page.title, page.emails[:1]) == ("x", ["a@b.de"])


def test_an_unclosed_title_does_not_swallow_the_page_beyond_its_limit() -> None:
    page = parse_page(b"<title>" + b"x" * 100_000, None)
    assert page.title is None or len(page.title) <= 300


@pytest.mark.untraced
@pytest.mark.parametrize("piece", ["<!--", "<a ", "a@", "<a href='mailto:", "&#", "<![CDATA[", "</title", "a.b-c@d."])
def test_hostile_repetition_is_read_within_the_time_of_a_test(piece: str) -> None:
    parse_page(repeated(piece), None)


def test_no_codec_makes_a_page_take_long() -> None:
    parse_page(repeated("a"), "punycode")


@pytest.mark.untraced
@pytest.mark.parametrize(
    "piece",
    [
        "<loc>",
        "<loc> x",
        pytest.param("<loc>" + " " * 2205, id="<loc>, then space"),
        pytest.param("<loc>" + "x" * 2205, id="<loc>, then a link without end"),
        "sitemap:",
        "\n",
        " ",
    ],
)
def test_hostile_sitemaps_and_robots_are_read_within_the_time_of_a_test(piece: str) -> None:
    parse_sitemap(repeated(piece))
    parse_robots(repeated(piece))


def repeated(piece: str) -> bytes:
    """As large as a document may be."""
    return (piece * (SIZE_BYTES_MAX // len(piece))).encode()


def test_robots_name_sitemaps_in_any_case() -> None:
    robots = b"User-agent: *\r\nSITEMAP: https://a.example/1.xml\nSitemap:/2.xml\nDisallow: /\nsitemap:\n"
    assert parse_robots(robots) == ["https://a.example/1.xml", "/2.xml"]


def test_a_sitemap_gives_its_web_links_each_once() -> None:
    links = "<loc>https://a.example/1</loc><loc>ftp://a.example</loc><LOC>\nhttps://a.example/2\n</LOC>"
    assert parse_sitemap((links + links).encode()) == ["https://a.example/1", "https://a.example/2"]


def test_a_sitemap_is_bounded_in_number() -> None:
    text = "".join(f"<loc>https://a.example/{n}</loc>" for n in range(1000))
    assert len(parse_sitemap(text.encode())) == SITEMAP_LINKS_MAX
