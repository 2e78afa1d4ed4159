"""Reads a page, a robots.txt and a sitemap: text in, findings out, no I/O.

Everything read here was written by strangers: every pattern is bounded, every list has a limit, and no parser
expands entities.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import islice
from urllib.parse import unquote

TITLE_CHARS_MAX = 300
DESCRIPTION_CHARS_MAX = 2_000
LINK_CHARS_MAX = 2_000
EMAILS_MAX = 50
SITEMAP_LINKS_MAX = 100
SITEMAPS_MAX = 20
"""How many sitemaps a page or robots.txt may name."""

EMAIL = re.compile(
    r"(?<![\w.%+-])[A-Za-z0-9][\w.%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])", re.ASCII
)
FILE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".css", ".js")
"""`logo@2x.png` is no mail address."""
CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([\w-]{1,40})", re.IGNORECASE)
ENCODING = re.compile(
    r"utf-?8|(?:us-)?ascii|latin-?1|iso-?8859-\d{1,2}|(?:windows-|cp)125\d|koi8-[ru]"
    r"|shift[_-]jis|euc-(?:jp|kr)|gb(?:k|2312|18030)|big5",
    re.IGNORECASE | re.ASCII,
)
"""What pages may say they are in. Python knows more: some take time quadratic in the page, some are no text at all."""
UTF_16 = re.compile(r"utf-16(?:le|be)?", re.IGNORECASE | re.ASCII)
"""Only the server may name this one: a page written in it could not say so in ASCII."""
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
LOCATION = re.compile(r"<loc>([^<]{1,2200})</loc>", re.IGNORECASE)
"""A link of 2,000 characters, and space around it. One repetition alone: several would try each split between them."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says of its owner."""

    title: str | None
    """Its title, white space folded."""
    description: str | None
    """Its meta description."""
    emails: list[str]
    """Mail addresses of links and text, in lower case, in order, each once."""
    sitemaps: list[str]
    """Sitemaps it links to, as written."""


def parse_page(body: bytes, charset: str | None) -> Page:
    """Reads a page. `charset` is the server's word, which a byte order mark outweighs; without both the page's own."""
    reader = _Reader()
    # Never closed: closing gives each unfinished tag back as text, and in many Python releases takes time quadratic in
    # their number (CVE-2025-6069: minutes for 2 MB of "<!--"). What follows an unfinished tag is left unread instead.
    with suppress(AssertionError):  # how Python 3.11 meets `<![ x ]>`: kept is what was read until then
        reader.feed(_decode(body, charset))
    return Page(
        title=_fold("".join(reader.title), TITLE_CHARS_MAX),
        description=_fold(reader.description, DESCRIPTION_CHARS_MAX),
        emails=_unique(_emails(reader), EMAILS_MAX),
        sitemaps=_unique(reader.sitemaps, SITEMAPS_MAX),
    )


def parse_robots(body: bytes) -> list[str]:
    """The sitemaps that a robots.txt names."""
    lines = (line.partition(":") for line in _decode(body, None).splitlines())
    return _unique((value.strip() for name, _, value in lines if name.strip().lower() == "sitemap"), SITEMAPS_MAX)


def parse_sitemap(body: bytes) -> list[str]:
    """The links of a sitemap, or of a sitemap index; the first `SITEMAP_LINKS_MAX`."""
    text = _decode(body, None)
    links = (_link(match[1]) for match in LOCATION.finditer(text))
    return _unique((link for link in links if link.startswith(("http://", "https://"))), SITEMAP_LINKS_MAX)


@dataclass
class _Reader(HTMLParser):
    """Collects while the parser walks through a page."""

    title: list[str] = field(default_factory=list)
    description: str = ""
    mailtos: list[str] = field(default_factory=list)
    sitemaps: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._in: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes what an element's attributes say."""
        given = {name: value or "" for name, value in attrs}
        match tag:
            case "title" | "script" | "style":
                self._in = tag
            case "meta" if given.get("name", "").lower() == "description" and not self.description:
                self.description = given.get("content", "")
            case "a" if given.get("href", "").lower().startswith("mailto:"):
                self.mailtos.append(given["href"][len("mailto:") :])
            case "link" if "sitemap" in given.get("rel", "").lower().split():
                self.sitemaps.append(given.get("href", "")[:LINK_CHARS_MAX])

    def handle_endtag(self, tag: str) -> None:
        """Leaves what `handle_starttag` entered."""
        if tag == self._in:
            self._in = None

    def handle_data(self, data: str) -> None:
        """Keeps text, by where it stands. Only the first title counts: drawings have titles too."""
        if self._in == "title" and not self.texts:
            self.title.append(data)
        elif self._in is None and data.strip():
            self.texts.append(data)


def _emails(reader: _Reader) -> Iterator[str]:
    for mailto in reader.mailtos:
        addresses = unquote(mailto.partition("?")[0])
        yield from (match[0].lower() for match in EMAIL.finditer(addresses))
    # A line end between texts of neighbouring elements keeps `a@b.de` and the word behind it apart.
    for match in EMAIL.finditer("\n".join(reader.texts)):
        if not match[0].lower().endswith(FILE_ENDINGS):
            yield match[0].lower()


def _decode(body: bytes, charset: str | None) -> str:
    """Text without its byte order mark, and without NUL, which PostgreSQL does not store."""
    try:
        text = body.decode(_encoding(body, charset), errors="replace")
    except LookupError:  # one that has no such part, e.g. ISO-8859-12
        text = body.decode(errors="replace")
    return text.removeprefix("\ufeff").replace("\x00", "")


def _encoding(body: bytes, charset: str | None) -> str:
    """What the byte order mark says, or the server, or the page, if it is an encoding of the web; else UTF-8."""
    for mark, encoding in MARKS.items():
        if body.startswith(mark):
            return encoding
    if charset is None:
        named = CHARSET.search(body[:2048])
        charset = named[1].decode("ascii") if named else ""
    elif UTF_16.fullmatch(charset):
        return charset
    return charset if ENCODING.fullmatch(charset) else "utf-8"


def _link(text: str) -> str:
    """A link of a sitemap; `&amp;` is the one entity that links need."""
    return text.strip().replace("&amp;", "&")


def _fold(text: str, chars_max: int) -> str | None:
    return " ".join(text.split())[:chars_max] or None


def _unique(values: Iterable[str], count_max: int) -> list[str]:
    """The values in order, each once, `count_max` at most; empty ones left out."""
    return list(islice(dict.fromkeys(value for value in values if value), count_max))
