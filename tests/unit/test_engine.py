"""What each connection asks of its session."""

from __future__ import annotations

import pytest

from shared.db.engine import session_options

ADDRESS = "postgresql://pooler/curation?options=-csearch_path%3Dcuration"


@pytest.mark.parametrize("more", [(), ("",), ("-c statement_timeout=1 ", "")])
def test_the_options_of_a_session_end_with_no_blank_which_pgbouncer_would_refuse(more: tuple[str, ...]) -> None:
    options = session_options(ADDRESS, *more)
    assert options.startswith("-csearch_path=curation -c ")
    assert options == options.rstrip()
