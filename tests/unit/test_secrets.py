"""Keys are struck out by their value, in each form in which they travel; ordinary words are left alone."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest

from shared.secrets import Secrets

KEY = 'sk-5ecr3t/a+b=c "d"'


@pytest.mark.parametrize("form", [KEY, quote(KEY), quote(KEY, safe=""), quote_plus(KEY), json.dumps(KEY), repr(KEY)])
def test_a_key_is_struck_out_in_each_of_its_forms(form: str) -> None:
    told = Secrets.of({"PLACES_API_KEY": KEY}).hide(f"GET {form} failed")
    assert "5ecr3t" not in told
    assert told.startswith("GET ")
    assert "***" in told


@pytest.mark.parametrize(
    "name", ["KEY", "places_api_key", "TOKEN", "A_SECRET", "DB_PASSWORD", "API_KEYS", "CREDENTIALS"]
)
def test_names_say_what_is_secret(name: str) -> None:
    assert Secrets.of({name: "long enough"}).hide("it is long enough") == "it is ***"


@pytest.mark.parametrize("name", ["PWD", "KEYBOARD", "SSH_AUTH_SOCK", "PLACES_URL"])
def test_other_variables_are_no_secrets(name: str) -> None:
    assert Secrets.of({name: "long enough"}).hide("it is long enough") == "it is long enough"


def test_a_key_that_is_part_of_another_leaves_nothing_of_it() -> None:
    assert Secrets(["12345678", "12345678-and-more"]).hide("12345678-and-more, 12345678") == "***, ***"


def test_what_stands_around_a_key_is_not_part_of_it() -> None:
    assert Secrets.of({"API_KEY": " long-enough\n"}).hide("it is long-enough") == "it is ***"


def test_a_secret_is_found_in_json_as_a_log_spells_it() -> None:
    secret = 'pä"ss-wörd'
    for ascii_ in (True, False):
        assert Secrets([secret]).hide(json.dumps({"at": secret}, ensure_ascii=ascii_)) == '{"at": "***"}'


def test_short_values_are_left_for_they_occur_by_chance() -> None:
    assert Secrets.of({"API_KEY": "test"}).hide("a test") == "a test"


def test_passwords_in_addresses_are_struck_out_whatever_they_are() -> None:
    assert Secrets().hide("postgresql://me:pw@db/x failed") == "postgresql://***@db/x failed"
    assert Secrets().hide("http://api.example/a@b") == "http://api.example/a@b"
