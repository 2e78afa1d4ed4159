"""Writes docs/operate/settings.md from the classes of the settings: `python -m tests.docs.settings_page`."""

from __future__ import annotations

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from curation_service.settings import ServiceSettings
from enrichment_worker.settings import WorkerSettings
from shared.settings import DatabaseSettings
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "operate" / "settings.md"
INTRODUCTION = """# Settings

Every variable that a process reads from its environment, once, when it starts. This page is made from the code:
`python -m tests.docs.settings_page`.

A process whose environment is wrong says so in one line and ends: with exit code 2 for a value that cannot be, 1 where
the database is missing, too old, read-only or not migrated, an address is taken, or a file of TLS cannot be used.

A worker hands its whole environment to enrichers, so what an enricher reads (`GOOGLE_PLACES_API_KEY`) is set there too.
"""
SECTIONS: tuple[tuple[str, type[BaseSettings]], ...] = (
    ("Service, worker and migration", DatabaseSettings),
    ("Service", ServiceSettings),
    ("Worker", WorkerSettings),
)


def settings_page() -> str:
    """The page as it should be."""
    lines = [INTRODUCTION]
    for title, settings in SECTIONS:
        lines += [f"## {title}", "", "| variable | default | bounds | what |", "| --- | --- | --- | --- |"]
        own = {n: f for n, f in settings.model_fields.items() if settings is DatabaseSettings or n not in _common()}
        lines += [_line(name, field, settings) for name, field in own.items()]
        lines.append("")
    return "\n".join(lines)


def _common() -> set[str]:
    return set(DatabaseSettings.model_fields)


def _line(name: str, field: FieldInfo, settings: type[BaseSettings]) -> str:
    variable = field.validation_alias or f"{settings.model_config['env_prefix']}{name}".upper()
    cells = (f"`{variable}`", _default(field), _bounds(field), field.description or "")
    return f"| {' | '.join(cells)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return f"`{field.default}`" if field.default not in (None, ()) else "none" if field.default is None else "empty"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in signs.items() if hasattr(m, name)]
    return ", ".join(found)


if __name__ == "__main__":
    PAGE.write_text(settings_page())
