"""The service's settings, read from the environment by `__main__` alone."""

from __future__ import annotations

from pydantic import Field

from shared.settings import DatabaseSettings, DatabaseUrl, ListenAddress, NatsUrl


class ServiceSettings(DatabaseSettings):
    """Where the service listens, and what bounds its calls."""

    listen: ListenAddress = Field(
        default="127.0.0.1:50051",
        description="The address that the service listens on, `host:port`; a port of 0 takes any free one. "
        "Without TLS and authentication: what is no private network reaches it through a proxy that has both.",
    )
    pool_size: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Connections of the pool at most; for updates of a few items half as many more, and one a resource "
        "for those of single items.",
    )
    pool_timeout_s: float = Field(default=10.0, gt=0, description="Seconds to wait for a free connection.")
    items_max: int = Field(
        default=100_000,
        ge=1,
        le=1_000_000,
        description="Items that one batch may name, or its filter match.",
    )
    outcomes_max: int = Field(
        default=1_000,
        ge=0,
        le=10_000,
        description="Unchanged items named in the answer to a batch; the rest comes by ListBatchOutcomes.",
    )
    message_size_max: int = Field(
        default=16 * 1024 * 1024,
        ge=64 * 1024,
        le=256 * 1024 * 1024,
        description="Bytes of a message; 100,000 items by UUID with expected versions are some 5 MB.",
    )
    calls_max: int = Field(
        default=10_000, ge=1, description="Calls under way at once, streams among them; more are refused."
    )
    call_age_max_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that a call may take, streams excepted, whatever deadline its caller set or did not set.",
    )
    grace_s: float = Field(
        default=10.0, ge=0, le=25, description="Seconds that a stopping service waits for calls under way."
    )
    heartbeat_s: float = Field(
        default=10.0, gt=0, le=300, description="A stream on which nothing happens says so, with a token, so often."
    )
    stream_age_max_s: float = Field(
        default=3600.0, gt=0, description="A stream is ended after so long, with a token, so that load can move."
    )
    idle_in_transaction_s: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="Seconds without a statement after which the service's transactions end: they hold back streams.",
    )
    read_url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="A standby that ListItems, CountItems and GetItem read instead of `DATABASE_URL`: they may be as "
        "old as it is behind. Everything else, snapshots among it, needs the primary.",
    )
    nats_url: NatsUrl | None = Field(
        default=None,
        repr=False,
        description="NATS with JetStream, `nats://user:password@host:4222`, several servers after commas: one replica "
        "reads the event log for all. Needs the extra `curation[nats]`.",
    )
    retention_days: int = Field(
        default=30, ge=1, description="Whole days that the event log reaches back; older tokens need a snapshot."
    )
