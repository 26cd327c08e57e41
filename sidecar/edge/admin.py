"""The admin listener: liveness, readiness, metrics. For probes and scrapers; it never meets a client."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from sidecar.edge.server import COMMON_HEADERS
from sidecar.mcp.jsonrpc import encode
from sidecar.model import JsonObject, JsonValue

Readiness = Callable[[], Awaitable[Mapping[str, bool]]]
"""Name of each check → whether it holds now."""

Degraded = Callable[[], Sequence[str]]
"""Names of what is not as it should be while everything still serves."""

MetricsText = Callable[[], tuple[bytes, str]]
"""The metrics as text, and their Content-Type."""


def build_admin_application(readiness: Readiness, metrics: MetricsText, degraded: Degraded = tuple) -> web.Application:
    """Return the application of the admin listener.

    Args:
        readiness: asked on every ``/readyz``. No check at all is not ready (law 3: empty is an error).
        metrics: asked on every ``/metrics``.
        degraded: asked on every ``/readyz``; said in its body, without a say in its status.
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
        body = encode(answer)
        return web.Response(status=200 if ready else 503, body=body, content_type="application/json")

    async def prometheus(_request: web.Request) -> web.Response:
        body, content_type = metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    application = web.Application()
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", prometheus)
    application.on_response_prepare.append(_add_common_headers)
    return application


async def _add_common_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(COMMON_HEADERS)
