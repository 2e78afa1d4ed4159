"""Placeholders are numbered once for all."""

from __future__ import annotations

from shared.db.statement import Numbered


def test_each_name_has_one_number_however_often_it_is_used() -> None:
    statement = Numbered.of(b"SELECT %(second)s, %(first)s, %(second)s::text LIKE 'set %%'")
    assert statement.text == b"SELECT $1, $2, $1::text LIKE 'set %'"
    assert statement.names == ("second", "first")
