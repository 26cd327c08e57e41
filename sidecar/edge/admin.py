"""The admin listener: liveness, readiness, metrics. For probes and scrapers; it never meets a client."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.addresses import is_loopback
from sidecar.edge import admission, origins
from sidecar.edge.server import COMMON_HEADERS
from sidecar.edge.statuses import http_status
from sidecar.errors import HostRefused, OriginRefused
from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject, JsonValue

ReadinessCheck = Callable[[], Awaitable[Mapping[str, bool]]]
"""Name of each check → whether it holds now."""

Degraded = Callable[[], Sequence[str]]
"""Names of what is not as it should be while everything still serves."""

MetricsText = Callable[[], tuple[bytes, str]]
"""The metrics as text, and their Content-Type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminNames:
    """Which names the admin listener answers to."""

    hosts: frozenset[str]
    """See ``admission.check_host``."""
    addresses: bool
    """Any address in ``Host`` too: probes dial the address that the platform gave this process, which it does not know.
    A page in a browser that was rebound to it would carry a name."""
    origins: frozenset[str]
    """See ``admission.check_origin``."""

    @classmethod
    def of(cls, listen_host: str, more: Collection[str] = ()) -> Self:
        """Return the names of a listener; ``more`` are the settings'."""
        return cls(
            hosts=origins.admin_hosts(listen_host, more),
            addresses=not is_loopback(listen_host),
            origins=origins.machine_origins(listen_host),
        )

    def check(self, headers: admission.Headers) -> None:
        """Refuse a request that a page in a browser may have been tricked into (DNS rebinding).

        Raises:
            OriginRefused: ``Host`` or ``Origin`` is not this listener's.
        """
        if len(headers.getall("Host", ())) != 1 or len(headers.getall("Origin", ())) > 1:
            raise HostRefused("not exactly one Host, or several Origins")
        if not (self.addresses and origins.is_address(headers["Host"])):
            admission.check_host(headers, self.hosts)
        admission.check_origin(headers, self.origins)


def build_admin_application(
    readiness: ReadinessCheck, metrics: MetricsText, degraded: Degraded = tuple, names: AdminNames | None = None
) -> web.Application:
    """Return the application of the admin listener.

    Args:
        readiness: asked on every ``/readyz``. No check at all is not ready (law 3: empty is an error).
        metrics: asked on every ``/metrics``.
        degraded: asked on every ``/readyz``; said in its body, without a say in its status.
        names: which names it answers to; this machine's own by default.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        checks = dict(await readiness())
        ready = bool(checks) and all(checks.values())
        failing: list[JsonValue] = [*sorted(name for name, holds in checks.items() if not holds)]
        answer: JsonObject = {"ready": ready, "failing": failing}
        if concerns := [*degraded()]:
            answer["degraded"] = [*concerns]
        body = jsonrpc.encode(answer)
        return web.Response(status=200 if ready else 503, body=body, content_type="application/json")

    async def prometheus(_request: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    known = names or AdminNames.of("127.0.0.1")

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            known.check(request.headers)
        except OriginRefused as error:
            return web.Response(status=http_status(error), text=f"{error.public}\n")
        return await handler(request)

    application = web.Application(middlewares=[check])
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", prometheus)
    application.on_response_prepare.append(_add_common_headers)
    return application


async def _add_common_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_HEADERS)
