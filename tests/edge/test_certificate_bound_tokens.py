"""Tokens that are bound to a certificate (RFC 8705), over real TLS: whose certificate counts, and whose header."""

import base64
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sidecar.edge import CertificateHeader, CertificateReader, TrustedProxies
from sidecar.edge.tls import ClientCertificates, ListenerTls, TlsFiles
from sidecar.oauth import Binding
from sidecar.system import thumbprint_of
from tests import parts
from tests.edge.endpoint import INITIALIZE, PING, Endpoint, encoded, request, running, token
from tests.edge.test_tls import issue, trusting
from tests.nginx import nginx, with_real

Files = tuple[Path, Path]
LOOPBACK = TrustedProxies(networks=(ip_network("127.0.0.0/8"),))
ELSEWHERE = TrustedProxies(networks=(ip_network("10.0.0.0/8"),))
BOTH = [CertificateHeader.CLIENT_CERT, CertificateHeader.SSL_CLIENT_CERT]


def der_of(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files[0].read_text())


def written(header: CertificateHeader, files: Files) -> str:
    """The certificate as a proxy writes it."""
    if header is CertificateHeader.CLIENT_CERT:
        return f":{base64.b64encode(der_of(files)).decode()}:"
    return quote(files[0].read_text())


def bound_to(files: Files, **more: Any) -> str:
    return token(cnf={"x5t#S256": thumbprint_of(der_of(files)), **more})


@dataclass
class World:
    """The endpoint with its own TLS, and everybody who could dial it."""

    endpoint: Endpoint
    server: Files
    ann: Files
    bob: Files
    proxy: Files

    async def ask(self, by: Files | None, bearer: str, body: bytes = encoded(INITIALIZE), **headers: Any) -> Any:
        tls = trusting(self.server[0], shown=by)
        through = replace(self.endpoint, tls=tls)
        return await through.ask(body=body, Authorization=f"Bearer {bearer}", **headers)

    async def reason(self, by: Files | None, bearer: str, **headers: Any) -> str:
        """Why a request is refused, as evidence has it; empty where it is not."""
        answer = await self.ask(by, bearer, **headers)
        if answer.status == 200:
            return ""
        recorded: Any = self.endpoint.ledger.records[-1]
        assert answer.status == (400 if recorded["outcome"]["error"] == "proxy_certificate" else 401)
        return str(recorded["outcome"]["error"])


@asynccontextmanager
async def world(
    folder: Path,
    mtls: Binding = Binding.ALLOWED,
    *,
    header: CertificateHeader = CertificateHeader.NONE,
    proxies: TrustedProxies = LOOPBACK,
    dpop: Binding = Binding.OFF,
) -> AsyncIterator[World]:
    server, ann, bob, proxy = (issue(folder, name) for name in ("server", "ann", "bob", "proxy"))
    authorities = folder / "authorities.pem"
    authorities.write_bytes(b"".join(files[0].read_bytes() for files in (ann, bob, proxy)))
    tls = ListenerTls(
        TlsFiles(
            certificate=server[0],
            key=server[1],
            client_authorities=authorities,
            client_certificates=ClientCertificates.OPTIONAL,
        )
    )
    reader = CertificateReader(proxies=proxies, header=header, subjects=frozenset({"commonName=proxy"}))
    async with running(folder, mtls=mtls, dpop=dpop, tls=tls.context, certificates=reader) as endpoint:
        yield World(endpoint, server, ann, bob, proxy)


async def test_a_bound_token_counts_over_a_connection_with_its_certificate_only(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        bound = bound_to(here.ann)
        assert await here.reason(here.ann, bound) == ""
        assert await here.reason(here.bob, bound) == "token_certificate_other"
        assert await here.reason(None, bound) == "token_certificate_missing"
        assert await here.reason(here.ann, bound) == "", "what was refused before changes nothing"


async def test_a_token_that_is_bound_to_two_things_is_refused_for_that(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        assert await here.reason(here.ann, bound_to(here.ann, jkt="A" * 43)) == "token_bound_twice"


@pytest.mark.parametrize(
    ("mtls", "bound", "plain"),
    [(Binding.OFF, "token_bound", ""), (Binding.ALLOWED, "", ""), (Binding.REQUIRED, "", "token_unbound")],
)
async def test_an_issuers_tokens_may_or_must_be_bound(tmp_path: Path, mtls: Binding, bound: str, plain: str) -> None:
    async with world(tmp_path, mtls) as here:
        assert await here.reason(here.ann, bound_to(here.ann)) == bound
        assert await here.reason(here.ann, token()) == plain


async def test_a_bound_token_is_no_token_of_dpop(tmp_path: Path) -> None:
    async with world(tmp_path, dpop=Binding.ALLOWED) as here:
        through = replace(here.endpoint, tls=trusting(here.server[0], shown=here.ann))
        answer = await through.ask(
            body=encoded(INITIALIZE), Authorization=f"DPoP {bound_to(here.ann)}", DPoP="eyJh.eyJh.c2ln"
        )
        assert answer.status == 401
        assert here.endpoint.refusals[-1]["error"] == "token_unbound"


async def test_every_message_of_a_session_is_looked_at(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        bound = bound_to(here.ann)
        session = (await here.ask(here.ann, bound)).headers["mcp-session-id"]
        told = {"body": encoded(PING), "Mcp_Session_Id": session}
        assert (await here.ask(here.ann, bound, **told)).status == 200
        assert (await here.ask(here.bob, bound, **told)).status == 401
        assert (await here.ask(None, bound, **told)).status == 401
        assert (await here.ask(here.ann, bound, **told)).status == 200


@pytest.mark.parametrize("header", [CertificateHeader.NONE, *BOTH])
async def test_a_header_of_anybody_but_a_proxy_means_nothing(tmp_path: Path, header: CertificateHeader) -> None:
    async with world(tmp_path, header=header) as here:
        bound = bound_to(here.ann)
        forged = {form.value.replace("-", "_"): written(form, here.ann) for form in BOTH}
        assert await here.reason(here.bob, bound, **forged) == "token_certificate_other"
        assert await here.reason(None, bound, **forged) == "token_certificate_missing"
        assert await here.reason(here.bob, bound_to(here.bob), **forged) == "", "and takes nothing from their own"


@pytest.mark.parametrize("header", BOTH)
async def test_a_proxy_names_the_clients_certificate(tmp_path: Path, header: CertificateHeader) -> None:
    other = next(form for form in BOTH if form is not header)
    async with world(tmp_path, header=header) as here:
        name, bound = header.value.replace("-", "_"), bound_to(here.ann)
        assert await here.reason(here.proxy, bound, **{name: written(header, here.ann)}) == ""
        assert await here.reason(here.proxy, bound, **{name: written(header, here.bob)}) == "token_certificate_other"
        assert await here.reason(here.proxy, bound) == "token_certificate_missing"
        strange = {other.value.replace("-", "_"): written(other, here.ann)}
        assert await here.reason(here.proxy, bound, **strange) == "token_certificate_missing"
        theirs = bound_to(here.proxy)
        assert await here.reason(here.proxy, theirs) == "token_certificate_missing", "a proxy is no client"


@pytest.mark.parametrize("header", BOTH)
async def test_a_header_of_nearly_the_name_means_nothing_and_one_in_two_lines_is_refused(
    tmp_path: Path, header: CertificateHeader
) -> None:
    """A proxy that removes or sets the header by its name may let these pass as a client wrote them."""
    async with world(tmp_path, header=header) as here:
        bound, name, value = bound_to(here.ann), header.value, written(header, here.ann)
        through = replace(here.endpoint, tls=trusting(here.server[0], shown=here.proxy))
        body = encoded(INITIALIZE)
        top = request("POST", "/mcp", body, Authorization=f"Bearer {bound}").removesuffix(b"\r\n\r\n" + body)
        for near in (name.replace("-", "_"), f"X-{name}", f"{name}-chain", name.replace("-", "")):
            [answer] = await through.raw(top + f"\r\n{near}: {value}\r\n\r\n".encode() + body)
            assert answer.status == 401, near
            assert here.endpoint.refusals[-1]["error"] == "token_certificate_missing"
        for near in (f"{name} ", f" {name}", f"{name}: :QUJD:\r\n ", f"{name}\t"):
            [answer] = await through.raw(top + f"\r\n{near}: {value}\r\n\r\n".encode() + body)
            assert answer.status == 400, near
        [answer] = await through.raw(top + f"\r\n{name.upper()}: {value}\r\n\r\n".encode() + body)
        assert answer.status == 200, "names of headers have no case"
        [answer] = await through.raw(
            top + f"\r\n{name}: {value}\r\n{name.upper()}: {written(header, here.bob)}\r\n\r\n".encode() + body
        )
        assert answer.status == 400


async def test_a_proxy_counts_by_its_address_and_by_its_certificate_together(tmp_path: Path) -> None:
    header = CertificateHeader.CLIENT_CERT
    async with world(tmp_path, header=header, proxies=ELSEWHERE) as here:
        named = {"Client_Cert": written(header, here.ann)}
        assert await here.reason(here.proxy, bound_to(here.ann), **named) == "token_certificate_other"


MALFORMED = {
    CertificateHeader.CLIENT_CERT: ["", "QUJD", ":QUJD", "::", ":QUJ:", ":Q U J D:", ":QUJD:;a=1", ":QUJD:, :QUJD:"],
    CertificateHeader.SSL_CLIENT_CERT: [
        "",
        "QUJD",
        "-----BEGIN%20CERTIFICATE-----%0A-----END%20CERTIFICATE-----%0A",
        "-----BEGIN%20CERTIFICATE-----%0AQUJ%0A-----END%20CERTIFICATE-----%0A",
        "-----BEGIN%20PRIVATE%20KEY-----%0AQUJD%0A-----END%20PRIVATE%20KEY-----%0A",
        "x-----BEGIN%20CERTIFICATE-----%0AQUJD%0A-----END%20CERTIFICATE-----%0A",
        2 * "-----BEGIN%20CERTIFICATE-----%0AQUJD%0A-----END%20CERTIFICATE-----%0A",
        "%ff",
    ],
}


@pytest.mark.parametrize("header", BOTH)
async def test_a_proxys_header_that_is_not_one_certificate_is_refused(
    tmp_path: Path, header: CertificateHeader
) -> None:
    async with world(tmp_path, header=header) as here:
        name, bound = header.value.replace("-", "_"), bound_to(here.ann)
        for value in MALFORMED[header]:
            assert await here.reason(here.proxy, bound, **{name: value}) == "proxy_certificate", value
        twice = f"{written(header, here.ann)}\r\n{header.value}: {written(header, here.ann)}"
        assert await here.reason(here.proxy, bound, **{name: twice}) == "proxy_certificate"
        assert await here.reason(here.proxy, bound, **{name: written(header, here.ann)}) == ""


async def test_the_metadata_say_that_tokens_may_be_bound_to_certificates(tmp_path: Path) -> None:
    where = "/.well-known/oauth-protected-resource/mcp"
    async with world(tmp_path) as here:
        through = replace(here.endpoint, tls=trusting(here.server[0]))
        said = await through.ask("GET", where, Authorization=None)
        assert said.json["tls_client_certificate_bound_access_tokens"] is True
    async with running(tmp_path) as endpoint:
        said = await endpoint.ask("GET", where, Authorization=None)
        assert "tls_client_certificate_bound_access_tokens" not in said.json


def documented() -> str:
    """The configuration of nginx that docs/tls.md shows."""
    page = (Path(__file__).parents[2] / "docs" / "tls.md").read_text()
    [found] = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    return str(found)


@asynccontextmanager
async def proxied(folder: Path, here: World, port: int) -> AsyncIterator[None]:
    """The real nginx, with the configuration of the page."""
    authorities = folder / "authorities.pem"
    real = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/server.pem": str(here.server[0]),
        "/etc/nginx/server.key": str(here.server[1]),
        "/etc/nginx/clients.pem": str(authorities),
        "/etc/nginx/proxy.pem": str(here.proxy[0]),
        "/etc/nginx/proxy.key": str(here.proxy[1]),
        "/etc/nginx/sidecar.pem": str(here.server[0]),
        "sidecar.internal:8443": f"127.0.0.1:{here.endpoint.port}",
        "sidecar.internal": "localhost",
        "mcp.corp.example": "mcp.corp.example",
    }
    async with nginx(folder, with_real(documented(), real), port):
        yield


@pytest.mark.needs("nginx")
async def test_a_real_nginx_passes_the_clients_certificate_on_and_nobodys_header(tmp_path: Path) -> None:
    header = CertificateHeader.SSL_CLIENT_CERT
    async with world(tmp_path, header=header) as here:
        port = parts.free_port()
        async with proxied(tmp_path, here, port):
            through = replace(here, endpoint=replace(here.endpoint, port=port))
            bound = bound_to(here.ann)
            assert await through.reason(here.ann, bound) == ""
            assert await through.reason(here.bob, bound) == "token_certificate_other"
            assert await through.reason(None, bound) == "token_certificate_missing"
            forged = {"ssl_client_cert": written(header, here.ann)}
            assert await through.reason(here.bob, bound, **forged) == "token_certificate_other"
            assert await through.reason(None, bound, **forged) == "token_certificate_missing"
            assert await through.reason(here.ann, bound, **forged) == ""
