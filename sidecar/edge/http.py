"""The MCP endpoint over HTTP: routes, limits, statuses. Decides nothing about a message.

The order for every request to the endpoint: target and headers, Host, Origin, credential syntax, then who is calling,
then media types and size, then the message. Cheap checks come before those that cost a signature, and nothing of a body
is read for a caller who is not known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from aiohttp import web

from sidecar.edge import admission
from sidecar.edge.approvals import ApprovalRoutes
from sidecar.edge.bodies import BodyReader, NotKept
from sidecar.edge.certificates import CertificateReader
from sidecar.edge.forwarded import TrustedProxies
from sidecar.edge.large_messages import BYTES_IN_ALL, BYTES_OF_ONE, LargeMessages
from sidecar.edge.resource import ProtectedResource
from sidecar.edge.server import COMMON_HEADERS, departed, give_up
from sidecar.edge.statuses import http_status
from sidecar.edge.streams import KEEP_ALIVE, PendingEvents, frame
from sidecar.enforcement import (
    LARGE_BYTES,
    Accepted,
    Answer,
    Caller,
    EnforcementPoint,
    Exchange,
    Refused,
    Reply,
    Stream,
)
from sidecar.errors import (
    ConfigurationError,
    InvalidRequest,
    LegRefused,
    MessageIncomplete,
    MessageTooLarge,
    SidecarError,
)
from sidecar.identity import WELL_KNOWN, ResourceUri
from sidecar.mcp import Ends, Era, revision
from sidecar.saturation import ByteBudgetSpent, retry_after_s

_RETRY_LATER: Final = frozenset({429, 503})

_READER: Final = web.RequestKey("reader", str)
"""The origin of a browser's page that may read the answer."""

_NONCE: Final = web.RequestKey("nonce", str)
"""What the next proof may carry (RFC 9449 section 9)."""

_PAGE_READS: Final = ("Mcp-Session-Id", "WWW-Authenticate", "Retry-After", "DPoP-Nonce")
_PAGE_SENDS: Final = (
    "Authorization",
    "Content-Type",
    "Accept",
    "Mcp-Session-Id",
    "MCP-Protocol-Version",
    "Mcp-Method",
    "Mcp-Name",
    "Last-Event-ID",
    "DPoP",
    "traceparent",
    "tracestate",
)
"""Headers that pages may read and send beside those that need no leave (Fetch section 2.2.2)."""

_OF_A_SESSION: Final = ("Mcp-Session-Id", "MCP-Protocol-Version")
"""A GET with neither is how clients of HTTP+SSE begin, which is not served (MCP 2025-03-26, transports, backwards
compatibility: 405)."""

_CLOSING_ERRORS: Final = (MessageTooLarge, MessageIncomplete)
"""After these the rest of the body is not worth reading, so the connection cannot be used again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """What the edge needs to know; seconds and bytes.

    Raises:
        ConfigurationError: a limit that would be none, or a resource that clients could not use.
    """

    resource_uri: ResourceUri
    authorization_servers: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    proof_algorithms: tuple[str, ...] = ()
    """See ``ProtectedResource``."""
    allowed_hosts: frozenset[str]
    """See ``origins.default_hosts`` and ``admission.check_host``."""
    allowed_origins: frozenset[str] = frozenset()
    """See ``origins.default_origins`` and ``admission.check_origin``."""
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    """Whose word about the client's address counts."""
    nonce: Callable[[], str] | None = None
    """The nonce that proofs may carry now; None where none has to."""
    certificates: CertificateReader | None = None
    """Which certificate a request comes with; None where no issuer's tokens may be bound to one."""
    max_request_bytes: int = 1_000_000
    """Below the MongoDB MCP server's own 1 MiB."""
    large_bytes_of_one: int = BYTES_OF_ONE
    """See ``LargeMessages``."""
    large_bytes_in_all: int = BYTES_IN_ALL
    body_timeout_s: float = 30.0
    keep_alive_s: float = 15.0
    """Between two comments on a silent stream (M-08)."""
    write_timeout_s: float = 30.0
    """A client that does not read its stream for so long has left."""

    def __post_init__(self) -> None:
        times = (self.body_timeout_s, self.keep_alive_s, self.write_timeout_s)
        if self.max_request_bytes < 1 or min(times) <= 0:
            raise ConfigurationError("every limit and timeout of the listener must be more than 0")
        if not self.allowed_hosts:
            raise ConfigurationError("allowed_hosts is empty: name the host that clients connect to")

    @property
    def resource(self) -> ProtectedResource:
        """The endpoint as OAuth sees it; raises ConfigurationError where it is not usable."""
        return ProtectedResource(
            uri=self.resource_uri,
            authorization_servers=self.authorization_servers,
            scopes=self.scopes,
            proof_algorithms=self.proof_algorithms,
            certificates=self.certificates is not None,
        )


def build_application(pep: EnforcementPoint, config: EdgeConfig) -> web.Application:
    """Return the application of the public listener; ``sidecar.edge.server.serve`` runs it.

    Raises:
        ConfigurationError: the configuration is not usable.
    """
    edge = _Edge(pep, config)
    application = web.Application()
    for path in (*edge.paths, "/{tail:.*}"):  # what is spelled out is found without a regular expression
        application.router.add_route("*", path, edge.dispatch, expect_handler=_promise_nothing)
    application.on_response_prepare.append(_add_common_headers)
    application.on_shutdown.append(edge.close)
    application.on_cleanup.append(edge.stop)
    return application


async def _promise_nothing(request: web.Request) -> None:
    """Leave ``100-continue`` to ``BodyReader``, once the caller is known; aiohttp's own answer quotes other values."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="Unknown expectation\n")


async def _add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_HEADERS)
    if not len(request):
        return
    if (nonce := request.get(_NONCE)) is not None:
        response.headers["DPoP-Nonce"] = nonce
    if (reader := request.get(_READER)) is not None:
        response.headers["Access-Control-Allow-Origin"] = reader
        response.headers["Access-Control-Expose-Headers"] = ", ".join(_PAGE_READS)
        response.headers["Vary"] = "Origin"


_MethodHandler = Callable[[web.Request, Exchange, Caller], Awaitable[web.StreamResponse]]


class _Edge:
    """The endpoint and its metadata. Routing is by the exact target, so that no rule of a router stands between."""

    def __init__(self, pep: EnforcementPoint, config: EdgeConfig) -> None:
        self._pep = pep
        self._config = config
        self._resource = config.resource
        self._metadata = self._resource.metadata()
        self._bodies = BodyReader(config.max_request_bytes, config.body_timeout_s)
        self._large = LargeMessages(config.large_bytes_of_one, config.large_bytes_in_all)
        self.paths = _with_and_without_slash(self._resource.path)
        self._descriptions = _with_and_without_slash(WELL_KNOWN) | _with_and_without_slash(self._resource.metadata_path)
        desk = pep.approvals
        self._approvals = None if desk is None else ApprovalRoutes(desk, config.resource_uri, config.body_timeout_s)
        self._handlers: dict[str, _MethodHandler] = {"POST": self._post, "GET": self._get, "DELETE": self._delete}

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of any kind."""
        target = request.raw_path.partition("?")[0]
        if target in self._descriptions:
            return self._describe(request)
        place = self._approvals.place(target) if self._approvals is not None else None
        if self._approvals is not None and place is not None:
            if request.method not in place.methods:
                return web.Response(status=405, headers={"Allow": ", ".join(place.methods)})
            return await self._admit(request, partial(self._approvals.answer, place), {place.path}, place.uri)
        if target not in self.paths and request.path not in self.paths:
            return web.Response(status=404)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return await self._preflight(request)
        handler = self._handlers.get(request.method)
        if handler is None:
            return web.Response(status=405, headers={"Allow": ", ".join(self._handlers)})
        return await self._admit(request, handler, self.paths, self._config.resource_uri)

    async def close(self, _application: web.Application) -> None:
        """End the streams of no call; called when the listener has closed."""
        self._pep.close_streams()

    async def stop(self, _application: web.Application) -> None:
        """End what is still under way; called when no connection is left."""
        await self._pep.stop()

    def _describe(self, request: web.Request) -> web.Response:
        """Answer for the metadata: public, and readable by scripts of any origin (A-01)."""
        readable = {"Access-Control-Allow-Origin": "*"}
        match request.method:
            case "GET" | "HEAD":
                return web.Response(body=self._metadata, content_type=admission.JSON, headers=readable)
            case "OPTIONS":  # clients in pages add headers that simple requests do not have; Inspector 1.0.3 both
                allowed = {
                    "Access-Control-Allow-Methods": "GET, HEAD",
                    "Access-Control-Allow-Headers": "MCP-Protocol-Version, Content-Type",
                }
                return web.Response(status=204, headers=readable | allowed)
            case _:
                return web.Response(status=405, headers={"Allow": "GET, HEAD, OPTIONS"})

    async def _admit(
        self, request: web.Request, handler: _MethodHandler, paths: Collection[str], uri: ResourceUri
    ) -> web.StreamResponse:
        exchange = self._exchange_of(request)
        if self._config.nonce is not None and "DPoP" in request.headers:
            request[_NONCE] = self._config.nonce()
        try:
            self._check(request, paths)
            certificate = self._certificate(request)
            credential = admission.credential(request.headers, request.method, uri, certificate)
        except SidecarError as error:
            return self._refused(await self._pep.refuse(error, exchange))
        caller = await self._pep.authenticate(credential, exchange)
        return self._refused(caller) if isinstance(caller, Refused) else await handler(request, exchange, caller)

    def _certificate(self, request: web.Request) -> str | None:
        reader = self._config.certificates
        return None if reader is None else reader.thumbprint(request.transport, request.remote or "", request.headers)

    def _check(self, request: web.Request, paths: Collection[str]) -> None:
        """Refuse what is not for this endpoint; a browser's page that is let in may read the answer (Fetch, CORS)."""
        admission.check_version(request.version, request.headers)
        admission.check_target(request.raw_path, paths)
        admission.check_headers(request.headers)
        admission.check_host(request.headers, self._config.allowed_hosts)
        origin = admission.check_origin(request.headers, self._config.allowed_origins)
        if origin is not None:
            request[_READER] = origin

    async def _preflight(self, request: web.Request) -> web.Response:
        """Say what an allowed page may send; preflights carry no token (Fetch section 3.3.8)."""
        try:
            self._check(request, self.paths)
        except SidecarError as error:
            return self._refused(await self._pep.refuse(error, self._exchange_of(request)))
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": ", ".join(self._handlers),
                "Access-Control-Allow-Headers": ", ".join(
                    (*_PAGE_SENDS, *admission.requested_parameters(request.headers))
                ),
                "Access-Control-Max-Age": "600",
            },
        )

    async def _post(self, request: web.Request, exchange: Exchange, caller: Caller) -> web.StreamResponse:
        return await self._render(request, await self._reply(request, exchange, caller))

    async def _reply(self, request: web.Request, exchange: Exchange, caller: Caller) -> Reply:
        try:
            admission.check_content(request.headers)
            admission.check_accept(request.headers, admission.JSON, admission.EVENT_STREAM)
            body = await self._bodies.read(request, caller.identity.key)
        except NotKept as kept:
            return await self._pep.refuse_body(kept.error, kept.ends, exchange, caller)
        except SidecarError as error:
            return await self._pep.refuse(error, exchange, caller)
        if len(body) < LARGE_BYTES:
            self._large.pass_by()
            return await self._pep.enforce(body, exchange, caller, departed(request))
        try:
            async with self._large.turn(caller.identity.key, len(body)) as sent:
                return await self._pep.enforce(body, exchange, caller, departed(request), sent)
        except ByteBudgetSpent as spent:
            return await self._pep.refuse_body(spent, Ends.of(body), exchange, caller)

    async def _delete(self, request: web.Request, exchange: Exchange, caller: Caller) -> web.StreamResponse:
        try:
            _check_leg(exchange)
            if request.body_exists:
                raise InvalidRequest("DELETE with a body")
        except SidecarError as error:
            return self._refused(await self._pep.refuse(error, exchange, caller))
        ended = await self._pep.end_session(exchange, caller)
        return self._refused(ended) if isinstance(ended, Refused) else web.Response(status=204)

    async def _get(self, request: web.Request, exchange: Exchange, caller: Caller) -> web.StreamResponse:
        try:
            _check_leg(exchange)
            if request.headers.keys().isdisjoint(_OF_A_SESSION):
                raise LegRefused("the transport of 2024-11-05")
            if request.body_exists:
                raise InvalidRequest("GET with a body")
            admission.check_accept(request.headers, admission.EVENT_STREAM)
        except SidecarError as error:
            return self._refused(await self._pep.refuse(error, exchange, caller))
        return await self._render(request, await self._pep.listen(exchange, caller))

    async def _render(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Put a reply into HTTP."""
        match reply:
            case Answer():
                headers = {} if reply.session_id is None else {"Mcp-Session-Id": reply.session_id}
                return web.Response(body=reply.body, content_type=admission.JSON, headers=headers)
            case Accepted():
                return web.Response(status=202)
            case Refused():
                return self._refused(reply)
            case Stream():
                async with PendingEvents(reply.events) as source:
                    return await self._listen(request, source)

    async def _listen(self, request: web.Request, source: PendingEvents) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": admission.EVENT_STREAM, "X-Accel-Buffering": "no"})
        await response.prepare(request)
        await self._write(request, response, source)
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, source: PendingEvents) -> None:
        """Write events until the stream ends or the client leaves; a client that stops reading has left."""
        config = self._config
        try:
            async with aclosing(source.until(departed(request), silence_s=config.keep_alive_s)) as events:
                await response.write(KEEP_ALIVE)  # commits the status and tells proxies that the stream is open
                async for event in events:
                    async with asyncio.timeout(config.write_timeout_s):
                        await response.write(KEEP_ALIVE if event is None else frame(event))
        except TimeoutError:
            give_up(request)
        except ConnectionError:
            return  # the client has left, and the stream with it

    def _exchange_of(self, request: web.Request) -> Exchange:
        """Describe a request; a header that is not well-formed counts as absent, because refusals are described too."""
        protocol = admission.token_header(request.headers, "MCP-Protocol-Version")
        stateless = revision.era_of_header(protocol) is Era.STATELESS
        return Exchange(
            transport="http",
            client_ip=self._config.proxies.client(request.remote or "", request.headers),
            # there are none without a handshake: a header is ignored (MCP 2026-07-28, transports, earlier revisions)
            session_id=None if stateless else admission.token_header(request.headers, "Mcp-Session-Id"),
            protocol=protocol,
            last_event_id=None if stateless else admission.token_header(request.headers, "Last-Event-ID"),
            mirrored=admission.mirrored(request.headers) if stateless else None,
            traceparent=admission.token_header(request.headers, "traceparent"),
        )

    def _refused(self, reply: Refused) -> web.Response:
        """Answer with an error's status and challenge.

        Where no request is named the status alone tells, so it is never one of success (M-06).
        """
        error = reply.error
        status = http_status(error, reply.era, addressed=reply.addressed)
        if not reply.addressed:
            status = max(status, 400)
        response = web.Response(status=status, body=reply.body, content_type=admission.JSON)
        challenge = self._resource.challenge(error)
        if challenge is not None:
            response.headers["WWW-Authenticate"] = challenge
        if status in _RETRY_LATER:
            response.headers["Retry-After"] = str(retry_after_s(error) or 1)
        if isinstance(error, LegRefused):
            response.headers["Allow"] = "POST"
        if isinstance(error, _CLOSING_ERRORS):
            response.force_close()
        return response


def _check_leg(exchange: Exchange) -> None:
    """Refuse what belongs to sessions where there are none (MCP 2026-07-28, transports: 405)."""
    if exchange.era is Era.STATELESS:
        raise LegRefused


def _with_and_without_slash(path: str) -> frozenset[str]:
    """Return both ways to write a path: clients add a slash that settings leave out, and the other way round."""
    return frozenset({path.rstrip("/") or "/", f"{path.rstrip('/')}/"})
