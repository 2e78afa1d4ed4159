"""A cache is bounded by the size of its values, and the most recently used ones stay."""

from __future__ import annotations

from curation_service.cache import LruCache


def test_the_least_recently_used_value_goes_for_a_new_one() -> None:
    cache = LruCache[str, str](10, len)
    for key in "abc":
        cache.put(key, key * 3)
    assert (cache.get("a"), cache.size) == ("aaa", 9)
    cache.put("d", "dddd")
    assert ([cache.get(key) for key in "abcd"], cache.size) == (["aaa", None, "ccc", "dddd"], 10)


def test_a_value_that_is_too_large_is_alone_until_the_next() -> None:
    cache = LruCache[str, str](10, len)
    cache.put("a", "aaa")
    cache.put("b", "b" * 11)
    assert ([cache.get(key) for key in "ab"], cache.size) == ([None, "b" * 11], 11)
    cache.put("c", "c")
    assert ([cache.get(key) for key in "bc"], cache.size) == ([None, "c"], 1)


def test_a_value_that_is_replaced_is_counted_once() -> None:
    cache = LruCache[str, str](10, len)
    cache.put("a", "aaaaaaaa")
    cache.put("a", "aaa")
    assert (cache.get("a"), cache.size) == ("aaa", 3)
