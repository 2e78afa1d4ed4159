"""The service by TLS, over a real socket: whom it lets in, and what it takes of files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from curation.v1 import curation_pb2 as pb
from curation.v1 import curation_pb2_grpc as pb_grpc
from shared.errors import CertificateUnusable
from tests.support.authority import Authority, Issued
from tests.support.service import running_service


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(url: str, own: Issued, **settings: Any) -> AsyncIterator[str]:
    """The address of a service by TLS."""
    files = {"tls_certificate_file": own.certificate, "tls_key_file": own.key, **settings}
    async with running_service(url, **files) as service:
        yield service.address


async def workflows(address: str, ca: Path, own: Issued | None = None) -> list[str]:
    """What a stock client is told over a connection of its own."""
    key, certificate = (own.key.read_bytes(), own.certificate.read_bytes()) if own else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, certificate)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        page = await pb_grpc.CurationServiceStub(channel).ListWorkflows(pb.ListWorkflowsRequest())
    return [workflow.resource for workflow in page.workflows]


async def refused(address: str, ca: Path, own: Issued | None = None) -> str:
    """Why no connection came about."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await workflows(address, ca, own)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return caught.value.details() or ""


async def test_a_service_with_a_certificate_speaks_tls_alone(database_url: str, authority: Authority) -> None:
    async with serving(database_url, authority.issue("service")) as address:
        assert await workflows(address, authority.ca) == ["parcels"]
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await pb_grpc.CurationServiceStub(channel).ListWorkflows(pb.ListWorkflowsRequest())


async def test_a_client_needs_a_certificate_of_the_right_authority_where_one_is_named(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    clients, strangers = Authority(tmp_path, "clients"), Authority(tmp_path, "strangers")
    own = authority.issue("service")
    async with serving(database_url, own, tls_client_ca_file=clients.ca) as address:
        assert await workflows(address, authority.ca, clients.issue("client")) == ["parcels"]
        for stranger in (None, strangers.issue("client"), authority.issue("client")):
            await refused(address, authority.ca, stranger)


async def test_a_renewed_certificate_is_served_without_a_restart(
    database_url: str, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own, later = authority.issue("service"), Authority(tmp_path, "later")
    renewed = later.issue("service")
    async with serving(database_url, own) as address:
        own.certificate.write_bytes(renewed.certificate.read_bytes())
        assert await workflows(address, authority.ca) == ["parcels"], "the key is still the old one"
        assert f"CERTIFICATE_UNUSABLE: {own.certificate} and {own.key} " in caplog.text
        own.key.write_bytes(renewed.key.read_bytes())
        assert await workflows(address, later.ca) == ["parcels"]
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(address, authority.ca)
        own.key.unlink()
        assert await workflows(address, later.ca) == ["parcels"]


async def test_clients_of_another_authority_are_let_in_once_its_file_is_replaced(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    clients, later = Authority(tmp_path, "clients"), Authority(tmp_path, "later")
    async with serving(database_url, authority.issue("service"), tls_client_ca_file=clients.ca) as address:
        await refused(address, authority.ca, later.issue("client"))
        clients.ca.write_bytes(later.ca.read_bytes())
        assert await workflows(address, authority.ca, later.issue("client")) == ["parcels"]


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
@pytest.mark.parametrize("file", ["tls_certificate_file", "tls_key_file", "tls_client_ca_file"])
async def test_a_file_that_cannot_be_used_is_named_and_nothing_starts(
    database_url: str, authority: Authority, tmp_path: Path, file: str, content: bytes | None
) -> None:
    unusable = tmp_path / "unusable.pem"
    if content is not None:
        unusable.write_bytes(content)
    with pytest.raises(CertificateUnusable, match=str(unusable)):
        async with serving(database_url, authority.issue("service"), **{file: unusable}):
            pass


async def test_a_key_of_another_certificate_or_with_a_password_is_refused(
    database_url: str, authority: Authority
) -> None:
    own, another = authority.issue("service"), authority.issue("another")
    for key in (another.key, another.certificate, authority.locked(own.key)):
        with pytest.raises(CertificateUnusable, match=f"{own.certificate} and {key} are not"):
            async with serving(database_url, own, tls_key_file=key):
                pass
