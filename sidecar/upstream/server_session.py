"""What was agreed with a server behind HTTP, the headers that say so, and what a status says of it."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import aiohttp

from sidecar.errors import UpstreamProtocolViolation, UpstreamRefused, UpstreamUnreachable
from sidecar.questions import CallQuestions, ClientLacks, QuestionKind
from sidecar.upstream import stateless
from sidecar.upstream.connections import ServerConnections
from sidecar.upstream.messages import Refusal
from sidecar.upstream.redaction import Redactor

FAREWELL_S: Final = 2.0
"""How long a server has to take in that a session or a call is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSession:
    """What was agreed with a server."""

    revision: str
    id: str | None
    """None where the server keeps no sessions."""
    kinds: frozenset[QuestionKind] = frozenset()
    """What the server was told that its client can be asked."""

    @property
    def stateless(self) -> bool:
        """Whether each request says everything (MCP 2026-07-28)."""
        return self.revision == stateless.REVISION


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What is agreed for: what the server is told of its client."""

    kinds: frozenset[QuestionKind] = frozenset()
    """What the client can be asked."""
    stateless: bool | None = None
    """Whether 2026-07-28 is tried first; None as the settings say."""

    @classmethod
    def of(cls, questions: CallQuestions | None) -> Self:
        """Return what is agreed for a call: where its client can be asked, in its era if the server has both."""
        return cls() if questions is None else cls(kinds=questions.kinds, stateless=questions.stateless)

    @property
    def in_a_session(self) -> frozenset[QuestionKind]:
        """What can be asked where the server has a handshake; nothing of a client that has none, for it cannot wait."""
        return frozenset() if self.stateless else self.kinds


PLAIN: Final = Declaration()
"""For all calls that nothing is asked about."""


class SessionGone(UpstreamUnreachable):
    """The server does not know what was agreed: the message was not looked at, so it may be sent again."""


class SecretRefused(UpstreamUnreachable):
    """The server does not accept the headers (401 or 403): the message was not looked at."""


def request_headers(own: Mapping[str, str], session: ServerSession | None) -> dict[str, str]:
    """Return the headers of a request; ``own`` are those of the settings."""
    headers = {
        **own,
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": "mcp-sidecar",
    }
    if session is not None:
        headers["MCP-Protocol-Version"] = session.revision
        if session.id is not None:
            headers["MCP-Session-Id"] = session.id
    return headers


def check_status(status: int, session: ServerSession | None) -> None:
    """Return where the answer is worth reading.

    Raises:
        SessionGone: what was agreed is not known any more.
        SecretRefused: the headers are not accepted.
        UpstreamRefused: the request is not accepted.
        UpstreamUnreachable: the server failed.
        UpstreamProtocolViolation: no status that a server gives here.
    """
    match status:
        case 200 | 202:
            return
        case 404 if session is not None:
            # Without sessions: a method that this server does not have (MCP 2026-07-28, transports), such as one of
            # another era that took its place.
            raise SessionGone("the server does not know the session, or has no such method")
        case 401 | 403:
            # Not UpstreamRefused: no call at all gets through, and readiness has to show it.
            raise SecretRefused(f"HTTP status {status}: the server does not accept the secret in headers_file")
        case _ if 400 <= status < 500:  # noqa: PLR2004 -- the client error class of RFC 9110
            raise UpstreamRefused(f"HTTP status {status}")
        case _ if status >= 500:  # noqa: PLR2004 -- the server error class of RFC 9110
            raise UpstreamUnreachable(f"HTTP status {status}")
        case _:
            raise UpstreamProtocolViolation(f"HTTP status {status}")


def check_refusal(refusal: Refusal, session: ServerSession, redactor: Redactor) -> None:
    """Return where the status says more than the JSON-RPC error that came with it.

    Raises:
        SessionGone: the server speaks another era than was agreed; it did not look at the message.
        ClientLacks: the client can answer too little.
        UpstreamRefused: it does not accept the request.
    """
    if refusal.lacks:
        raise ClientLacks(f"error {refusal.code}: the client lacks {sorted(refusal.lacks)}", refusal.lacks)
    gone = stateless.OF_ANOTHER_ERA if session.stateless else {stateless.UNSUPPORTED_REVISION}
    if refusal.code in gone:
        raise SessionGone(f"error {refusal.code}: the server speaks another revision")
    if session.stateless:
        text = redactor.clean(refusal.message.encode("utf-8", "replace"))
        raise UpstreamRefused(f"error {refusal.code}: {text}")


async def farewell(http: ServerConnections, headers: Mapping[str, str], log: logging.Logger) -> None:
    """End a session (DELETE); a server that cannot be told ends it when it is idle."""
    try:
        async with asyncio.timeout(FAREWELL_S), http.exchange("DELETE", headers) as response:
            log.info("the session was ended: HTTP status %d", response.status)
    except (aiohttp.ClientError, OSError) as error:
        log.info("the session could not be ended: %s", type(error).__name__)
