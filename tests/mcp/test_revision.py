"""Which revision is spoken, which era a message is of, and what those are told that are of none."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import UNSUPPORTED_PROTOCOL_VERSION, UnsupportedProtocolVersionErrorData
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS

from sidecar.errors import InvalidParams, McpRevisionError
from sidecar.mcp.revision import (
    HANDSHAKE,
    LATEST,
    PROTOCOL_VERSION_KEY,
    STATELESS,
    SUPPORTED,
    Era,
    HeaderMismatch,
    McpRevision,
    UnsupportedMcpRevision,
    allows_batch,
    check_header,
    era_of,
    negotiate,
)
from sidecar.model import JsonObject


def test_the_revisions_are_those_of_the_official_sdk():
    assert tuple(McpRevision) == (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS)
    assert set(HANDSHAKE_PROTOCOL_VERSIONS) == HANDSHAKE
    assert LATEST == LATEST_HANDSHAKE_VERSION
    assert set(MODERN_PROTOCOL_VERSIONS) == STATELESS
    assert set(SUPPORTED) == set(McpRevision)


@pytest.mark.parametrize("revision", sorted(HANDSHAKE))
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


@pytest.mark.parametrize("session", sorted(HANDSHAKE))
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


def claim(value):
    return {"_meta": {PROTOCOL_VERSION_KEY: value}}


STATELESS_MARK = "2026-07-28"
ERAS = [
    # header, params, over HTTP: era or error
    (None, {}, True, Era.HANDSHAKE),
    ("2025-11-25", {}, True, Era.HANDSHAKE),
    ("2027-01-01", {}, True, Era.HANDSHAKE),  # left to the session, whose revision it is not
    (None, {"_meta": {}}, True, Era.HANDSHAKE),
    (None, {"_meta": PROTOCOL_VERSION_KEY}, True, Era.HANDSHAKE),
    (None, {PROTOCOL_VERSION_KEY: STATELESS_MARK}, True, Era.HANDSHAKE),
    (None, {"_meta": {"protocolVersion": STATELESS_MARK}}, True, Era.HANDSHAKE),
    (STATELESS_MARK, {}, True, Era.STATELESS),
    (STATELESS_MARK, claim(STATELESS_MARK), True, Era.STATELESS),
    (STATELESS_MARK, claim("2027-01-01"), True, Era.STATELESS),  # which the mirrored header contradicts
    (None, claim(STATELESS_MARK), True, HeaderMismatch),
    (None, claim("2025-11-25"), True, HeaderMismatch),
    (None, claim(None), True, HeaderMismatch),
    ("2025-11-25", claim(STATELESS_MARK), True, HeaderMismatch),
    ("2025-06-18", claim("2025-11-25"), True, HeaderMismatch),
    ("2027-01-01", claim(STATELESS_MARK), True, HeaderMismatch),
    ("2025-11-25", claim("2025-11-25"), True, InvalidParams),
    ("2027-01-01", claim("2027-01-01"), True, UnsupportedMcpRevision),
    ("zzz", claim("zzz"), True, UnsupportedMcpRevision),
    (None, claim(STATELESS_MARK), False, Era.STATELESS),
    (None, claim("2027-01-01"), False, Era.STATELESS),  # and unsupported there
    (None, {}, False, Era.HANDSHAKE),
    (STATELESS_MARK, {}, False, Era.HANDSHAKE),
]


@pytest.mark.parametrize(("header", "params", "over_http", "expected"), ERAS)
def test_header_and_body_together_tell_the_era_or_contradict_each_other(header, params, over_http, expected):
    found: object = None
    try:
        found = era_of(header, "tools/call", params, over_http=over_http)
    except (HeaderMismatch, InvalidParams, UnsupportedMcpRevision) as error:
        found = type(error)
    assert found is expected


@pytest.mark.parametrize("header", [None, *McpRevision, "2027-01-01", "zzz"])
def test_an_initialize_without_an_envelope_is_of_the_handshake_under_every_header(header):
    params: JsonObject = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "c", "version": "1"},
    }
    assert era_of(header, "initialize", params, over_http=True) is Era.HANDSHAKE


def test_an_initialize_with_an_envelope_is_a_method_that_the_revision_does_not_have():
    assert era_of(STATELESS_MARK, "initialize", claim(STATELESS_MARK), over_http=True) is Era.STATELESS


@given(st.none() | st.text() | st.sampled_from(sorted(McpRevision)), st.text() | st.none() | st.integers())
def test_no_header_with_a_body_that_says_something_else_is_of_an_era(header, claimed):
    found: Era | None = None
    with suppress(HeaderMismatch, InvalidParams, UnsupportedMcpRevision):
        found = era_of(header, "tools/call", claim(claimed), over_http=True)
    assert found is (Era.STATELESS if header in STATELESS else None)


@pytest.mark.parametrize("requested", ["x" * 33, "2026\n", "\ud800", "a\u202eb"])
def test_a_strange_revision_is_not_repeated(requested):
    assert UnsupportedMcpRevision(requested).data == {"supported": [*SUPPORTED], "requested": ""}


def test_the_requested_revision_is_repeated_and_both_eras_are_listed():
    error = UnsupportedMcpRevision("2027-01-01")
    assert error.code == UNSUPPORTED_PROTOCOL_VERSION
    told = UnsupportedProtocolVersionErrorData.model_validate(error.data)
    assert told.requested == "2027-01-01"
    assert {*told.supported} == {*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS}
