"""The demo's places, copied into a real PostgreSQL."""

from __future__ import annotations

import psycopg
from psycopg import sql

from curation_cli.data import import_places, place_count, place_rows

COUNT = "SELECT count(*), count(DISTINCT external_id) FROM places_staging WHERE status = 'New'"


def test_an_import_brings_every_place_in_and_reports_up_to_the_last(database_url: str) -> None:
    reports: list[int] = []
    added = import_places(database_url, on_progress=reports.append)
    assert added == place_count() >= 20_000
    assert reports == sorted(reports)
    assert reports[-1] == added
    with psycopg.connect(database_url) as connection:
        assert connection.execute(COUNT).fetchone() == (added, added)


def test_a_second_import_adds_what_is_missing_and_leaves_the_rest_alone(database_url: str) -> None:
    import_places(database_url, on_progress=lambda _: None)
    first, second = (row.id for row, _ in zip(place_rows(), range(2), strict=False))
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM places_staging WHERE id = %s", [first])
        connection.execute("UPDATE places_staging SET name = 'curated' WHERE id = %s", [second])
    assert import_places(database_url, on_progress=lambda _: None) == 1
    with psycopg.connect(database_url) as connection:
        statement = sql.SQL("SELECT name FROM places_staging WHERE id = %s")
        assert connection.execute(statement, [second]).fetchone() == ("curated",)
