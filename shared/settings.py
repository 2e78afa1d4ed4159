"""Settings that all processes share. Each process has one frozen class below this one, read in its `__main__` alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class DatabaseSettings(BaseSettings):
    """How a process reaches PostgreSQL, and how it logs. `DATABASE_URL`; everything else is `CURATION_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="CURATION_", env_parse_none_str="none", frozen=True, extra="ignore", populate_by_name=True
    )

    database_url: str = Field(
        validation_alias="DATABASE_URL",
        repr=False,
        description="PostgreSQL 14 or newer, `postgresql://user:password@host:port/database`.",
    )
    listen_url: str | None = Field(
        default=None,
        repr=False,
        description="A direct address for LISTEN, where `DATABASE_URL` is a pooler in transaction mode.",
    )
    pool_size: int = Field(default=10, ge=1, le=1000, description="Connections that the process holds at most.")
    pool_timeout_s: float = Field(default=10.0, gt=0, description="Seconds to wait for a free connection.")
    prepare_threshold: int | None = Field(
        default=5,
        ge=0,
        description="Runs of a statement before it is prepared on the server; `none` behind a pooler that forbids it.",
    )
    metrics_listen: str | None = Field(
        default=None, description="Where Prometheus reads the process's numbers, `host:port`; nowhere by default."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least urgent message that is logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Lines for people or for machines.")

    @property
    def direct_url(self) -> str:
        """The address for LISTEN."""
        return self.listen_url or self.database_url
