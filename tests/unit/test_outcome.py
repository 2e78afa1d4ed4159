"""How an attempt's end is decided: one table, and what must never show in a message."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from shared.enrichment import Failed, Retry, Skip, TurnedAway
from shared.outcome import ERROR_SIZE_MAX, RETRY_AFTER_S_MAX, AttemptOutcome, Trigger, asked_s, classify, clean
from shared.secrets import Secrets
from shared.workflow import Limits

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
LIMITS = Limits(attempts_max=3, backoff_s=2.0, backoff_max_s=10.0)
REQUEST = httpx.Request("GET", "https://user:pass@api.example/v1/places/7?key=s3cret")


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    response = httpx.Response(
        status, request=REQUEST, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def outcome(error: Exception, attempt: int = 1, random: float = 0.5) -> AttemptOutcome:
    return classify(error, attempt, LIMITS, random=lambda: random, now=NOW, api="places API")


@pytest.mark.parametrize(
    ("error", "trigger", "message"),
    [
        (answered(503), "retry", "places API answered 503 Service Unavailable"),
        (answered(500), "retry", "places API answered 500 Internal Server Error"),
        (answered(599), "retry", "places API answered 599"),
        (answered(408), "retry", "places API answered 408 Request Timeout"),
        (answered(425), "retry", "places API answered 425 Too Early"),
        (answered(429), "retry", "places API answered 429 Too Many Requests"),
        (answered(404), "fail", "places API answered 404 Not Found"),
        (answered(403), "fail", "places API answered 403 Forbidden"),
        (answered(302), "fail", "places API answered 302 Found"),
        (TimeoutError(), "retry", "places API did not answer in time"),
        (httpx.ReadTimeout("", request=REQUEST), "retry", "places API did not answer in time"),
        (httpx.PoolTimeout("", request=REQUEST), "retry", "places API did not answer in time"),
        (httpx.ConnectError("refused", request=REQUEST), "retry", "places API cannot be reached"),
        (httpx.ReadError("", request=REQUEST), "retry", "the connection to places API broke"),
        (httpx.RemoteProtocolError("", request=REQUEST), "retry", "places API sent a broken answer"),
        (ConnectionResetError(), "retry", "the connection to places API broke"),
        (OSError(24, "too many open files"), "retry", "places API cannot be reached (OSError)"),
        (httpx.UnsupportedProtocol("gopher"), "fail", "the address of places API is wrong"),
        (httpx.InvalidURL("no"), "fail", "the address of places API is wrong"),
        (httpx.TooManyRedirects("", request=REQUEST), "fail", "places API redirects in a circle"),
        (KeyError("name"), "fail", "the answer of places API could not be read: 'name' is missing"),
        (ValueError("no number"), "fail", "the answer of places API could not be read: ValueError: no number"),
        (TypeError("None"), "fail", "the answer of places API could not be read: TypeError: None"),
        (Retry("quota used up"), "retry", "quota used up"),
        (Failed("closed for good"), "fail", "closed for good"),
        (Skip("unknown"), "find_nothing", None),
    ],
)
def test_what_an_enricher_raises_decides_what_becomes_of_the_item(
    error: Exception, trigger: Trigger, message: str | None
) -> None:
    got = outcome(error)
    assert (got.trigger, got.error, got.values) == (trigger, message, None)


@pytest.mark.parametrize(
    ("attempt", "random", "delay_s"), [(1, 1.0, 2.0), (2, 1.0, 4.0), (2, 0.25, 1.0), (1, 0.0, 0.0)]
)
def test_backoff_doubles_and_is_fully_jittered(attempt: int, random: float, delay_s: float) -> None:
    assert outcome(TimeoutError(), attempt, random).delay_s == delay_s


def test_backoff_has_a_longest_wait_however_many_attempts_there_were() -> None:
    many = Limits(attempts_max=10_000, backoff_s=2.0, backoff_max_s=10.0)
    got = classify(TimeoutError(), 5_000, many, random=lambda: 1.0, now=NOW, api="API")
    assert got.delay_s == many.backoff_max_s


@pytest.mark.parametrize(
    ("header", "delay_s"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("Tue, 24 Nov 2026 12:01:30 GMT", 90.0),
        ("Tue, 24 Nov 2026 11:00:00 GMT", 0.0),
        ("999999999999999999999999", RETRY_AFTER_S_MAX),
        ("Fri, 24 Nov 2126 12:00:00 GMT", RETRY_AFTER_S_MAX),
    ],
)
def test_retry_after_is_obeyed_within_a_bound(header: str, delay_s: float) -> None:
    assert outcome(answered(429, retry_after=header), random=0.0).delay_s == delay_s


@pytest.mark.parametrize("error", [answered(429, retry_after="9999999999"), Retry("later", 1e9)])
def test_nobody_is_held_for_longer_than_the_bound(error: Exception) -> None:
    assert asked_s(error, NOW) == RETRY_AFTER_S_MAX


@pytest.mark.parametrize("header", ["soon", "-5", "1.5", "٣", "Tue, 99 Nov 2026 99:99:99 GMT", "", "²"])
def test_a_retry_after_that_says_nothing_leaves_the_backoff(header: str) -> None:
    error = answered(503)
    error.response.headers = httpx.Headers([(b"retry-after", header.encode())])
    assert outcome(error, random=1.0).delay_s == LIMITS.backoff_s


def test_items_told_to_come_back_at_one_time_do_not_all_come_at_once() -> None:
    assert outcome(answered(429, retry_after="7"), random=1.0).delay_s == 7.0 + LIMITS.backoff_s


@pytest.mark.parametrize(
    ("after_s", "delay_s"), [(30.0, 30.0), (-1.0, 0.0), (1e9, RETRY_AFTER_S_MAX), (float("nan"), 0.0)]
)
def test_an_enricher_names_its_own_wait_within_the_same_bound(after_s: float, delay_s: float) -> None:
    assert outcome(Retry("later", after_s), random=0.0).delay_s == delay_s


@pytest.mark.parametrize(
    ("after_s", "delay_s"),
    [(30.0, 30.0), (-1.0, 0.0), (math.inf, RETRY_AFTER_S_MAX), (math.nan, LIMITS.backoff_s), (None, LIMITS.backoff_s)],
)
def test_who_is_turned_away_comes_back_within_the_same_bound(after_s: Any, delay_s: float) -> None:
    assert outcome(TurnedAway("later", after_s)).delay_s == delay_s


@pytest.mark.parametrize("error", [httpx.HTTPStatusError("", request=None, response=None), Retry.__new__(Retry)])  # type: ignore[arg-type]
def test_an_error_that_lacks_what_its_class_has_asks_for_nothing(error: Exception) -> None:
    assert asked_s(error, NOW) is None


def test_the_last_attempt_fails_and_says_how_many_there_were() -> None:
    got = outcome(answered(503), attempt=3)
    assert (got.trigger, got.error) == (
        "fail",
        "places API answered 503 Service Unavailable (gave up after 3 attempts)",
    )


def test_of_several_errors_at_once_one_that_cannot_pass_decides() -> None:
    assert outcome(ExceptionGroup("", [TimeoutError(), KeyError("name")])).trigger == "fail"
    assert outcome(ExceptionGroup("", [TimeoutError(), Retry("later", 30.0)]), random=0.0).delay_s == 30.0
    assert outcome(ExceptionGroup("", [ExceptionGroup("", [Skip("none")])])).trigger == "find_nothing"


def test_what_one_of_several_errors_asks_of_all_workers_holds_though_another_decides() -> None:
    both = outcome(ExceptionGroup("", [answered(404), answered(429, retry_after="30")]))
    assert (both.trigger, both.hold_s) == ("fail", 30.0)


@pytest.mark.parametrize(
    "message",
    [
        "GET https://api.example/v1?key=s3cret failed",
        "GET https://me:s3cret@api.example/v1 failed",
        "GET https://me:p@s3cret@api.example/v1#s3cret failed",
        "postgresql://me:s3cret@db/x",
        "refused: Authorization: Bearer s3cret",
        "refused: {'X-Goog-Api-Key': 's3cret'}",
        "api_key=s3cret was not accepted",
        "access_token = s3cret",
        "password: s3cret",
        "sent bearer s3cret-and-more",
    ],
)
def test_no_secret_reaches_a_curator(message: str) -> None:
    for error in (Failed(message), Retry(message), ValueError(message)):
        assert "s3cret" not in (outcome(error).error or "")


def test_no_part_of_a_secret_is_left_where_a_message_is_cut() -> None:
    message = "x" * (ERROR_SIZE_MAX - 8) + " s3cret-and-more"
    assert "s3" not in clean(message, Secrets(["s3cret-and-more"]))


def test_the_address_without_its_secrets_stays_readable() -> None:
    assert clean("GET https://me:pw@api.example/v1/places?key=1 failed") == "GET https://api.example/v1/places failed"


def test_a_message_is_one_line_of_bounded_size_that_a_database_takes() -> None:
    assert clean("a\n\x00b\tc\ud800d") == "a b c d"
    assert len(clean("x" * 10_000)) == ERROR_SIZE_MAX
    long = outcome(Retry("x" * 10_000), attempt=3).error
    assert long is not None
    assert len(long) == ERROR_SIZE_MAX
    assert long.endswith("(gave up after 3 attempts)")


@pytest.mark.parametrize("part", ["a", "a-", "key ", "http:", "key\n", "'", "bearer "])
def test_a_message_of_any_size_is_cleaned(part: str) -> None:
    assert clean(part * 1_000_000).startswith(part.strip())
