"""The worker's settings, read from the environment by `__main__` alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from shared.settings import DatabaseSettings


class WorkerSettings(DatabaseSettings):
    """How a worker claims, runs and completes. What bounds an enricher is in its workflow's limits."""

    resources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Resources that this worker serves, separated by commas; all when empty."
    )
    poll_s: float = Field(
        default=1.0, gt=0, le=60, description="Seconds between two looks for work when no notification comes."
    )
    claim_ahead_max: int = Field(
        default=8000, ge=1, le=20_000, description="Items of a resource claimed beyond those that run, at most."
    )
    flush_size: int = Field(default=2000, ge=1, le=2000, description="Results in one transaction, at most.")
    commits_at_once: int = Field(
        default=2,
        ge=1,
        le=8,
        description="Connections for commits of results: while one waits for the disk, another works.",
    )
    flush_age_s: float = Field(
        default=0.02, ge=0, le=5, description="Seconds that a result waits for others to share its transaction."
    )
    progress_s: float = Field(default=0.2, gt=0, le=60, description="Seconds between two writes of progress.")
    beat_s: float = Field(default=5.0, gt=0, le=60, description="Seconds between two signs of life.")
    expiry_s: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Seconds without a sign of life after which a worker's items are rescued.",
    )
    grace_s: float = Field(
        default=20.0, ge=0, le=25, description="Seconds that a stopping worker waits for what is in flight."
    )

    @field_validator("resources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        if value.strip() and not names:
            raise ValueError("names no resource: leave it empty for all")  # of a list whose names got lost
        return names

    @field_validator("expiry_s")
    @classmethod
    def _outlives_beats(cls, value: float, info: object) -> float:
        beat_s = getattr(info, "data", {}).get("beat_s", 0.0)
        if value < 2 * beat_s:
            raise ValueError("must be at least twice CURATION_BEAT_S, or a single late beat loses everything")
        return value
