"""``subscriptions/listen`` of MCP 2026-07-28: what a client asks to be told, and the messages that tell it.

Every message carries the id of the request that opened the stream, so that a client can tell its streams apart (basic,
patterns, subscriptions).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sidecar.errors import InvalidParams
from sidecar.mcp.jsonrpc import RequestId, encode, encode_notification, encode_result
from sidecar.mcp.resources import UPDATED, is_uri
from sidecar.mcp.stateless_results import ending
from sidecar.model import JsonObject

SUBSCRIPTION_KEY: Final = "io.modelcontextprotocol/subscriptionId"

MAX_RESOURCES: Final = 64
"""URIs that one request may name: each is decided as a read is."""

_FLAGS: Final = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What of a request to listen is honoured: changes of the lists of tools and prompts, and of resources.

    ``resources`` are those that it names; which of them are honoured is for enforcement to say.
    """

    id: RequestId
    tools_list_changed: bool
    prompts_list_changed: bool = False
    resources: tuple[str, ...] = ()

    def acknowledged(self, resources: Sequence[str] = ()) -> bytes:
        """Return the first message: what is honoured, of the resources only these."""
        honoured: JsonObject = {"toolsListChanged": True} if self.tools_list_changed else {}
        if self.prompts_list_changed:
            honoured["promptsListChanged"] = True
        if resources:
            honoured["resourceSubscriptions"] = [*resources]
        return encode_notification(
            "notifications/subscriptions/acknowledged", {"notifications": honoured, "_meta": self._meta()}
        )

    def tools_changed(self) -> bytes:
        """Return the message that the list of tools may have changed."""
        return encode_notification("notifications/tools/list_changed", {"_meta": self._meta()})

    def prompts_changed(self) -> bytes:
        """Return the message that the list of prompts may have changed."""
        return encode_notification("notifications/prompts/list_changed", {"_meta": self._meta()})

    def resource_updated(self, uri: str) -> bytes:
        """Return the message that a resource may have changed."""
        return encode_notification(UPDATED, {"uri": uri, "_meta": self._meta()})

    def ended(self, server_version: str) -> bytes:
        """Return the answer to the request, which ends it: nothing more will come."""
        return encode_result(self.id, encode(ending(server_version, self._meta())))

    def _meta(self) -> JsonObject:
        return {SUBSCRIPTION_KEY: self.id}


def parse_listen(request_id: RequestId, params: JsonObject, *, prompts: bool = False) -> Subscription:
    """Return what is honoured of a request; a type of notice that is not known here is left out.

    Args:
        request_id: the request's.
        params: the request's.
        prompts: whether there are prompts.

    Raises:
        InvalidParams: not of the form.
    """
    wanted = params.get("notifications")
    if not params.keys() <= {"_meta", "notifications"} or not isinstance(wanted, dict):
        raise InvalidParams("notifications is not an object, or there is an unknown key beside it")
    if not all(isinstance(wanted.get(flag), bool | None) for flag in _FLAGS):
        raise InvalidParams("a type of notice is on or off")
    uris = wanted.get("resourceSubscriptions")
    if uris is not None and not (
        isinstance(uris, list) and len(uris) <= MAX_RESOURCES and all(is_uri(uri) for uri in uris)
    ):
        raise InvalidParams("resourceSubscriptions is not a list of URIs")
    return Subscription(
        id=request_id,
        tools_list_changed=wanted.get("toolsListChanged") is True,
        prompts_list_changed=prompts and wanted.get("promptsListChanged") is True,
        resources=tuple(dict.fromkeys(uri for uri in uris or () if isinstance(uri, str))),
    )
