"""Where second persons reach the calls that wait for them: plain JSON over HTTP, below the MCP endpoint.

``GET …/approvals`` lists, ``GET …/approvals/ID`` shows one, ``POST …/approvals/ID`` decides it. It is the same
protected resource as the MCP endpoint: the same tokens, proofs and certificates, checked before anything else.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from sidecar import strict_json
from sidecar.edge import admission
from sidecar.edge.bodies import BodyReader, NotKept
from sidecar.edge.statuses import http_status
from sidecar.enforcement import Answer, ApprovalDesk, Caller, Exchange, Refused
from sidecar.errors import DependencyError, InvalidRequest, SidecarError, TooManyCalls
from sidecar.identity import APPROVALS_SEGMENT, ResourceUri
from sidecar.mcp import Era, jsonrpc
from sidecar.model import JsonObject
from sidecar.saturation import retry_after_s

LONGEST_BODY: Final = 4096

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""What can stand where an id does; whether there is such an approval is nobody's to know without a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskPlace:
    """One of the paths."""

    path: str
    uri: ResourceUri
    """As clients dial it, which proofs of possession name."""
    approval: str
    """An id; empty for the list."""

    @property
    def methods(self) -> tuple[str, ...]:
        """What can be done there."""
        return ("GET", "POST") if self.approval else ("GET",)


class ApprovalRoutes:
    """Puts the desk into HTTP.

    Args:
        desk: decides who sees and does what.
        resource: the MCP endpoint.
        body_timeout_s: seconds for one body.
    """

    def __init__(self, desk: ApprovalDesk, resource: ResourceUri, body_timeout_s: float) -> None:
        self._desk = desk
        self._resource = resource
        self._base = f"{resource.path.rstrip('/')}{APPROVALS_SEGMENT}"
        self._bodies = BodyReader(LONGEST_BODY, body_timeout_s)

    def place(self, target: str) -> DeskPlace | None:
        """Return which path a request's target is; None for one of something else."""
        below = target.removeprefix(self._base) if target.startswith(self._base) else None
        if below is None or (below and not (below[0] == "/" and _ID.fullmatch(below[1:]))):
            return None
        uri = replace(self._resource, text=f"{self._resource.text.rstrip('/')}{APPROVALS_SEGMENT}{below}", path=target)
        return DeskPlace(path=target, uri=uri, approval=below[1:])

    async def answer(
        self, place: DeskPlace, request: web.Request, exchange: Exchange, caller: Caller
    ) -> web.StreamResponse:
        """Answer one request of a known caller; its method is one of the place's."""
        if not place.approval:
            return _rendered(await self._desk.listed(exchange, caller))
        if request.method == "GET":
            return _rendered(await self._desk.shown(place.approval, exchange, caller))
        try:
            admission.check_content(request.headers)
            asked = _read(await self._bodies.read(request, caller.identity.key))
        except NotKept as kept:
            return _rendered(Refused.of(kept.error))
        except SidecarError as error:
            return _rendered(Refused.of(error))
        return _rendered(await self._desk.decided(place.approval, asked, exchange, caller))


def _read(body: bytes) -> JsonObject:
    try:
        asked = strict_json.DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise InvalidRequest("not a JSON object")
    return asked


def _rendered(reply: Answer | Refused) -> web.Response:
    """Answer with JSON, and with the status alone where it says enough to a script."""
    if isinstance(reply, Answer):
        return web.Response(body=reply.body, content_type=admission.JSON)
    error = reply.error
    body: JsonObject = {"error": {"code": error.label, "message": error.public}}
    response = web.Response(status=_status(error), body=jsonrpc.encode(body), content_type=admission.JSON)
    if response.status in {429, 503}:
        response.headers["Retry-After"] = str(retry_after_s(error) or 1)
    return response


def _status(error: SidecarError) -> int:
    """Return the status: here it is all there is, where the endpoint of MCP has JSON-RPC errors."""
    match error:
        case DependencyError():
            return 503
        case TooManyCalls():
            return 429
        case _:
            return max(http_status(error, Era.HANDSHAKE), 400)
