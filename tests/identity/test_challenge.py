"""Challenge and metadata: well-formed for the official client, and closed to injection."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.client.auth import utils
from mcp.shared.auth import ProtectedResourceMetadata

from sidecar.identity.challenge import ERRORS, challenge, resource_metadata
from sidecar.identity.resource import ResourceUri

RESOURCE = "https://mcp.corp.example/mcp"
URI = ResourceUri.parse(RESOURCE)
METADATA = "https://mcp.corp.example/.well-known/oauth-protected-resource/mcp"
INJECTIONS = ['x"', "x\\", "x\r\nSet-Cookie: a=b", "x\n", "x\x00", "x\x7f", "ü", ""]


def test_a_challenge_points_to_the_metadata_and_names_the_scopes():
    assert (
        challenge(METADATA, ["mongodb:read", "mongodb:write"])
        == f'Bearer resource_metadata="{METADATA}", scope="mongodb:read mongodb:write"'
    )


def test_a_challenge_without_scopes_has_no_scope_parameter():
    assert challenge(METADATA, []) == f'Bearer resource_metadata="{METADATA}"'


def test_the_official_client_reads_every_parameter():
    value = challenge(METADATA, ["a", "b"], "insufficient_scope", "More scope would do.")
    response = httpx2.Response(403, headers={"WWW-Authenticate": value})
    assert utils.extract_resource_metadata_from_www_auth(httpx2.Response(401, headers=response.headers)) == METADATA
    assert utils.extract_scope_from_www_auth(response) == "a b"
    assert utils.extract_field_from_www_auth(response, "error") == "insufficient_scope"


@pytest.mark.parametrize("error", sorted(ERRORS))
def test_the_errors_of_rfc_6750_are_allowed(error):
    assert challenge(METADATA, [], error).endswith(f', error="{error}"')


@pytest.mark.parametrize("error", ["", "invalid_dpop_proof", "invalid_token ", *INJECTIONS])
def test_no_other_error_is(error):
    with pytest.raises(ValueError):
        challenge(METADATA, [], error)


@pytest.mark.parametrize("bad", INJECTIONS)
def test_nothing_breaks_out_of_its_quotes(bad):
    with pytest.raises(ValueError):
        challenge(METADATA + bad if bad else bad, [])
    with pytest.raises(ValueError):
        challenge(METADATA, ["a", bad])
    with pytest.raises(ValueError):
        challenge(METADATA, ["a"], "invalid_token", bad)


@pytest.mark.parametrize("scope", ["a b", " ", "a "])
def test_one_scope_cannot_pass_for_two(scope):
    with pytest.raises(ValueError):
        challenge(METADATA, [scope])


@given(st.text(), st.lists(st.text(), max_size=3), st.none() | st.text())
def test_a_challenge_is_one_header_line_or_an_error(url, scopes, description):
    try:
        value = challenge("https://" + url, scopes, "invalid_token", description)
    except ValueError:
        return
    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 2 * value.count('="')


def test_the_metadata_is_what_the_official_client_expects():
    document = resource_metadata(URI, ["https://idp.corp.example"], ["mongodb:read"])
    assert document == {
        "resource": RESOURCE,
        "authorization_servers": ["https://idp.corp.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["mongodb:read"],
    }
    assert ProtectedResourceMetadata.model_validate(document).scopes_supported == ["mongodb:read"]
    assert "scopes_supported" not in resource_metadata(URI, ["https://idp.corp.example"], [])


@pytest.mark.parametrize(
    ("servers", "scopes"),
    [
        ([], []),
        (["idp"], []),
        (["https://idp\n"], []),
        (["https://idp"], ["a b"]),
    ],
)
def test_metadata_that_no_client_could_use_is_not_made(servers, scopes):
    with pytest.raises(ValueError):
        resource_metadata(URI, servers, scopes)
