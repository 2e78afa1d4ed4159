"""TLS of the service: its certificate and key, and the CAs of its clients, looked at again for each connection.

So a certificate that was renewed needs no restart. While its files cannot be used, as between the replacement of one
and that of the other, connections get the last that could.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TypeAlias

import grpc

from shared.errors import CertificateUnusable

logger = logging.getLogger(__name__)

Content: TypeAlias = tuple[bytes, bytes, bytes | None]
"""Of the certificate, the key, and the file of CAs."""


def server_credentials(*, certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """What a server takes for a port with TLS. Raises `CertificateUnusable`.

    Args:
        certificate: of the service, followed by those between it and its CA, in PEM.
        key: of the certificate, without a password.
        client_ca: those whose certificates clients need; None lets all in.
    """
    served = _read(certificate, key, client_ca)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks before each handshake, in a thread of its own."""
        nonlocal served
        try:
            found = _read(certificate, key, client_ca)
        except CertificateUnusable as error:
            logger.warning("%s: %s; the last one is still served", error.reason, error)
            return None
        if found == served:
            return None
        served = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(served),
        renewed,  # type: ignore[arg-type] # None is for no change
        require_client_authentication=client_ca is not None,
    )


def _configuration(content: Content) -> grpc.ServerCertificateConfiguration:
    certificate, key, client_ca = content
    return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)


def _read(certificate: Path, key: Path, client_ca: Path | None) -> Content:
    """Reads the files, and checks them by what Python has: gRPC does not say what is wrong with one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    problem = f"{certificate} and {key} are not a certificate and its key in PEM, without a password"
    try:
        content = certificate.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca else None
        context.load_cert_chain(certificate, key, password="")
        if client_ca:
            problem = f"{client_ca} has no certificate in PEM"
            context.load_verify_locations(client_ca)
    except ssl.SSLError as error:
        raise CertificateUnusable(f"{problem} ({error.reason})") from error
    except OSError as error:
        raise CertificateUnusable(str(error)) from error
    return content
