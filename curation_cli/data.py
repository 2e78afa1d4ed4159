"""Brings the demo's places in: some 28,000 airports from a package, so that no network is needed.

Keys are derived from the airport's code: an import can be repeated, and leaves the rows that are there alone. The
data set is read row by row and copied as it is read, so memory does not grow with it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import IO, NamedTuple

import psycopg
from psycopg import sql

from workflows.places.models import places_staging

NAMESPACE = uuid.UUID("5f3b1c1e-6a0c-5d55-9a5e-2f6a3a4f9d10")
REPORT_ROWS = 1_000
"""Rows between two reports of the progress."""


class PlaceRow(NamedTuple):
    """One place of the data set, by column of `places_staging`."""

    id: uuid.UUID
    external_id: str
    code: str
    name: str
    city: str
    region: str
    country: str
    latitude: float
    longitude: float
    time_zone: str


def place_rows() -> Iterator[PlaceRow]:
    """The places of the data set, one by one."""
    with _data_set() as lines:
        for airport in csv.DictReader(lines):
            yield PlaceRow(
                id=uuid.uuid5(NAMESPACE, airport["icao"]),
                external_id=_external_id(airport["icao"]),
                code=airport["icao"],
                name=airport["name"],
                city=airport["city"],
                region=airport["subd"],
                country=airport["country"],
                latitude=float(airport["lat"]),
                longitude=float(airport["lon"]),
                time_zone=airport["tz"],
            )


def place_count() -> int:
    """How many places the data set has."""
    with _data_set() as lines:
        return sum(1 for _ in csv.reader(lines)) - 1


STAGE = "CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
COPY = "COPY incoming ({columns}) FROM STDIN"
# Of rows that are there already none is touched: their status is the curators'.
MERGE = "INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming ON CONFLICT DO NOTHING"


def import_places(url: str, *, on_progress: Callable[[int], None]) -> int:
    """Copies the places into `places_staging`; returns how many were new.

    Args:
        url: a libpq address.
        on_progress: called now and then with the number of rows sent so far.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, PlaceRow._fields))
    names = {"columns": columns, "table": sql.Identifier(places_staging.name)}
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL(STAGE).format(**names))
        count = 0
        with cursor.copy(sql.SQL(COPY).format(**names)) as copy:
            for count, row in enumerate(place_rows(), 1):
                copy.write_row(row)
                if count % REPORT_ROWS == 0:
                    on_progress(count)
        on_progress(count)
        cursor.execute(sql.SQL(MERGE).format(**names))
        return cursor.rowcount


def _data_set() -> IO[str]:
    try:
        return (files("airportsdata") / "airports.csv").open(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise ValueError("the demo needs its data set: pip install 'curation[demo]'") from error


def _external_id(code: str) -> str:
    """An id that looks like one of Google's, the same for a code each time."""
    digest = hashlib.sha256(code.encode()).digest()[:17]
    return "ChIJ" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
