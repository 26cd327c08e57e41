"""The pure checks of a request's head: each refusal beside its near miss."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from sidecar import errors
from sidecar.addresses import is_loopback
from sidecar.edge import admission, origins
from sidecar.edge.resource import ProtectedResource
from sidecar.edge.statuses import HTTP_STATUS, INTERNAL, http_status
from sidecar.edge.streams import frame
from sidecar.enforcement import StreamEvent
from sidecar.errors import (
    ConfigurationError,
    HostRefused,
    InsufficientScope,
    InvalidRequest,
    KeysUnavailable,
    MalformedAuthorization,
    MediaTypeRefused,
    NotAcceptable,
    OriginRefused,
    PolicyDenied,
    SidecarError,
    TokenMissing,
    TokenRejected,
)
from sidecar.identity.resource import ResourceUri
from sidecar.mcp.revision import Era
from sidecar.model import AuthScheme, Credential, UnverifiedToken

RESOURCE = "https://mcp.corp.example/mcp"
URI = ResourceUri.parse(RESOURCE)


def headers(**values: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in values.items()})


@pytest.mark.parametrize("name", admission.SINGLE_HEADERS)
def test_two_copies_of_a_header_that_decides_are_refused_even_if_equal(name: str) -> None:
    one = CIMultiDict({name: "1"})
    admission.check_headers(one)

    one.add(name.lower(), "1")
    with pytest.raises(InvalidRequest):
        admission.check_headers(one)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Accept", "Cookie", "traceparent"])
def test_two_copies_of_another_header_are_of_no_interest(name: str) -> None:
    twice = CIMultiDict([(name, "a"), (name, "b")])

    admission.check_headers(twice)


@pytest.mark.parametrize("value", ["", " ", "a b", "a\tb", "\u00e9", "\udcff", "a\x7f", "x" * 257])
def test_a_session_id_outside_visible_ascii_is_refused_and_never_described(value: str) -> None:
    with pytest.raises(InvalidRequest):
        admission.check_headers(headers(Mcp_Session_Id=value))
    assert admission.token_header(headers(Mcp_Session_Id=value), "Mcp-Session-Id") is None


@pytest.mark.parametrize("value", ["!", "~", "x" * 256, "1868a90c-7d5f"])
def test_a_session_id_of_visible_ascii_is_passed_on(value: str) -> None:
    admission.check_headers(headers(Mcp_Session_Id=value))
    assert admission.token_header(headers(mcp_session_id=value), "Mcp-Session-Id") == value


TARGETS = [
    "/mcp?",
    "/mcp?access_token=x",
    "/mcp/",
    "//mcp",
    "/%6dcp",
    "/mcp#x",
    "http://a/mcp",
    "/MCP",
    "/x/../mcp",
    "*",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_that_is_not_exactly_the_endpoint_is_refused(target: str) -> None:
    admission.check_target("/mcp", {"/mcp"})
    with pytest.raises(InvalidRequest):
        admission.check_target(target, {"/mcp"})


HOSTS = origins.default_hosts(URI, "127.0.0.1") | {"fixed.example:8443"}


@pytest.mark.parametrize(
    "host",
    [
        "mcp.corp.example",
        "MCP.corp.example:443",
        "localhost",
        "localhost:8080",
        "127.0.0.1:1",
        "[::1]:8080",
        "fixed.example:8443",
    ],
)
def test_the_endpoints_own_hosts_are_served(host: str) -> None:
    admission.check_host(headers(Host=host), HOSTS)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8080",
        "mcp.corp.example.evil.example",
        "evil-mcp.corp.example",
        "mcp.corp.example.",
        "localhost.",
        "localhost@evil.example",
        "localhost:8080@evil.example",
        "localhost/",
        "localhost, evil.example",
        "localhost:",
        "localhost:123456",
        "localhost:8080x",
        " localhost",
        "127.0.0.2",
        "127.1",
        "[::1",
        "[::1]x",
        "[::2]",
        "fixed.example",
        "fixed.example:443",
        "\u2113ocalhost",
        "0.0.0.0",  # noqa: S104 - never bound
    ],
)
def test_any_other_host_is_refused(host: str) -> None:
    with pytest.raises(HostRefused):
        admission.check_host(headers(Host=host), HOSTS)


def test_a_request_without_a_host_is_refused() -> None:
    with pytest.raises(HostRefused):
        admission.check_host(headers(), HOSTS)


def test_a_public_listener_does_not_answer_to_loopback_names() -> None:
    assert origins.default_hosts(URI, "0.0.0.0") == {"mcp.corp.example"}  # noqa: S104 - never bound
    assert origins.default_origins(URI, "10.0.0.5") == {"https://mcp.corp.example"}
    assert not is_loopback("127.0.0.1.evil.example")


ORIGINS = origins.default_origins(URI, "127.0.0.1")


@pytest.mark.parametrize(
    "origin", ["https://mcp.corp.example", "https://MCP.corp.example:443", "http://localhost:6274", "http://[::1]:1"]
)
def test_an_allowed_origin_is_let_in(origin: str) -> None:
    admission.check_origin(headers(Origin=origin), ORIGINS)


def test_a_request_without_an_origin_is_let_in() -> None:
    admission.check_origin(headers(), ORIGINS)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://mcp.corp.example",
        "https://evil.example",
        "https://mcp.corp.example.evil.example",
        "https://mcp.corp.example@evil.example",
        "https://mcp.corp.example/",
        "https://localhost",
        "http://localhost.evil.example",
        "file://localhost",
        "http://localhost http://evil.example",
        "localhost",
        "://localhost",
        "chrome-extension://abcdef",
    ],
)
def test_any_other_origin_is_refused(origin: str) -> None:
    with pytest.raises(OriginRefused):
        admission.check_origin(headers(Origin=origin), ORIGINS)


@pytest.mark.parametrize(
    ("written", "sent", "near_miss"),
    [
        ("https://App.Example", "https://app.example", "https://app.example:8443"),
        ("https://a.example/", "https://a.example", "http://a.example"),
        ("https://a.example:443", "https://a.example", "https://b.example"),
        ("http://a.example:0080", "http://a.example", "http://a.example:443"),
        ("https://a.example:8443", "https://a.example:8443", "https://a.example"),
        ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop", "https://abcdefghijklmnop"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]", "https://[2001:db8::2]"),
    ],
)
def test_an_origin_of_the_settings_matches_what_browsers_send(written: str, sent: str, near_miss: str) -> None:
    allowed = {origins.allowed_origin(written)}
    assert admission.check_origin(headers(Origin=sent), allowed) == sent
    with pytest.raises(OriginRefused):
        admission.check_origin(headers(Origin=near_miss), allowed)


@pytest.mark.parametrize(
    "written",
    [
        *(
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://*.example",
            "https://a.example/app",
            "https://a.example//",
        ),
        *(
            "https://u@a.example",
            "https://a.example:",
            "https://a.example:99999",
            "https://bücher.example",
            "file:///x",
        ),
        *("https://a.example:*", "https://a.example."),
    ],
)
def test_an_origin_that_could_never_match_is_refused(written: str) -> None:
    with pytest.raises(ValueError):
        origins.allowed_origin(written)


@pytest.mark.parametrize("written", ["", "https://a.example", "a.example/x", "a.example:x", "*", "a b", "a.example."])
def test_a_host_that_could_never_match_is_refused(written: str) -> None:
    assert origins.allowed_host("MCP.Example:8443") == "mcp.example:8443"
    with pytest.raises(ValueError):
        origins.allowed_host(written)


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.1.2.3:8081", True), ("[2001:db8::1]", True), ("10.1.2.3.evil.example", False), ("evil.example", False)],
)
def test_an_address_is_told_from_a_name(host: str, address: bool) -> None:
    assert origins.is_address(host) is address


def presented(authorization: str) -> Credential:
    found = admission.credential(headers(Authorization=authorization), "POST", URI)
    assert found is not None
    return found


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER abc", "Bearer   abc", "Bearer a.b-c_d~e+f/g=="])
def test_one_bearer_credential_is_taken(value: str) -> None:
    assert presented(value).token == value.rpartition(" ")[2]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "abc",
        "Basic abc",
        "DPoP",
        "DPoP a b",
        "DPoPabc",
        "Bearerabc",
        "Bearer\tabc",
        "Bearer a b",
        "Bearer a,b",
        "Bearer a, Bearer b",
        "Bearer a=b",
        'Bearer "a"',
        "Bearer a\x00",
        "Bearer a\r\nX: y",
        "Bearer a\n",
        " Bearer a",
        "Bearer \u00e9",
        "Bearer \uff41",
        "\u212aearer a",
        "token=abc",
    ],
)
def test_anything_else_in_authorization_is_malformed(value: str) -> None:
    with pytest.raises(MalformedAuthorization):
        presented(value)


def test_no_authorization_is_no_token() -> None:
    assert admission.credential(headers(), "POST", URI) is None


def test_a_credential_says_what_a_proof_would_be_about() -> None:
    found = admission.credential(headers(Authorization="Bearer abc", DPoP="proof"), "DELETE", URI)

    assert found == Credential(
        scheme=AuthScheme.BEARER, token=UnverifiedToken("abc"), proof="proof", method="DELETE", uri=RESOURCE
    )


@pytest.mark.parametrize("value", ["DPoP abc", "dpop abc", "DPOP  abc"])
def test_a_token_with_a_proof_is_taken(value: str) -> None:
    found = admission.credential(headers(Authorization=value, DPoP="proof"), "POST", URI)
    assert found is not None
    assert (found.scheme, found.token, found.proof) == (AuthScheme.DPOP, "abc", "proof")


def test_a_credential_shows_neither_token_nor_proof() -> None:
    found = admission.credential(headers(Authorization="Bearer abc", DPoP="proof"), "POST", URI)

    assert "abc" not in repr(found)
    assert "proof=" not in repr(found)


def test_two_proofs_are_none() -> None:
    with pytest.raises(InvalidRequest):
        admission.check_headers(CIMultiDict([("DPoP", "a"), ("DPoP", "b")]))


@given(st.text(max_size=60) | st.text(alphabet="Bearer abc=.,\t\x00", max_size=20))
def test_whatever_is_taken_from_authorization_was_its_one_credential(value: str) -> None:
    try:
        token = presented(value).token
    except MalformedAuthorization:
        return
    assert token
    scheme, _, rest = value.partition(" ")
    assert scheme.lower() in {"bearer", "dpop"}
    assert rest.lstrip(" ") == token
    assert not set(token) & set(" \t\r\n,;\"'\x00")


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json ; charset="utf-8"',
        "application/json;",
        "application/json; ;charset=utf8 ;",
        'application/json;CHARSET="UTF8"',
    ],
)
def test_json_in_utf8_is_taken(value: str) -> None:
    admission.check_content(headers(Content_Type=value))
    admission.check_content(headers(Content_Type=value, Content_Encoding="identity"))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text/plain",
        "application/json5",
        "application/jsonp",
        "application/vnd.api+json",
        "application/json, text/plain",
        "application/json;charset",
        "application/json;charset=",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json; charset=utf-7",
        'application/json; charset="utf-8',
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; boundary=x",
        "multipart/form-data; boundary=application/json",
        "application/x-www-form-urlencoded",
        "application/\u017fon",
        " application/json",
    ],
)
def test_any_other_content_is_refused(value: str) -> None:
    with pytest.raises(MediaTypeRefused):
        admission.check_content(headers(Content_Type=value))


def test_no_content_type_is_refused() -> None:
    with pytest.raises(MediaTypeRefused):
        admission.check_content(headers())


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "", "x"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    with pytest.raises(MediaTypeRefused):
        admission.check_content(headers(Content_Type="application/json", Content_Encoding=encoding))


BOTH = (admission.JSON, admission.EVENT_STREAM)


@pytest.mark.parametrize(
    "accept",
    [
        "application/json, text/event-stream",
        "text/event-stream,application/json",
        "*/*",
        "application/*, text/*",
        "Application/JSON;q=0.1 , TEXT/event-stream; Q=1.000",
        "application/json;q=0.001, */*",
        "text/html, */*;q=0.8",
        "application/json;charset=utf-8, */*;q=0.1",
        "text/event-stream, application/json, text/plain;q=0",
        "application/json;, text/event-stream;charset=utf-8",
        'application/json;x="a,b;q=0", text/event-stream;charset="utf-8";q=0.5',
    ],
)
def test_a_client_that_can_read_both_answers_is_served(accept: str) -> None:
    admission.check_accept(headers(Accept=accept), *BOTH)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "application/json",
        "text/event-stream",
        "text/html",
        "application/json;q=0, */*",
        "*/*, text/event-stream;q=0.000",
        "*/*;q=0",
        "*/*;q=2",
        "*/*;q=-1",
        "*/*;q=nan",
        "*/*;q=1;q=0",
        "*",
        "application/jsonx, text/event-streams",
        "application/json text/event-stream",
        "*/json, */event-stream",
        'application/json, text/event-stream;x="',
        'x/y;z="application/json, text/event-stream"',
        "application/json, text/event-stream;charset=utf-8;q=0",
    ],
)
def test_a_client_that_cannot_read_both_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable):
        admission.check_accept(headers(Accept=accept), *BOTH)


@pytest.mark.parametrize("piece", ["; ", ";\t ;", '\\"', '"\\', ";a=b ", ',"'])
def test_reading_a_hostile_accept_header_takes_no_time(piece: str) -> None:
    hostile = "a/b" + piece * (admission.MAX_ACCEPT_CHARACTERS // len(piece) - 2) + "!\x7f"
    began = time.process_time()
    for value in (hostile, hostile * 5):
        with pytest.raises(NotAcceptable):
            admission.check_accept(headers(Accept=value), *BOTH)
        with pytest.raises(MediaTypeRefused):
            admission.check_content(headers(Content_Type=value))
    assert time.process_time() - began < 5, "exponential, not merely slow"


def test_several_accept_headers_are_one_list_and_none_is_a_refusal() -> None:
    admission.check_accept(CIMultiDict([("Accept", "application/json"), ("Accept", "text/event-stream")]), *BOTH)
    with pytest.raises(NotAcceptable):
        admission.check_accept(headers(), *BOTH)


@given(st.text(alphabet='aplictonjsexv-m/*,;q=01. \t"', max_size=80))
def test_any_accept_header_is_read_or_refused(accept: str) -> None:
    try:
        admission.check_accept(headers(Accept=accept), *BOTH)
    except NotAcceptable:
        return
    assert "*" in accept or ("application/json" in accept and "text/event-stream" in accept)


LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, SidecarError)
    and not any(child.__module__ == errors.__name__ for child in kind.__subclasses__())
]


@pytest.mark.parametrize("kind", [kind for kind in LEAVES if kind is not ConfigurationError])
def test_every_error_that_can_reach_the_edge_has_a_status_of_its_own(kind: type[SidecarError]) -> None:
    assert kind in HTTP_STATUS


def test_a_refined_error_has_the_status_of_what_it_refines_and_an_unknown_one_is_internal() -> None:
    class Refined(errors.ParseError):
        pass

    assert {http_status(Refined(), era) == HTTP_STATUS[errors.ParseError].of(era) for era in Era} == {True}
    assert http_status(SidecarError()) == http_status(ConfigurationError()) == INTERNAL.handshake


def resource(**changes: object) -> ProtectedResource:
    fields: dict[str, object] = {
        "uri": URI,
        "authorization_servers": ("https://idp.corp.example",),
        "scopes": ("mongodb:read",),
    }
    return ProtectedResource(**(fields | changes))  # type: ignore[arg-type]


WHERE = 'resource_metadata="https://mcp.corp.example/.well-known/oauth-protected-resource/mcp"'


def test_a_challenge_names_an_error_only_where_a_token_was_presented() -> None:
    assert resource().challenge(TokenMissing()) == f'Bearer {WHERE}, scope="mongodb:read"'
    assert 'error="invalid_token"' in (resource().challenge(TokenRejected("secret detail")) or "")
    assert 'error="invalid_request"' in (resource().challenge(MalformedAuthorization()) or "")
    assert "secret" not in (resource().challenge(TokenRejected("secret detail")) or "")


def test_insufficient_scope_names_the_scopes_that_are_needed() -> None:
    challenge = resource().challenge(InsufficientScope(scopes=("a", "b"))) or ""

    assert 'error="insufficient_scope"' in challenge
    assert 'scope="a b"' in challenge


@pytest.mark.parametrize("error", [PolicyDenied(), KeysUnavailable(), OriginRefused()])
def test_what_no_token_cures_is_no_challenge(error: SidecarError) -> None:
    assert resource().challenge(error) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"authorization_servers": ()},
        {"authorization_servers": ("",)},
        {"scopes": ('a"b',)},
        {"scopes": ("",)},
    ],
)
def test_a_resource_that_clients_could_not_use_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        resource(**changes)


@pytest.mark.parametrize(
    ("url", "path", "metadata_path"),
    [
        (RESOURCE, "/mcp", "/.well-known/oauth-protected-resource/mcp"),
        ("http://localhost:8080", "/", "/.well-known/oauth-protected-resource"),
        ("https://a.example/team/mcp", "/team/mcp", "/.well-known/oauth-protected-resource/team/mcp"),
    ],
)
def test_paths_follow_from_the_resource_url(url: str, path: str, metadata_path: str) -> None:
    described = resource(uri=ResourceUri.parse(url))

    assert (described.path, described.metadata_path) == (path, metadata_path)


@given(st.binary(min_size=1, max_size=40))
def test_a_message_in_a_frame_is_one_event(message: bytes) -> None:
    framed = frame(StreamEvent(message))

    assert framed.startswith(b"event: message\ndata: ")
    assert framed.endswith(b"\n\n")
    assert b"\n\n" not in framed[:-2]
    assert b"\r" not in framed
