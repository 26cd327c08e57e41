"""The URI of the endpoint: one rule for audience, metadata, origin and path; and which spellings of it are one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.identity.resource import ResourceUri, spellings

HOST = "https://mcp.corp.example"


@pytest.mark.parametrize(
    ("text", "origin", "path", "metadata"),
    [
        (f"{HOST}/mcp", HOST, "/mcp", f"{HOST}/.well-known/oauth-protected-resource/mcp"),
        (HOST, HOST, "/", f"{HOST}/.well-known/oauth-protected-resource"),
        (f"{HOST}/", HOST, "/", f"{HOST}/.well-known/oauth-protected-resource"),
        (f"{HOST}/team/mcp/", HOST, "/team/mcp/", f"{HOST}/.well-known/oauth-protected-resource/team/mcp"),
        (
            "http://127.0.0.1:8080/mcp",
            "http://127.0.0.1:8080",
            "/mcp",
            "http://127.0.0.1:8080/.well-known/oauth-protected-resource/mcp",
        ),
        ("http://[::1]:8080", "http://[::1]:8080", "/", "http://[::1]:8080/.well-known/oauth-protected-resource"),
    ],
)
def test_what_clients_are_told_follows_from_the_uri(text: str, origin: str, path: str, metadata: str) -> None:
    uri = ResourceUri.parse(text)

    assert (uri.text, uri.origin, uri.path, uri.metadata_url) == (text, origin, path, metadata)
    assert uri.origin.endswith(f"://{uri.authority}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/mcp",
        "mcp.corp.example/mcp",
        "ftp://mcp.corp.example/mcp",
        "HTTPS://mcp.corp.example/mcp",
        "https:///mcp",
        "https://:8080/mcp",
        "https://user@mcp.corp.example/mcp",
        "https://MCP.corp.example/mcp",
        "https://mcp.corp.example:99999/mcp",
        "https://mcp.corp.example:x/mcp",
        "https://[::1/mcp",
        f"{HOST}/mcp?x=1",
        f"{HOST}/mcp?",
        f"{HOST}/mcp#x",
        f"{HOST}/mcp#",
        f"{HOST}/a%20b",
        f"{HOST}//mcp",
        f"{HOST}/mcp\n",
        "https://mcp.corp.ex\u00e4mple/mcp",
    ],
)
def test_a_uri_that_clients_could_not_use_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ResourceUri.parse(text)


@given(st.text(alphabet="htps:/@?#[].:-_aZ0%\u00e4 \n", max_size=30))
def test_any_text_is_a_uri_as_written_or_refused(rest: str) -> None:
    try:
        uri = ResourceUri.parse(f"https://{rest}")
    except ValueError:
        return
    assert uri.text == f"https://{rest}"
    assert uri.text in {uri.origin + uri.path, uri.origin}
    assert uri.metadata_url.isascii()
    assert uri.metadata_url.isprintable()


@pytest.mark.parametrize(("one", "other"), [(HOST, f"{HOST}/"), ("http://h:8080/", "http://h:8080")])
def test_an_empty_path_and_a_slash_are_one(one: str, other: str) -> None:
    assert spellings(one) == spellings(other) == {one, other}


@pytest.mark.parametrize(
    "audience",
    [
        f"{HOST}/mcp",
        f"{HOST}/mcp/",
        f"{HOST}//",
        f"{HOST}?x",
        f"{HOST}/?x",
        f"{HOST}#x",
        "api://default",
        "api://default/",
        "mcp-sidecar",
        "mcp-sidecar/",
        "urn:example:mcp",
        "HTTPS://mcp.corp.example/",
        "https://",
        "https:///",
    ],
)
def test_nothing_else_has_a_second_spelling(audience: str) -> None:
    assert spellings(audience) == {audience}
