"""The demo's websites say what is known of a place, and nothing else."""

from __future__ import annotations

import pytest

from curation_cli import site
from curation_cli.data import place_rows


@pytest.mark.parametrize(
    ("city", "where"),
    [("Taro", b" in Taro, Choiseul, SB: "), ("", b" in Choiseul, SB: "), ("<&", b" in &lt;&amp;, Ch")],
)
def test_a_place_is_where_it_is_known_to_be(city: str, where: bytes) -> None:
    row = next(place_rows())._replace(city=city, region="Choiseul", country="SB")
    answer = site.render(row, "", root="http://localhost/")
    assert answer is not None
    assert where in answer.body
