"""The control listener on TCP: whose certificate counts; and on a Unix socket: what may be at the path."""

import asyncio
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.control import listener
from sidecar.control.client import ClientTls, ControlError, send
from sidecar.enforcement import KillSwitch, OperatorCommandFailed
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from tests import parts
from tests.patience import HANG_S

OPERATOR = "organizationName=Example,commonName=ann"


class Commands:
    """Stands where the kill switch is, and writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[JsonObject, str]] = []

    async def suspend(self, asked: JsonObject, operator: str) -> JsonObject:
        self.told.append((asked, operator))
        if asked.get("subject") == "nobody":
            raise OperatorCommandFailed("no such person")
        return {"suspended": asked}

    resume = suspend

    def suspended(self) -> JsonObject:
        return {"suspended": []}


class Authority:
    """A certificate authority of one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(
            self._signed(self.subject, self.key.public_key(), True).public_bytes(serialization.Encoding.PEM)
        )

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str, organisation: str = "Example") -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        certificate, private = self.folder / f"{name}-{organisation}.pem", self.folder / f"{name}-{organisation}.key"
        signed = self._signed(subject, key.public_key(), False)
        certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private


async def asked_over_tls(folder: Path, tls: ClientTls | None, authority: Authority) -> tuple[list[Any], JsonObject]:
    """Serve, send one command, and return what was told and answered."""
    commands, port = Commands(), parts.free_port()
    context = listener.ControlContext(*authority.issue("localhost"), authority.file).context
    switch = cast("KillSwitch", commands)
    runner = await listener.serve_tls(switch, "127.0.0.1", port, context, (OPERATOR,))
    try:
        asked: JsonObject = {"kind": "user", "subject": "ann", "reason": "r"}
        answer = await asyncio.to_thread(send, f"127.0.0.1:{port}", "suspend", asked, tls)
    except ControlError as error:
        return commands.told, {"error": str(error)}
    finally:
        await runner.cleanup()
    return commands.told, answer


async def test_an_operators_certificate_is_an_operator_by_its_subject(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("ann")
    told, _ = await asked_over_tls(tmp_path, ClientTls(certificate=certificate, key=key, ca=authority.file), authority)
    assert [operator for _, operator in told] == [f"certificate {OPERATOR}"]


@pytest.mark.parametrize(("name", "organisation"), [("bob", "Example"), ("ann", "Other"), ("Ann", "Example")])
async def test_another_certificate_of_the_same_authority_is_no_operator(
    tmp_path: Path, name: str, organisation: str
) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue(name, organisation)
    told, answer = await asked_over_tls(
        tmp_path, ClientTls(certificate=certificate, key=key, ca=authority.file), authority
    )
    assert (told, answer) == ([], {"error": "not an operator"})


async def test_the_same_subject_of_another_authority_gets_no_connection(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    certificate, key = other.issue("ann")
    told, answer = await asked_over_tls(
        tmp_path, ClientTls(certificate=certificate, key=key, ca=authority.file), authority
    )
    assert told == []
    assert "no answer" in str(answer["error"])


async def test_without_a_certificate_there_is_no_connection(tmp_path: Path) -> None:
    authority, commands, port = Authority(tmp_path, "ca"), Commands(), parts.free_port()
    context = listener.ControlContext(*authority.issue("localhost"), authority.file).context
    runner = await listener.serve_tls(cast("KillSwitch", commands), "127.0.0.1", port, context, (OPERATOR,))
    bare = ssl.create_default_context(cafile=str(authority.file))
    try:
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(spoken_to, port, bare)
    finally:
        await runner.cleanup()
    assert commands.told == []


@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1_2])
async def test_an_operator_on_an_older_tls_gets_no_connection(tmp_path: Path, old: ssl.TLSVersion) -> None:
    authority, commands, port = Authority(tmp_path, "ca"), Commands(), parts.free_port()
    context = listener.ControlContext(*authority.issue("localhost"), authority.file).context
    runner = await listener.serve_tls(cast("KillSwitch", commands), "127.0.0.1", port, context, (OPERATOR,))
    shown = ssl.create_default_context(cafile=str(authority.file))
    shown.load_cert_chain(*authority.issue("ann"))
    shown.maximum_version = old
    try:
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(spoken_to, port, shown)
    finally:
        await runner.cleanup()
    assert commands.told == []


async def test_a_name_that_holds_a_whole_subject_is_no_operators(tmp_path: Path) -> None:
    """A certificate of one attribute whose value reads like two: ``organizationName=Example,commonName=ann``."""
    authority = Authority(tmp_path, "ca")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example,commonName=ann")])
    signed = authority._signed(subject, key.public_key(), False)
    certificate, private = tmp_path / "forged.pem", tmp_path / "forged.key"
    certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form, lock = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    tls = ClientTls(certificate=certificate, key=private, ca=authority.file)
    told, answer = await asked_over_tls(tmp_path, tls, authority)
    assert (told, answer) == ([], {"error": "not an operator"})


def spoken_to(port: int, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=HANG_S) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(b"POST /suspend HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = tls.recv(1024)
        if not answer:
            raise ConnectionError("closed without an answer")
        return answer


async def test_a_refused_command_comes_back_as_its_reason(tmp_path: Path) -> None:
    commands, path = Commands(), tmp_path / "s"
    runner = await listener.serve_unix(cast("KillSwitch", commands), path)
    try:
        with pytest.raises(ControlError, match="no such person"):
            await asyncio.to_thread(send, f"unix:{path}", "suspend", {"subject": "nobody"}, None)
        assert await asyncio.to_thread(send, f"unix://{path}", "suspended", {}, None) == {"suspended": []}
    finally:
        await runner.cleanup()


async def test_a_socket_that_a_dead_process_left_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    runner = await listener.serve_unix(cast("KillSwitch", Commands()), path)
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigurationError, match="another process"):
            await (await listener.serve_unix(cast("KillSwitch", Commands()), path)).cleanup()
    finally:
        await runner.cleanup()


async def test_a_file_at_the_path_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="not a socket"):
        await (await listener.serve_unix(cast("KillSwitch", Commands()), path)).cleanup()
    assert path.read_text() == "precious"


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("localhost")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"password")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigurationError, match="without a password"):
        listener.ControlContext(certificate, key, authority.file)


async def test_changed_files_count_from_the_next_connection_on_and_damaged_ones_do_not(tmp_path: Path) -> None:
    authority, other, commands, port = (
        Authority(tmp_path, "ca"),
        Authority(tmp_path, "other"),
        Commands(),
        parts.free_port(),
    )
    certificate, key = authority.issue("localhost")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.file.read_bytes())
    own = listener.ControlContext(certificate, key, trusted)
    asked: JsonObject = {"kind": "user", "subject": "ann", "reason": "r"}

    def carried_out(by: Authority, server: Authority) -> bool:
        shown, private = by.issue("ann")
        tls = ClientTls(certificate=shown, key=private, ca=server.file)
        with suppress(ControlError):
            send(f"127.0.0.1:{port}", "suspend", asked, tls)
            return True
        return False

    runner = await listener.serve_tls(cast("KillSwitch", commands), "127.0.0.1", port, own.context, (OPERATOR,))
    try:
        assert await asyncio.to_thread(carried_out, authority, authority)
        assert not await asyncio.to_thread(carried_out, other, authority)
        for path in (trusted, key):
            kept = path.read_bytes()
            path.write_text("damaged")
            own.refresh()
            assert await asyncio.to_thread(carried_out, authority, authority)
            path.write_bytes(kept)
        new_certificate, new_key = other.issue("localhost")
        certificate.write_bytes(new_certificate.read_bytes())
        key.write_bytes(new_key.read_bytes())
        trusted.write_bytes(other.file.read_bytes())
        own.refresh()
        assert await asyncio.to_thread(carried_out, other, other)
        assert not await asyncio.to_thread(carried_out, authority, other)
    finally:
        await runner.cleanup()
    assert len(commands.told) == 4
