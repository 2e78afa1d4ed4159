"""A resume token gives back its position in its own log, and nothing else is taken for one."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.token import decode_token, encode_token
from shared.errors import TokenInvalid

LOG = UUID("6f1c2a34-0000-4000-8000-00000000000a")
OTHER_LOG = UUID("7f1c2a34-0000-4000-8000-00000000000a")
positions = st.integers(0, 2**63 - 1)


@given(log=st.uuids(), position=positions)
def test_a_token_gives_back_its_position(log: UUID, position: int) -> None:
    assert decode_token(encode_token(log, position), log) == position


@given(position=positions)
def test_a_token_needs_no_quoting_in_a_url(position: int) -> None:
    assert encode_token(LOG, position).replace("-", "").replace("_", "").isalnum()


@given(position=positions)
def test_a_token_of_another_log_is_refused_and_says_so(position: int) -> None:
    with pytest.raises(TokenInvalid, match="another database"):
        decode_token(encode_token(LOG, position), OTHER_LOG)


@pytest.mark.parametrize("token", ["", "=", "A", "AAAA", "no token", "é", "\0", "A" * 28, "_" * 28, "A" * 10_000])
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(TokenInvalid):
        decode_token(token, LOG)


@given(text=st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(TokenInvalid):
        decode_token(text, LOG)


@given(position=positions, data=st.data())
def test_a_changed_token_is_refused(position: int, data: st.DataObject) -> None:
    token = encode_token(LOG, position)
    at = data.draw(st.integers(0, len(token) - 1))
    sign = data.draw(st.sampled_from("A_-*= é").filter(lambda sign: sign != token[at]))
    for wrong in (token[:at] + sign + token[at + 1 :], token[:at], token + "A"):
        with pytest.raises(TokenInvalid):
            decode_token(wrong, LOG)


def test_a_position_before_the_log_is_refused() -> None:
    with pytest.raises(TokenInvalid):
        decode_token(encode_token(LOG, -1), LOG)
