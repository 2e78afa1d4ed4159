"""The clients and the command line by TLS, against the real service: whom they trust, and what they say of whom not."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import grpc
import pytest

from curation.v1 import curation_pb2 as pb
from curation_client import aio, sync
from curation_client.tls import CertificateUnusable, tls
from tests.support.authority import Authority, Issued
from tests.support.eventually import DEADLINE_S as WAIT_S
from tests.support.ports import free_port
from tests.support.service import running_service

Told = Callable[..., Awaitable[object]]
"""What a client is told first: by a call, or by a watch."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(own: Issued) -> dict[str, Any]:
    """The settings of a service by TLS."""
    return {"tls_certificate_file": own.certificate, "tls_key_file": own.key}


async def called_aio(address: str, **options: Any) -> object:
    async with aio.CurationClient(address, **options) as client:
        return (await client.get_workflow("parcels")).workflow.resource


async def watched_aio(address: str, **options: Any) -> object:
    async with (
        aio.CurationClient(address, **options) as client,
        aclosing(client.watch("parcels", skip_snapshot=True)) as updates,
    ):
        part = (await anext(updates)).part
    assert isinstance(part, pb.WorkflowState)
    return part.resource


async def called_sync(address: str, **options: Any) -> object:
    def call() -> object:
        with sync.CurationClient(address, **options) as client:
            return client.get_workflow("parcels").workflow.resource

    return await asyncio.to_thread(call)


async def watched_sync(address: str, **options: Any) -> object:
    def watch() -> object:
        with (
            sync.CurationClient(address, **options) as client,
            closing(client.watch("parcels", skip_snapshot=True)) as updates,
        ):
            part = next(updates).part
        assert isinstance(part, pb.WorkflowState)
        return part.resource

    return await asyncio.to_thread(watch)


each = pytest.mark.parametrize("told", [called_aio, watched_aio, called_sync, watched_sync])


async def failed(telling: Awaitable[object]) -> str:
    """Why nothing was told."""
    with pytest.raises(grpc.RpcError) as caught:
        await asyncio.wait_for(telling, WAIT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


@each
async def test_clients_speak_tls_and_show_a_certificate_of_their_own(
    told: Told, database_url: str, authority: Authority
) -> None:
    own = authority.issue("client")
    credentials = tls(ca=authority.ca, certificate=own.certificate, key=own.key)
    async with running_service(
        database_url, **files(authority.issue("service")), tls_client_ca_file=authority.ca
    ) as service:
        assert await told(service.address, credentials=credentials) == "parcels"
        await failed(told(service.address, credentials=tls(ca=authority.ca), wait_for_ready=False))


@each
async def test_who_is_not_to_be_trusted_is_not_waited_for(
    told: Told, database_url: str, authority: Authority, tmp_path: Path
) -> None:
    async with running_service(database_url, **files(authority.issue("service"))) as service:
        stranger = tls(ca=Authority(tmp_path, "another").ca)
        assert "CERTIFICATE_VERIFY_FAILED" in await failed(told(service.address, credentials=stranger))


@each
async def test_a_certificate_of_another_host_is_said_to_be_so(
    told: Told, database_url: str, authority: Authority
) -> None:
    elsewhere = authority.issue("service", address="DNS:elsewhere.example")
    async with running_service(database_url, **files(elsewhere)) as service:
        assert "Hostname Verification" in await failed(told(service.address, credentials=tls(ca=authority.ca)))


@each
async def test_a_service_without_tls_is_said_to_be_so(told: Told, database_url: str, authority: Authority) -> None:
    async with running_service(database_url) as service:
        assert "WRONG_VERSION_NUMBER" in await failed(told(service.address, credentials=tls(ca=authority.ca)))


@each
async def test_who_speaks_tls_but_no_http2_is_said_to_be_so(told: Told, authority: Authority) -> None:
    own, context = authority.issue("other"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    other = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with other:
        address = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        assert "ALPN" in await failed(told(address, credentials=tls(ca=authority.ca)))


@each
async def test_a_service_that_is_away_is_waited_for(told: Told, database_url: str, authority: Authority) -> None:
    address = f"127.0.0.1:{free_port()}"
    telling = asyncio.ensure_future(told(address, credentials=tls(ca=authority.ca)))
    async with running_service(database_url, **files(authority.issue("service")), listen=address):
        assert await asyncio.wait_for(telling, WAIT_S) == "parcels"


async def test_closing_the_client_ends_what_waits_for_a_handshake(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        client = aio.CurationClient(f"127.0.0.1:{silent.getsockname()[1]}", credentials=tls(ca=authority.ca))
        calling = asyncio.create_task(client.get_workflow("parcels"))
        watching = asyncio.ensure_future(anext(client.watch("parcels"), None))
        connection, _ = await asyncio.get_running_loop().sock_accept(silent)
        with connection:
            await client.close()
            assert await asyncio.wait_for(watching, WAIT_S) is None
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asyncio.wait_for(calling, WAIT_S)
    assert caught.value.code() is grpc.StatusCode.CANCELLED


async def test_without_a_file_of_cas_those_of_the_system_are_trusted(
    database_url: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_service(database_url, **files(authority.issue("service"))) as service:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        assert await called_aio(service.address, credentials=tls()) == "parcels"


def test_a_file_that_cannot_be_used_is_named(authority: Authority, tmp_path: Path) -> None:
    own, another, garbage = authority.issue("client"), authority.issue("another"), tmp_path / "garbage"
    garbage.write_text("garbage")
    wrong: list[tuple[dict[str, Path], Path]] = [
        *(({"ca": path}, path) for path in (garbage, tmp_path / "missing", tmp_path, another.key)),
        *(({"certificate": path, "key": own.key}, path) for path in (garbage, tmp_path / "missing", tmp_path)),
        *(({"certificate": own.certificate, "key": path}, path) for path in (garbage, tmp_path / "missing")),
        *(
            ({"certificate": own.certificate, "key": path}, path)
            for path in (another.key, own.certificate, authority.locked(own.key))
        ),
    ]
    for arguments, unusable in wrong:
        with pytest.raises(CertificateUnusable, match=str(unusable)):
            tls(**arguments)
    for alone in ({"certificate": own.certificate}, {"key": own.key}):
        with pytest.raises(CertificateUnusable, match="needed together"):
            tls(**alone)


async def curation(*arguments: str | Path) -> tuple[int | None, str]:
    """The exit code of the command, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("curation"), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode, printed.decode()


async def test_the_command_line_speaks_tls_and_says_what_is_wrong_with_it(
    database_url: str, authority: Authority, tmp_path: Path
) -> None:
    own, another = authority.issue("me"), Authority(tmp_path, "another")
    async with running_service(
        database_url, **files(authority.issue("service")), tls_client_ca_file=authority.ca
    ) as service:
        mine = ("--tls-certificate", own.certificate, "--tls-key", own.key)
        call = ("workflows", "--address", service.address)
        code, printed = await curation(*call, "--tls-ca", authority.ca, *mine)
        assert (code, "parcels" in printed) == (0, True), printed
        for arguments, line in (
            (("--tls", *mine), "no TLS with the service: "),
            (("--tls-ca", another.ca, *mine), "no TLS with the service: "),
            (("--tls-ca", authority.ca), "no service answers: "),
            ((), "no service answers: "),
            (("--tls-ca", tmp_path / "missing"), f"[Errno 2] No such file or directory: '{tmp_path / 'missing'}'"),
            (("--tls-ca", own.key), f"{own.key} has no certificate in PEM"),
            (("--tls-key", own.key), "a certificate and its key are needed together"),
        ):
            code, printed = await curation(*call, *arguments)
            assert (code, printed.startswith(line)) == (1, True), printed
