"""Which revision is spoken, and what clients of another era are told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION, UnsupportedProtocolVersionErrorData
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from sidecar.errors import InvalidParams, McpRevisionError
from sidecar.mcp.revision import (
    LATEST,
    MODERN,
    PROTOCOL_VERSION_KEY,
    McpRevision,
    UnsupportedMcpRevision,
    allows_batch,
    check_era,
    check_header,
    modern_claim,
    negotiate,
    unsupported_revision_data,
)


def test_the_revisions_are_those_of_the_official_sdk():
    assert tuple(McpRevision) == HANDSHAKE_PROTOCOL_VERSIONS
    assert LATEST == LATEST_HANDSHAKE_VERSION
    assert set(MODERN_PROTOCOL_VERSIONS) == MODERN


@pytest.mark.parametrize("revision", McpRevision)
def test_a_known_revision_is_agreed_to(revision):
    assert negotiate(revision.value) is revision


@given(
    st.sampled_from(["2026-07-28", "zzz", "", "2025-11-25 ", "2025-13-01", "2027-01-01"])
    | st.text().filter(lambda requested: requested not in HANDSHAKE_PROTOCOL_VERSIONS)
)
def test_an_unknown_revision_is_answered_with_the_latest(requested):
    assert negotiate(requested) is LATEST


@pytest.mark.parametrize("requested", [None, 20251125, True, ["2025-11-25"], {}])
def test_a_revision_that_is_no_string_is_refused(requested):
    with pytest.raises(InvalidParams):
        negotiate(requested)


@pytest.mark.parametrize("session", McpRevision)
def test_the_header_is_the_sessions_revision_or_absent(session):
    check_header(None, session)
    check_header(session.value, session)
    others = {*McpRevision, "2026-07-28", "", "2025-11-25, 2025-11-25", "2025-11-25 ", "DRAFT"} - {session}
    assert len(others) > 5
    for other in others:
        with pytest.raises(McpRevisionError):
            check_header(other, session)


def test_only_one_revision_has_batches():
    assert [revision for revision in McpRevision if allows_batch(revision)] == [McpRevision.V2025_03_26]


MODERN_CLAIMS = [
    ("2026-07-28", {}),
    (None, {"_meta": {PROTOCOL_VERSION_KEY: "2026-07-28"}}),
    ("2025-11-25", {"_meta": {PROTOCOL_VERSION_KEY: "2026-07-28"}}),
    (None, {"_meta": {PROTOCOL_VERSION_KEY: "2025-11-25"}}),
    (None, {"_meta": {PROTOCOL_VERSION_KEY: None}}),
]
HANDSHAKE_CLAIMS = [
    (None, {}),
    ("2025-11-25", {}),
    ("2027-01-01", {}),
    (None, {"_meta": {}}),
    (None, {"_meta": "io.modelcontextprotocol/protocolVersion"}),
    (None, {PROTOCOL_VERSION_KEY: "2026-07-28"}),
    (None, {"_meta": {"protocolVersion": "2026-07-28"}}),
]


@pytest.mark.parametrize(("header", "params"), MODERN_CLAIMS)
def test_either_mark_of_a_stateless_request_is_refused_with_the_revision_that_works(header, params):
    assert modern_claim(header, params)
    with pytest.raises(UnsupportedMcpRevision) as caught:
        check_era(header, params)
    assert caught.value.code == UNSUPPORTED_PROTOCOL_VERSION
    assert UnsupportedProtocolVersionErrorData.model_validate(caught.value.data).supported == [LATEST]


@pytest.mark.parametrize(("header", "params"), HANDSHAKE_CLAIMS)
def test_a_request_without_either_mark_is_left_to_the_session(header, params):
    assert not modern_claim(header, params)
    check_era(header, params)


@pytest.mark.parametrize("requested", ["x" * 33, "2026\n", "\ud800", "a\u202eb"])
def test_a_strange_revision_is_not_repeated(requested):
    assert unsupported_revision_data(requested) == {"supported": ["2025-11-25"], "requested": ""}


def test_the_requested_revision_is_repeated():
    assert unsupported_revision_data("2026-07-28")["requested"] == "2026-07-28"
