"""The service's settings, read from the environment by `__main__` alone."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from shared.settings import DatabaseSettings, DatabaseUrl, ListenAddress, NatsUrl


class ServiceSettings(DatabaseSettings):
    """Where the service listens, and what bounds its calls."""

    listen: ListenAddress = Field(
        default="127.0.0.1:50051",
        description="The address that the service listens on, `host:port`; a port of 0 takes any free one. "
        "It believes whom it lets in: outside a private network, let it require certificates of its clients, or put a "
        "proxy with authentication in front of it.",
    )
    tls_certificate_file: Path | None = Field(
        default=None,
        description="The service's certificate in PEM, followed by those between it and its CA: with it the service "
        "speaks TLS alone. A file that is replaced needs no restart.",
    )
    tls_key_file: Path | None = Field(
        default=None, description="The key of that certificate in PEM, without a password."
    )
    tls_client_ca_file: Path | None = Field(
        default=None,
        description="CAs in PEM: who connects, for the health too, needs a certificate that one of them has signed.",
    )
    pool_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Connections in the pool, at most; updates of a few items have half as many of their own, and "
        "updates of single items one for each resource.",
    )
    pool_timeout_s: float = Field(default=10.0, gt=0, description="Seconds to wait for a free connection.")
    items_max: int = Field(
        default=100_000,
        ge=1,
        le=1_000_000,
        description="Items that one batch may name, or its filter may match.",
    )
    outcomes_max: int = Field(
        default=1_000,
        ge=0,
        le=10_000,
        description="Unchanged items named in the answer to a batch; ListBatchOutcomes has the rest.",
    )
    message_size_max: int = Field(
        default=16 * 1024 * 1024,
        ge=64 * 1024,
        le=256 * 1024 * 1024,
        description="Bytes of a message, at most; 100,000 items by UUID with expected versions are some 5 MB.",
    )
    calls_max: int = Field(
        default=10_000, ge=1, description="Calls under way at once, streams included; more are refused."
    )
    call_age_max_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that a call may take, streams excepted, whatever deadline its caller set.",
    )
    grace_s: float = Field(
        default=10.0, ge=0, le=25, description="Seconds that a stopping service waits for calls under way."
    )
    heartbeat_s: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="Seconds between two heartbeats on a stream where nothing happens.",
    )
    stream_age_max_s: float = Field(
        default=3600.0, gt=0, description="Seconds after which a stream is ended, with a token, so that load can move."
    )
    idle_in_transaction_s: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="Seconds without a statement after which a transaction of the service is ended: it holds back "
        "streams.",
    )
    read_url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="A standby that ListItems, CountItems and GetItem read instead of `DATABASE_URL`: they may be as "
        "old as it is behind. Everything else, snapshots included, needs the primary.",
    )
    nats_url: NatsUrl | None = Field(
        default=None,
        repr=False,
        description="NATS with JetStream, `nats://user:password@host:4222`, several servers separated by commas: "
        "one replica reads the event log for all. Needs the extra `curation[nats]`.",
    )
    retention_days: int = Field(
        default=30,
        ge=1,
        description="Whole days that the event log reaches back; a watcher with an older token needs a snapshot.",
    )
    batch_retention_days: int | None = Field(
        default=365,
        ge=1,
        le=36_500,
        description="Days that a batch, its outcomes and its request_id are kept, longer while the log still has what "
        "became of its items; a group of failures since it was last seen, longer while an item is in it; `none` for "
        "ever.",
    )

    @field_validator("tls_key_file")
    @classmethod
    def _is_of_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) is not (info.data.get("tls_certificate_file") is None):
            raise ValueError("must be set with CURATION_TLS_CERTIFICATE_FILE, and only with it")
        return value

    @field_validator("tls_client_ca_file")
    @classmethod
    def _needs_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls_certificate_file") is None:
            raise ValueError("needs CURATION_TLS_CERTIFICATE_FILE")
        return value
