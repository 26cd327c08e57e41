"""The numbers of errors: what JSON-RPC and MCP define, and the sidecar's own outside of every reserved range (M-40)."""

from typing import Any

import msgspec

from sidecar.enforcement import Refused
from sidecar.errors import PolicyDenied, SidecarError
from sidecar.mcp import Era, ResourceNotFound
from sidecar.mcp.revision import HeaderMismatch

OF_JSON_RPC = {-32700, -32600, -32601, -32602, -32603}
OF_MCP = {-32020, -32021, -32022}
RESERVED = range(-32768, -31999)
"""JSON-RPC 2.0, error object; MCP 2026-07-28, basic, error codes."""
WITH_A_SESSION = {ResourceNotFound}
"""Errors that have a code of their own in the handshake revisions only."""


def kinds(of: type[SidecarError]) -> set[type[SidecarError]]:
    return {of}.union(*(kinds(one) for one in of.__subclasses__()))


def allowed(code: int) -> bool:
    return code in OF_JSON_RPC | OF_MCP or code not in RESERVED


def test_every_code_is_one_that_the_specification_leaves_or_defines() -> None:
    found = kinds(SidecarError)
    assert {HeaderMismatch, PolicyDenied} | WITH_A_SESSION < found
    assert {kind.__name__: kind.code for kind in found - WITH_A_SESSION if not allowed(kind.code)} == {}


def test_a_resource_that_is_not_there_has_the_code_of_its_era() -> None:
    def code(era: Era) -> Any:
        return msgspec.json.decode(Refused.of(ResourceNotFound("x:y"), 1, era=era).body)["error"]["code"]

    assert (code(Era.HANDSHAKE), code(Era.STATELESS)) == (-32002, -32602)


def test_a_code_that_is_nearly_one_would_be_seen() -> None:
    assert not any(allowed(code) for code in (-32000, -32002, -32019, -32023, -32042, -32099, -32768))
    assert all(allowed(code) for code in (-31999, -32769, 1, PolicyDenied.code))
