"""How the clients' channels are set up: which calls are retried automatically, and how large messages may be."""

from __future__ import annotations

import json

MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""A batch names up to 100,000 items at some 40 bytes each; an answer pages."""
KEEPALIVE_MS = 30_000
"""A connection that died without a word is noticed after this and `KEEPALIVE_TIMEOUT_MS`."""
KEEPALIVE_TIMEOUT_MS = 10_000
RECONNECT_MS = (100, 5_000)
"""The channel's own pause between two tries to connect: the first, and the longest."""

DIRECT = ("grpc.enable_http_proxy", 0)
"""Whatever `http_proxy` says: that is for what is outside, as the service is not."""

SERVICE = "curation.v1.CurationService"
ATTEMPTS_MAX = 5


def channel_options(*, wait_for_ready: bool) -> list[tuple[str, int | str]]:
    """Options of both clients' channels.

    With `wait_for_ready` calls wait for a service that is away, as long as their deadline lets them.
    """
    return [
        ("grpc.service_config", json.dumps(_service_config(wait_for_ready=wait_for_ready))),
        DIRECT,
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", MESSAGE_BYTES_MAX),  # what is larger is not tried again
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS[0]),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MS[1]),
    ]


def _service_config(*, wait_for_ready: bool) -> dict[str, object]:
    # Safe for every call: reads change nothing, and a batch names itself by its request_id. A service that stops
    # cancels what has just come to it; what a caller cancels is not tried again.
    policy = {
        "maxAttempts": ATTEMPTS_MAX,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    return {
        "methodConfig": [
            {"name": [{"service": SERVICE}], "waitForReady": wait_for_ready, "retryPolicy": policy},
            # The watch repeats itself, from its last token (see `watch`).
            {"name": [{"service": SERVICE, "method": "WatchStatus"}]},
        ]
    }
