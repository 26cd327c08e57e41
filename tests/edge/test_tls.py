"""TLS of the listener: which connections there are, and that new files are taken up by the next one."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.edge.server import serve
from sidecar.edge.tls import ClientCertificates, ListenerTls, TlsFiles
from sidecar.errors import ConfigurationError
from tests.patience import HANG_S


def issue(folder: Path, name: str, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A self-signed certificate of this name for the loopback address, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(pem))
    paths[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock))
    return paths


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    certificate, key = issue(tmp_path, "first")
    return TlsFiles(certificate=certificate, key=key)


@asynccontextmanager
async def listening(tls: ListenerTls) -> AsyncIterator[int]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="here")

    application = web.Application()
    application.router.add_get("/", answer)
    runner = await serve(application, ("127.0.0.1", 0), ssl_context=tls.context)
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def trusting(*certificates: Path, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for certificate in certificates:
        context.load_verify_locations(certificate)
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


async def get(port: int, context: ssl.SSLContext) -> str:
    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"https://localhost:{port}/") as response,
    ):
        return await response.text()


async def test_who_trusts_the_certificate_gets_in_and_who_does_not_does_not(files: TlsFiles, tmp_path: Path) -> None:
    other, _ = issue(tmp_path, "other")
    async with listening(ListenerTls(files)) as port:
        assert await get(port, trusting(files.certificate)) == "here"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(port, trusting(other))


async def test_old_protocols_and_clear_text_are_refused(files: TlsFiles) -> None:
    old = trusting(files.certificate)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    least = trusting(files.certificate)
    least.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(ListenerTls(files)) as port:
        assert await get(port, least) == "here"
        with pytest.raises((aiohttp.ClientConnectorSSLError, aiohttp.ClientOSError, ValueError)):
            await get(port, old)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(("most", "spoken"), [(ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")])
async def test_who_can_speak_the_newer_protocol_does(files: TlsFiles, most: ssl.TLSVersion, spoken: str) -> None:
    context = trusting(files.certificate)
    context.maximum_version = most
    async with listening(ListenerTls(files)) as port:
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
        connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
        assert connection.version() == spoken
        writer.close()
        await writer.wait_closed()


async def test_a_changed_certificate_is_served_to_the_next_connection(files: TlsFiles, tmp_path: Path) -> None:
    tls = ListenerTls(files)
    async with listening(tls) as port:
        first = trusting(files.certificate)
        assert await get(port, first) == "here"
        second, key = issue(tmp_path, "second")
        second.replace(files.certificate)
        tls.refresh()
        assert "tls" in tls.error, "the certificate is there and its key is not yet"
        assert await get(port, first) == "here"
        key.replace(files.key)
        tls.refresh()
        assert tls.error == ""
        assert await get(port, trusting(files.certificate)) == "here"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(port, first)
        files.key.unlink()
        tls.refresh()
        assert "tls" in tls.error
        assert await get(port, trusting(files.certificate)) == "here"


@pytest.mark.parametrize("asked", [ClientCertificates.OPTIONAL, ClientCertificates.REQUIRED])
async def test_client_certificates(files: TlsFiles, tmp_path: Path, asked: ClientCertificates) -> None:
    known, stranger = issue(tmp_path, "known"), issue(tmp_path, "stranger")
    files = replace(files, client_authorities=known[0], client_certificates=asked)
    tls = ListenerTls(files)
    refused = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
    async with listening(tls) as port:
        assert await get(port, trusting(files.certificate, shown=known)) == "here"
        with pytest.raises(refused):
            await get(port, trusting(files.certificate, shown=stranger))
        if asked is ClientCertificates.OPTIONAL:
            assert await get(port, trusting(files.certificate)) == "here"
        else:
            with pytest.raises(refused):
                await get(port, trusting(files.certificate))
        known[0].write_bytes(stranger[0].read_bytes())
        tls.refresh()
        assert await get(port, trusting(files.certificate, shown=stranger)) == "here", "another authority counts now"


async def test_no_session_is_resumed_past_the_authority_of_its_certificate(files: TlsFiles, tmp_path: Path) -> None:
    """A resumed session is not verified again: OpenSSL takes its certificate from the ticket, or from its cache."""
    known, stranger = issue(tmp_path, "known"), issue(tmp_path, "stranger")
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(known[0].read_bytes())
    tls = ListenerTls(replace(files, client_authorities=authorities, client_certificates=ClientCertificates.REQUIRED))
    context = trusting(files.certificate, shown=known)
    old = trusting(files.certificate, shown=known)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(tls) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(spoken, port, old, None)  # it resumes from a cache that cannot be turned off
        answer, session = await asyncio.to_thread(spoken, port, context, None)
        assert answer.startswith(b"HTTP/1.1 200")
        again, _ = await asyncio.to_thread(spoken, port, context, session)
        assert again.startswith(b"HTTP/1.1 200")
        authorities.write_bytes(stranger[0].read_bytes())
        tls.refresh()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(spoken, port, context, session)


def spoken(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
    """One request on one connection, which goes on with a session where there is one."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as raw,
        context.wrap_socket(raw, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = tls.recv(4096)
        if not answer:
            raise ConnectionError("closed without an answer")
        return answer, tls.session


@pytest.mark.parametrize("fault", ["missing", "garbage", "encrypted", "another key"])
def test_files_that_do_not_fit_stop_the_start(files: TlsFiles, tmp_path: Path, fault: str) -> None:
    match fault:
        case "missing":
            files.certificate.unlink()
        case "garbage":
            files.certificate.write_text("no certificate")
        case "encrypted":
            certificate, key = issue(tmp_path, "locked", password=b"secret")
            files = TlsFiles(certificate=certificate, key=key)
        case _:
            files = replace(files, key=issue(tmp_path, "another")[1])
    with pytest.raises(ConfigurationError, match="tls"):
        ListenerTls(files)


async def test_a_unix_socket_is_this_users_and_its_groups(tmp_path: Path) -> None:
    path = tmp_path / "mcp.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    runner = await serve(web.Application(), path)
    try:
        assert path.stat().st_mode & 0o777 == 0o660
        connector = aiohttp.UnixConnector(str(path))
        async with aiohttp.ClientSession(connector=connector) as session, session.get("http://localhost/") as response:
            assert response.status == 404
        with pytest.raises(ConfigurationError, match="another process"):
            await (await serve(web.Application(), path)).cleanup()
        assert path.is_socket()
    finally:
        await runner.cleanup()


async def test_a_file_in_the_place_of_the_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("content")
    with pytest.raises(ConfigurationError, match="no socket"):
        await (await serve(web.Application(), path)).cleanup()
    assert path.read_text() == "content"


async def test_a_peer_that_says_nothing_costs_others_nothing(files: TlsFiles) -> None:
    async with listening(ListenerTls(files)) as port:
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        try:
            assert await get(port, trusting(files.certificate)) == "here"
        finally:
            silent.close()
            await silent.wait_closed()
