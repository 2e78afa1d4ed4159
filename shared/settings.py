"""Settings that all processes share. Each process has one frozen class below this one, read in its `__main__` alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.db.engine import PORT_MAX, driver_url
from shared.errors import FieldViolation, SettingsInvalid


def _database_url(value: str) -> str:
    driver_url(value)
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > PORT_MAX:
        raise ValueError("is no address to listen on, `host:port`")
    return value


def _nats_url(value: str) -> str:
    if not all(_is_nats_server(server.strip()) for server in value.split(",")):
        raise ValueError("is no address of NATS, `nats://user:password@host:4222`, or several after commas")
    return value


def _is_nats_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"nats", "tls"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of brackets without an end, or a port that cannot be
        return False


DatabaseUrl: TypeAlias = Annotated[str, AfterValidator(_database_url)]
"""An address of PostgreSQL."""
NatsUrl: TypeAlias = Annotated[str, AfterValidator(_nats_url)]
"""Addresses of NATS."""
ListenAddress: TypeAlias = Annotated[str, AfterValidator(_address)]
"""`host:port`; a port of 0 is any free one."""


class DatabaseSettings(BaseSettings):
    """How a process reaches PostgreSQL, and how it logs. `DATABASE_URL`; everything else is `CURATION_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="CURATION_",
        env_parse_none_str="none",
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        allow_inf_nan=False,
    )

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process. Raises `SettingsInvalid`, which names every variable that is wrong."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsInvalid(*map(cls._violation, error.errors())) from None

    @classmethod
    def _violation(cls, error: Any) -> FieldViolation:
        """One of pydantic's errors by variable; without the value where that may hold a password."""
        name = str(error["loc"][0])
        fields = {field.validation_alias or key: field for key, field in cls.model_fields.items()}
        variable = name if name == "DATABASE_URL" else f"{cls.model_config['env_prefix']}{name}".upper()
        if error["type"] == "missing":
            return FieldViolation(variable, "is not set")
        problem = str(error.get("ctx", {}).get("error", error["msg"]))
        shown = f"={error['input']!r}" if fields[name].repr else ""
        return FieldViolation(f"{variable}{shown}", problem[:1].lower() + problem[1:])

    database_url: DatabaseUrl = Field(
        validation_alias="DATABASE_URL",
        repr=False,
        description="PostgreSQL 14 or newer, `postgresql://user:password@host:port/database`.",
    )
    listen_url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="A direct address for LISTEN, where `DATABASE_URL` is a pooler in transaction mode.",
    )
    start_timeout_s: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that a starting process waits for its database."
    )
    prepare_threshold: int | None = Field(
        default=5,
        ge=0,
        description="Runs of a statement before it is prepared on the server; `none` behind a pooler that keeps none.",
    )
    metrics_listen: ListenAddress | None = Field(
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
