"""Settings come from the environment, are checked, and never show a password."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from enrichment_worker.settings import WorkerSettings
from shared.errors import SettingsInvalid
from shared.settings import DatabaseSettings


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody:secret@pooler/curation")


def test_each_has_a_default_but_the_database_and_each_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DatabaseSettings().start_timeout_s == 30
    assert all(field.description for field in DatabaseSettings.model_fields.values())
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ValidationError, match="DATABASE_URL"):
        DatabaseSettings()


def test_a_listener_goes_past_the_pooler_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert DatabaseSettings().direct_url == "postgresql://somebody:secret@pooler/curation"
    monkeypatch.setenv("CURATION_LISTEN_URL", "postgresql://somebody:secret@direct/curation")
    assert DatabaseSettings().direct_url == "postgresql://somebody:secret@direct/curation"


def test_preparing_statements_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATION_PREPARE_THRESHOLD", "none")
    assert DatabaseSettings().prepare_threshold is None


def test_a_resource_that_is_named_twice_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATION_RESOURCES", "places, local_businesses,places,")
    assert WorkerSettings().resources == ("places", "local_businesses")


def test_a_list_of_no_resource_is_not_taken_for_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATION_RESOURCES", " ,")
    with pytest.raises(SettingsInvalid, match="CURATION_RESOURCES=' ,' names no resource: leave it empty for all"):
        WorkerSettings.from_environment()
    monkeypatch.setenv("CURATION_RESOURCES", "")
    assert WorkerSettings.from_environment().resources == ()


def test_a_value_out_of_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATION_START_TIMEOUT_S", "-1")
    with pytest.raises(ValidationError, match="start_timeout_s"):
        DatabaseSettings()


def test_a_password_is_not_shown_and_nothing_can_be_changed() -> None:
    settings = DatabaseSettings()
    assert "secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.start_timeout_s = 3  # type: ignore[misc]
