"""The commands of second persons: calls that wait for an approval are listed, shown, approved and denied."""

import http.client
import json
import secrets
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import click
from rich.console import Console

from sidecar import strict_json
from sidecar.addresses import is_loopback
from sidecar.configured import required
from sidecar.errors import ConfigurationError
from sidecar.identity import APPROVALS_SEGMENT
from sidecar.model import JsonObject, JsonValue
from sidecar.oauth import ProofMaker
from sidecar.printing import escaped

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_TOKEN: Final = click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
_CONSOLE: Final = Console(soft_wrap=True)
_TIMEOUT_S: Final = 60.0
_LONGEST_ANSWER: Final = 64 * 2**20
_LONGEST_TOKEN: Final = 65_536

_NONCE: Final = "DPoP-Nonce"

_Decorated = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """Where the calls wait, and with what its caller proves who they are."""

    url: str | None
    token_file: Path
    ca: Path | None
    proof_key_file: Path | None

    def send(self, method: str, approval_id: str, asked: JsonObject | None) -> JsonObject:
        """Send one request; where it is not carried out, say why and end."""
        try:
            proofs = None if self.proof_key_file is None else _proofs(self.proof_key_file)
            request = _DeskRequest(
                method=method,
                approval_id=approval_id,
                asked=asked,
                url=self.url or _configured(),
                token=_token(self.token_file),
                proofs=proofs,
            )
            return _exchange(request, self.ca)
        except ApprovalCommandError as error:
            click.echo(f"mcp-sidecar: {escaped(str(error))}", err=True)
            sys.exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _DeskRequest:
    """What is sent."""

    method: str
    approval_id: str
    asked: JsonObject | None
    url: str
    token: str
    proofs: ProofMaker | None

    @property
    def path(self) -> str:
        """The path below the MCP endpoint."""
        base = urlsplit(self.url).path.rstrip("/")
        return f"{base}{APPROVALS_SEGMENT}{'/' if self.approval_id else ''}{self.approval_id}"

    def headers(self, nonce: str | None) -> dict[str, str]:
        """Return the headers; a bound token goes with a proof that no other request has."""
        found = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        if self.asked is not None:
            found["Content-Type"] = "application/json"
        if self.proofs is not None:
            address = urlsplit(self.url)
            uri = f"{address.scheme}://{address.netloc}{self.path}"
            now_s, proof_id = int(time.time()), secrets.token_urlsafe(16)
            proof = self.proofs.proof(self.token, self.method, uri, now_s=now_s, proof_id=proof_id, nonce=nonce)
            found |= {"Authorization": f"DPoP {self.token}", "DPoP": proof}
        return found


class ApprovalCommandError(Exception):
    """The command was not carried out; the text says why."""


def _options(command: _Decorated) -> _Decorated:
    """Add what every command of the group takes."""

    def with_desk(
        *, url: str | None, token_file: Path, ca: Path | None, proof_key_file: Path | None, **more: Any
    ) -> None:
        command(desk=_Desk(url=url, token_file=token_file, ca=ca, proof_key_file=proof_key_file), **more)

    found: _Decorated = wraps(command)(with_desk)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON."),
        click.option("--ca", type=_FILE, help="Certificates (PEM) that the sidecar's is checked against."),
        click.option(
            "--token-file", type=_TOKEN, required=True, help="A file with your own access token; `-` is standard input."
        ),
        click.option(
            "--proof-key-file",
            type=_FILE,
            help="The private key (PEM) that the token is bound to (DPoP), where it is; nothing of it is sent.",
        ),
        click.option("--url", metavar="URL", help="The sidecar's MCP endpoint; default: resource_url."),
    ):
        found = option(found)
    return found


@click.group()
def approvals() -> None:
    """Calls that wait for a second person: yours to give, with a token of your own.

    You see what policy lets you approve. Nobody approves a call of their own.
    """


@approvals.command("list")
@_options
def list_(*, desk: _Desk, as_json: bool) -> None:
    """List the calls that wait and that you may approve."""
    answer = desk.send("GET", "", None)
    if as_json:
        _CONSOLE.print_json(data=answer)
        return
    rows: Any = answer.get("approvals")
    for row in rows:
        who = row["requester"]
        lines = [
            f"{row['id']}  {row['tool']} by {who['id']} ({who['issuer']}) through {who['agent']}",
            f"    until {row['expires']}",
            *(f"    {one}" for one in _accesses(row)),
        ]
        for line in lines:
            click.echo(escaped(line))
    if not rows:
        click.echo("no call waits for you")
    if answer.get("incomplete"):
        click.echo("mcp-sidecar: policy could not be asked about every call; there may be more", err=True)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@_options
def show(*, approval_id: str, desk: _Desk, as_json: bool) -> None:
    """Show one call: who makes it through which agent, what it touches, and its arguments."""
    answer: Any = desk.send("GET", approval_id, None)
    if as_json:
        _CONSOLE.print_json(data=answer)
        return
    who = answer["requester"]
    lines = [
        f"{answer['tool']} on server {answer['server']}: {answer['state']} until {answer['expires']}",
        f"by {who['id']} of {who['issuer']}, through {who['agent']}",
        *_accesses(answer),
        f"request {answer['request_id']}, trace {answer['trace_id']}",
        json.dumps(answer["arguments"], indent=2, ensure_ascii=False),
    ]
    for line in lines:
        click.echo(escaped(line, keep="\n"))


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="For the evidence; the caller does not see it.")
@_options
def approve(*, approval_id: str, reason: str, desk: _Desk, as_json: bool) -> None:
    """Approve one call: the same call, by the same user through the same agent, passes once."""
    _decide(approval_id, "approve", reason, desk, as_json=as_json)


@approvals.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="For the evidence; the caller does not see it.")
@_options
def deny(*, approval_id: str, reason: str, desk: _Desk, as_json: bool) -> None:
    """Deny one call: the same call is refused until the time that it would have waited is over."""
    _decide(approval_id, "deny", reason, desk, as_json=as_json)


def _decide(approval_id: str, decision: str, reason: str, desk: _Desk, *, as_json: bool) -> None:
    done = desk.send("POST", approval_id, {"decision": decision, "reason": reason})
    if as_json:
        _CONSOLE.print_json(data=done)
    else:
        click.echo(escaped(f"{done['state']}: {approval_id}, until {done['expires']}"))


def _accesses(row: Any) -> list[str]:
    """Say what a call touches; what waits for the approval is marked."""
    found = []
    for one in row["accesses"]:
        target = one.get("target")
        name = f"{target['kind']} {target['id']}" if target else f"{one['database']}.{one['collection']}"
        found.append(f"{one['kind']} {name} of team {one['owner']}{' (waits)' if one['waits'] else ''}")
    return found


def _configured() -> str:
    try:
        return required().resource_url
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or name the sidecar's MCP endpoint with --url") from None


def _token(file: Path) -> str:
    """Read the token; a command line would show it to every process of the machine."""
    try:
        text = sys.stdin.read(_LONGEST_TOKEN) if str(file) == "-" else file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ApprovalCommandError(f"{file} cannot be read as a token: {type(error).__name__}") from error
    token = text.strip()
    if not token or not token.isprintable() or " " in token:
        raise ApprovalCommandError(f"{file} does not hold one token")
    return token


def _proofs(file: Path) -> ProofMaker:
    try:
        return ProofMaker(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ApprovalCommandError(f"{file} cannot be used to prove who has the token: {error}") from error


def _exchange(request: _DeskRequest, ca: Path | None) -> JsonObject:
    """Send one request and return its answer; no redirect is followed, since the token would go along.

    Raises:
        ApprovalCommandError: it was not carried out.
    """
    if request.approval_id and not request.approval_id.replace("-", "").replace("_", "").isalnum():
        raise ApprovalCommandError("that is no id of an approval")
    status, answer, nonce = _sent(request, ca, None)
    if status == HTTPStatus.UNAUTHORIZED and request.proofs is not None and nonce is not None:
        status, answer, _ = _sent(request, ca, nonce)  # RFC 9449 section 8: the server says what proofs have in them
    if status != HTTPStatus.OK or not isinstance(answer, dict):
        raise ApprovalCommandError(f"not done: {_said(status, answer)}")
    return answer


def _sent(request: _DeskRequest, ca: Path | None, nonce: str | None) -> tuple[int, JsonValue, str | None]:
    """Return the status, the body and the nonce of one answer."""
    body = None if request.asked is None else json.dumps(request.asked).encode()
    connection = _connection(urlsplit(request.url), ca)
    try:
        connection.request(request.method, request.path, body, request.headers(nonce))
        response = connection.getresponse()
        text = response.read(_LONGEST_ANSWER)
        answer = strict_json.DECODER.decode(text.decode("utf-8")) if text else None
        return response.status, answer, response.headers.get(_NONCE)
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise ApprovalCommandError(f"no answer from {request.url}: {why}") from error
    except ValueError as error:
        raise ApprovalCommandError(f"{request.url} is not the endpoint of a sidecar") from error
    finally:
        connection.close()


def _said(status: int, answer: Any) -> str:
    """Return what the sidecar says of a refusal."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    if message is None and status == HTTPStatus.NOT_FOUND:
        return "this sidecar keeps no approvals (approvals.store), or that is not its MCP endpoint"
    return f"{message or 'refused'} ({status})"


def _connection(address: SplitResult, ca: Path | None) -> http.client.HTTPConnection:
    try:
        host, port = address.hostname or "", address.port
    except ValueError:
        host, port = "", None
    if address.scheme == "http" and is_loopback(host):
        return http.client.HTTPConnection(host, port or 80, timeout=_TIMEOUT_S)
    if address.scheme != "https" or not host:
        raise ApprovalCommandError("the endpoint is an https:// URL; http:// is for loopback addresses only")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ApprovalCommandError(f"{ca} cannot be used: {error.strerror or error}") from error
    return http.client.HTTPSConnection(host, port or 443, timeout=_TIMEOUT_S, context=context)
