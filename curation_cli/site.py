"""The small website that the demo's server shows for each place, for the second workflow to read."""

from __future__ import annotations

import re
from html import escape
from http import HTTPStatus

from curation_cli.data import PlaceRow
from curation_cli.http_server import Answer

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="description" content="{name} in {where}: opening hours, arrivals and how to find us.">
<link rel="sitemap" type="application/xml" href="sitemap.xml"></head>
<body><h1>{name}</h1><p>Write to <a href="mailto:{mailbox}?subject=Hello">us</a>,
or to the tower: tower@{domain}.</p></body></html>
"""
SITEMAP = """<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{links}</urlset>
"""
ROBOTS = Answer(HTTPStatus.OK, b"User-agent: *\nDisallow: /v1/\n", "text/plain")
PAGES = ("", "arrivals", "departures", "parking", "contact")


def render(row: PlaceRow, page: str, *, root: str) -> Answer | None:
    """A page of the place's website; None when it has no such page.

    Args:
        row: the place.
        page: the path below `root`.
        root: the website's address, with a slash at its end.
    """
    if page == "sitemap.xml":
        links = "".join(f"<url><loc>{escape(root + name)}</loc></url>" for name in PAGES)
        return Answer(HTTPStatus.OK, SITEMAP.format(links=links).encode(), "application/xml")
    if page not in PAGES:
        return None
    domain = re.sub(r"[^a-z0-9]+", "-", row.code.lower()) + ".example"
    where = ", ".join(filter(None, (row.city, row.region, row.country)))
    body = PAGE.format(name=escape(row.name), where=escape(where), mailbox=f"info@{domain}", domain=domain)
    return Answer(HTTPStatus.OK, body.encode(), "text/html; charset=utf-8")
