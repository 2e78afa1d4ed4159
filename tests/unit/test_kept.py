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


def test_what_is_too_large_is_kept_alone_until_the_next() -> None:
    kept = Kept[str, str](10, len)
    kept.keep("a", "aaa")
    kept.keep("b", "b" * 11)
    assert ([kept.get(key) for key in "ab"], kept.size) == ([None, "b" * 11], 11)
    kept.keep("c", "c")
    assert ([kept.get(key) for key in "bc"], kept.size) == ([None, "c"], 1)


def test_what_is_kept_twice_is_counted_once() -> None:
    kept = Kept[str, str](10, len)
    kept.keep("a", "aaaaaaaa")
    kept.keep("a", "aaa")
    assert (kept.get("a"), kept.size) == ("aaa", 3)
