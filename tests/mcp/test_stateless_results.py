"""Results as clients of 2026-07-28 read them, judged by the official SDK's models of that revision."""

import json

import mcp_types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import UpstreamProtocolViolation
from sidecar.mcp.stateless_results import SERVER_KEY, completed, discovered, listed
from sidecar.mcp.tools import tools_list_result

INFO = {"name": "mcp-sidecar", "version": "1"}
RESULT = b'{"content":[{"type":"text","text":"a"}],"_meta":{"x/y":1},"isError":false}'


def read(result: bytes) -> dict[str, object]:
    value = json.loads(result)  # noqa: TID251 - our own result
    assert isinstance(value, dict)
    return value


def test_what_is_discovered_is_of_the_schema_and_lists_both_eras() -> None:
    found = mcp_types.DiscoverResult.model_validate_json(discovered("1", "Ask first."))
    assert found.supported_versions == ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
    assert found.instructions == "Ask first."
    assert found.capabilities.tools is not None
    assert (found.result_type, found.cache_scope) == ("complete", "private")
    assert found.ttl_ms > 0
    assert read(discovered("1", "x"))["_meta"] == {SERVER_KEY: INFO}


def test_a_list_is_this_callers_and_nobody_elses() -> None:
    shown = listed(tools_list_result([{"name": "find", "inputSchema": {"type": "object"}}]), "1")
    found = mcp_types.ListToolsResult.model_validate_json(shown)
    assert [tool.name for tool in found.tools] == ["find"]
    assert (found.result_type, found.cache_scope) == ("complete", "private")
    assert read(shown)["_meta"] == {SERVER_KEY: INFO}


def test_a_result_says_that_it_is_complete_and_who_answers_and_keeps_what_it_had() -> None:
    assert read(completed(RESULT, "1")) == {
        "content": [{"type": "text", "text": "a"}],
        "_meta": {"x/y": 1, SERVER_KEY: INFO},
        "isError": False,
        "resultType": "complete",
    }


def test_who_answers_is_not_the_servers_to_say() -> None:
    lying = b'{"content":[],"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"other","version":"9"}}}'
    assert read(completed(lying, "1"))["_meta"] == {SERVER_KEY: INFO}


@pytest.mark.parametrize("member", ["inputRequests", "requestState", "task", "ttlMs", "cacheScope"])
def test_a_server_of_an_earlier_revision_cannot_make_the_client_act(member: str) -> None:
    assert member not in read(completed(b'{"content":[],"%b":{"a":{}}}' % member.encode(), "1"))


@pytest.mark.parametrize(
    "result",
    [
        b'{"content":[],"resultType":"input_required"}',
        b'{"content":[],"resultType":"task"}',
        b'{"content":[],"resultType":null}',
        b'{"content":[],"resultType":"complete","resultType":"task"}',
        b'{"content":[],"result\\u0054ype":"task"}',
        b'{"content":[],"_meta":[]}',
        b"[]",
        b"{",
        b"\xff",
    ],
)
def test_what_is_no_complete_result_is_not_passed_on(result: bytes) -> None:
    with pytest.raises(UpstreamProtocolViolation):
        completed(result, "1")


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3)))
def test_every_other_member_is_kept_once(members: dict[str, object]) -> None:
    ours = {"resultType", "_meta", "inputRequests", "requestState", "task", "ttlMs", "cacheScope"}
    given = {name: value for name, value in members.items() if name not in ours}
    found = read(completed(json.dumps(given).encode(), "1"))
    assert {name: value for name, value in found.items() if name not in ours} == given
