"""What is kept for the next who asks is bounded by its size, and what was asked for last stays."""

from __future__ import annotations

from curation_service.kept import Kept


def test_what_was_not_asked_for_the_longest_is_given_up_for_what_is_new() -> None:
    kept = Kept[str, str](10, len)
    for key in "abc":
        kept.keep(key, key * 3)
    assert (kept.get("a"), kept.size) == ("aaa", 9)
    kept.keep("d", "dddd")
    assert ([kept.get(key) for key in "abcd"], kept.size) == (["aaa", None, "ccc", "dddd"], 10)


def test_what_is_too_large_is_not_kept_and_the_size_stays_right() -> None:
    kept = Kept[str, str](10, len)
    kept.keep("a", "aaa")
    kept.keep("b", "b" * 11)
    assert ([kept.get(key) for key in "ab"], kept.size) == ([None, None], 0)
    kept.keep("b", "b")
    assert (kept.get("b"), kept.size) == ("b", 1)
