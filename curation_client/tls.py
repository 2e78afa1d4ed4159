"""TLS of a client: its files, checked before gRPC has them, and how a connection fails that no other try mends.

Of a file that it cannot use gRPC says no more than that no service answers, and without its key a certificate ends the
process.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

HANDSHAKE_FAILED = ("TSI_PROTOCOL_FAILURE", "Custom verification check failed", "Cannot check peer")
"""What gRPC says of a certificate that is not trusted, or of another host, and of who speaks no TLS, or no HTTP/2."""
HEALTH = "/grpc.health.v1.Health/Check"
"""A call that costs nothing, and takes an empty message."""


class CertificateUnusable(ValueError):
    """A file of TLS cannot be read, or is not what it should be."""


def tls(
    *, ca: Path | str | None = None, certificate: Path | str | None = None, key: Path | str | None = None
) -> grpc.ChannelCredentials:
    """What a client takes as `credentials` to speak TLS. Raises `CertificateUnusable`.

    Args:
        ca: whom to trust, in PEM; None for the system's, where Python finds their file, and else for those that come
            with gRPC.
        certificate: of the client, where the service asks for one, followed by those between it and its CA, in PEM.
        key: of that certificate, without a password.
    """
    if (certificate is None) is not (key is None):
        raise CertificateUnusable("a certificate and its key are needed together")
    ca = ca or ssl.get_default_verify_paths().cafile
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    problem = f"{ca} has no certificate in PEM"
    try:
        read = [None if path is None else Path(path).read_bytes() for path in (ca, key, certificate)]
        if ca:
            context.load_verify_locations(ca)
        if certificate:
            problem = f"{certificate} and {key} are not a certificate and its key in PEM, without a password"
            context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        raise CertificateUnusable(f"{problem} ({error.reason})") from error
    except OSError as error:
        raise CertificateUnusable(str(error)) from error
    return grpc.ssl_channel_credentials(*read)


def handshake_failed(error: grpc.RpcError) -> bool:
    """Whether the two do not come to speak TLS with each other, however often they try."""
    details = error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    return any(words in (details or "") for words in HANDSHAKE_FAILED)
