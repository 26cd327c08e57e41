"""The endpoint over real sockets: statuses, order of checks, limits, streams."""

import asyncio
import logging
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.edge.connections import ConnectionLimits
from sidecar.edge.server import ServerLimits, serve
from sidecar.enforcement import Caller, EnforcementPoint, Exchange, Refused, Reply, Stream, StreamEvent
from sidecar.errors import ConfigurationError, MethodRefused
from tests.edge.endpoint import (
    INITIALIZE,
    PING,
    RESOURCE,
    Endpoint,
    answers,
    config,
    encoded,
    head,
    request,
    running,
    token,
)
from tests.patience import HANG_S, until

METADATA = "/.well-known/oauth-protected-resource"
WHERE = 'resource_metadata="http://mcp.corp.example/.well-known/oauth-protected-resource/mcp"'


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with running(tmp_path) as made:
        yield made


async def test_a_session_is_opened_used_and_ended(endpoint: Endpoint) -> None:
    opened = await endpoint.ask(body=encoded(INITIALIZE))
    session = opened.headers["mcp-session-id"]
    assert (opened.status, opened.headers["content-type"]) == (200, "application/json")
    assert opened.json["result"]["protocolVersion"] == "2025-11-25"

    told = await endpoint.ask(
        body=encoded({"jsonrpc": "2.0", "method": "notifications/initialized"}), Mcp_Session_Id=session
    )
    assert (told.status, told.body) == (202, b"")
    assert "content-type" not in told.headers
    pinged = await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session, MCP_Protocol_Version="2025-11-25")
    assert (pinged.status, pinged.json) == (200, {"jsonrpc": "2.0", "id": 2, "result": {}})
    ended = await endpoint.ask("DELETE", Mcp_Session_Id=session)
    assert (ended.status, ended.body) == (204, b"")
    assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 404
    assert (await endpoint.ask("DELETE", Mcp_Session_Id=session)).status == 404


async def test_every_answer_has_the_security_headers_and_no_banner(endpoint: Endpoint) -> None:
    bad_http = await endpoint.raw(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    served = [
        await endpoint.ask(body=encoded(INITIALIZE)),
        await endpoint.ask(Authorization=None),
        await endpoint.ask("GET", "/nowhere"),
        await endpoint.ask("PATCH"),
        await endpoint.ask("GET", METADATA),
        await endpoint.ask(Expect="a miracle"),
        *bad_http,
    ]
    assert [answer.status for answer in served] == [200, 401, 404, 405, 200, 417, 400]
    for answer in served:
        assert answer.headers["server"] == "mcp-sidecar"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"aiohttp" not in answer.body
        assert b"Python" not in answer.body


STATUSES: dict[str, tuple[int, dict[str, Any]]] = {
    "no token": (401, {"Authorization": None}),
    "a foreign token": (401, {"Authorization": "Bearer abc"}),
    "an expired token": (401, {"Authorization": f"Bearer {token(exp=int(time.time()) - 3600)}"}),
    "another scheme": (400, {"Authorization": "Basic YTpi"}),
    "two credentials in one header": (400, {"Authorization": f"Bearer {token()}, Bearer {token()}"}),
    "an unknown host": (421, {"Host": "evil.example"}),
    "an empty host": (421, {"Host": ""}),
    "a rebound origin": (403, {"Origin": "http://evil.example"}),
    "a null origin": (403, {"Origin": "null"}),
    "an unknown session": (404, {"Mcp_Session_Id": "nobody"}),
    "no session": (400, {"Mcp_Session_Id": None}),
    "a malformed session id": (400, {"Mcp_Session_Id": "a b"}),
    "plain text": (415, {"Content_Type": "text/plain"}),
    "a form": (415, {"Content_Type": "application/x-www-form-urlencoded"}),
    "no media type": (415, {"Content_Type": None}),
    "a compressed body": (415, {"Content_Encoding": "gzip"}),
    "a client that reads no events": (406, {"Accept": "application/json"}),
    "a client that reads no JSON": (406, {"Accept": "text/event-stream"}),
    "a client that does not say": (406, {"Accept": None}),
    "a token in the query": (400, {"target": f"/mcp?access_token={token()}", "Authorization": None}),
    "a query": (400, {"target": "/mcp?x=1"}),
    "an absolute target": (400, {"target": "http://mcp.corp.example/mcp"}),
    "a target for another host": (400, {"target": "http://evil.example/mcp"}),
    "an encoded target": (400, {"target": "/%6Dcp"}),
    "a path below": (404, {"target": "/mcp/x"}),
    "a path beside": (404, {"target": "/sse"}),
    "the root": (404, {"target": "/"}),
    "another method": (405, {"method": "PUT"}),
    "a preflight": (405, {"method": "OPTIONS"}),
    "a head": (405, {"method": "HEAD"}),
}


@pytest.mark.parametrize("case", STATUSES)
async def test_what_is_refused_has_its_status_and_opens_no_session(endpoint: Endpoint, case: str) -> None:
    status, changes = STATUSES[case]
    answer = await endpoint.ask(body=encoded(PING), **changes)

    assert answer.status == status
    assert len(endpoint.sessions) == 0
    if status not in {404, 405} or "session" in case:
        assert len(endpoint.refusals) == 1
        assert "error" in answer.json
    if status == 405:
        assert answer.headers["allow"] == "POST, GET, DELETE"


async def test_an_allowed_host_and_origin_are_let_in(endpoint: Endpoint) -> None:
    for host in ("mcp.corp.example", f"127.0.0.1:{endpoint.port}", f"localhost:{endpoint.port}", "[::1]:1"):
        assert (await endpoint.ask(body=encoded(INITIALIZE), Host=host)).status == 200
    for origin in ("http://mcp.corp.example", "http://localhost:6274"):
        assert (await endpoint.ask(body=encoded(INITIALIZE), Origin=origin)).status == 200


async def test_the_challenge_tells_where_to_get_a_token(endpoint: Endpoint) -> None:
    missing = await endpoint.ask(Authorization=None)
    wrong = await endpoint.ask(Authorization="Bearer abc")
    malformed = await endpoint.ask(Authorization="Digest abc")

    assert missing.headers["www-authenticate"] == f'Bearer {WHERE}, scope="mongodb:read"'
    assert wrong.headers["www-authenticate"] == f'Bearer {WHERE}, scope="mongodb:read", error="invalid_token"'
    assert malformed.headers["www-authenticate"].endswith('error="invalid_request"')


async def test_keys_that_cannot_be_had_are_a_temporary_failure(tmp_path: Path) -> None:
    async with running(tmp_path) as endpoint:
        (tmp_path / "jwks.json").write_text("{}")
        answer = await endpoint.ask(body=encoded(INITIALIZE))
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert "www-authenticate" not in answer.headers


async def test_the_metadata_is_public_and_readable_by_scripts(endpoint: Endpoint) -> None:
    for path in (METADATA, METADATA + "/mcp"):
        answer = await endpoint.ask("GET", path, Authorization=None, Origin="https://any.example")
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert answer.headers["content-type"] == "application/json"
        assert answer.json == {
            "resource": RESOURCE,
            "authorization_servers": ["https://idp.corp.example"],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["mongodb:read"],
        }
        preflight = await endpoint.ask("OPTIONS", path, Access_Control_Request_Headers="mcp-protocol-version")
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-headers"] == "MCP-Protocol-Version, Content-Type"
        assert (await endpoint.ask("POST", path)).status == 405
    assert (await endpoint.ask("GET", METADATA + "/other")).status == 404


async def test_a_session_of_somebody_else_is_not_found_on_any_method(endpoint: Endpoint) -> None:
    session = await endpoint.open_session()
    mallory: dict[str, Any] = {"Authorization": f"Bearer {token('mallory')}", "Mcp_Session_Id": session}
    other_agent: dict[str, Any] = {"Authorization": f"Bearer {token(client_id='other')}", "Mcp_Session_Id": session}

    for caller in (mallory, other_agent):
        assert (await endpoint.ask("POST", body=encoded(PING), **caller)).status == 404
        assert (await endpoint.ask("GET", **caller)).status == 404
        assert (await endpoint.ask("DELETE", **caller)).status == 404
    assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 200


async def test_get_and_delete_need_a_token_and_a_session_and_have_no_body(endpoint: Endpoint) -> None:
    for method in ("GET", "DELETE"):
        assert (await endpoint.ask(method, Authorization=None)).status == 401
        assert (await endpoint.ask(method, MCP_Protocol_Version="2025-11-25")).status == 400
        assert (await endpoint.ask(method, body=encoded(PING), Mcp_Session_Id="s")).status == 400


async def test_the_get_of_http_with_sse_is_told_that_there_is_none(endpoint: Endpoint) -> None:
    """Its clients begin with a GET that names neither a session nor a revision (MCP 2024-11-05, transports)."""
    answer = await endpoint.ask("GET", Accept="text/event-stream")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert [one["error"] for one in endpoint.refusals] == ["leg_refused"]
    assert (await endpoint.ask("GET", Accept="text/event-stream", Mcp_Session_Id="unknown")).status == 404
    assert (await endpoint.ask("GET", Authorization=None)).status == 401


async def test_a_revision_that_is_not_the_sessions_is_refused(endpoint: Endpoint) -> None:
    session = await endpoint.open_session()

    for version in ("2025-06-18", "2026-07-28", "zzz"):
        answer = await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session, MCP_Protocol_Version=version)
        assert answer.status == 400


async def test_what_is_not_a_message_is_a_bad_request(endpoint: Endpoint) -> None:
    session = await endpoint.open_session()

    for body in (b"", b"{", b"[]", b"null", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', b'{"id":NaN}'):
        answer = await endpoint.ask(body=body, Mcp_Session_Id=session)
        assert answer.status == 400, body
        assert answer.json["error"]["code"] in {-32700, -32600}


class TestLimits:
    async def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(self, tmp_path: Path) -> None:
        message = encoded(INITIALIZE)
        async with running(tmp_path, max_request_bytes=len(message)) as endpoint:
            assert (await endpoint.ask(body=message)).status == 200
            over = await endpoint.ask(body=message + b" ")
            assert (over.status, over.json["id"], over.json["error"]["code"]) == (200, 1, -32600)
            assert (await endpoint.ask(body=b"x" + message)).status == 413
            assert len(endpoint.sessions) == 1

    async def test_a_large_body_is_refused_by_its_announcement(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_request_bytes=1000) as endpoint:
            [answer] = await endpoint.raw(
                head("POST", "/mcp", Connection=None) + b"Content-Length: 10000000000\r\n\r\n"
            )
        assert answer.status == 413
        assert answer.headers["connection"] == "close"

    async def test_a_large_chunked_body_is_refused_while_it_is_read(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_request_bytes=1000) as endpoint:
            start = head("POST", "/mcp", Connection=None) + b"Transfer-Encoding: chunked\r\n\r\n"
            chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
            [answer] = await endpoint.raw(start, *[chunk] * 63)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"

    async def test_a_chunked_body_within_the_limit_is_read(self, endpoint: Endpoint) -> None:
        body = encoded(INITIALIZE)
        start = head("POST", "/mcp") + b"Transfer-Encoding: chunked\r\n\r\n"
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:7], body[7:])]

        [answer] = await endpoint.raw(start, *pieces, b"0\r\n\r\n")

        assert answer.status == 200

    async def test_a_body_that_does_not_come_is_given_up_and_nothing_of_it_is_used(self, tmp_path: Path) -> None:
        body = encoded(INITIALIZE)
        async with running(tmp_path, body_timeout_s=0.2) as endpoint:
            start = head("POST", "/mcp", Connection=None) + b"Content-Length: %d\r\n\r\n" % (len(body) + 1)
            [answer] = await endpoint.raw(start + body)
            assert answer.status == 408
            assert len(endpoint.sessions) == 0

    async def test_a_body_that_ends_early_is_not_used(self, endpoint: Endpoint) -> None:
        body = encoded(INITIALIZE)
        _, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(head("POST", "/mcp") + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        await until(lambda: len(endpoint.refusals) == 1)
        assert len(endpoint.sessions) == 0

    async def test_a_head_that_trickles_is_cut_off(self, tmp_path: Path) -> None:
        limits = ServerLimits(shutdown_s=0.5, connections=ConnectionLimits(head_s=0.3))
        async with running(tmp_path, limits) as endpoint:
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            assert await cut_off(reader, writer, head("POST", "/mcp"))
            writer.close()
            assert len(endpoint.ledger.records) == 0

    async def test_an_idle_connection_is_closed_after_an_answer(self, tmp_path: Path) -> None:
        async with running(tmp_path, ServerLimits(idle_s=0.3, shutdown_s=0.5)) as endpoint:
            found = await endpoint.raw(request("POST", "/mcp", encoded(INITIALIZE), Connection=None))
        assert [answer.status for answer in found] == [200]

    async def test_heads_that_are_too_large_are_refused(self, endpoint: Endpoint) -> None:
        many: dict[str, Any] = {f"X-{n}": "1" for n in range(100)}
        found = [
            await endpoint.ask(X_Large="x" * 33_000),
            await endpoint.ask(target="/mcp?" + "x" * 5000),
            await endpoint.ask(**many),
        ]
        assert [answer.status for answer in found] == [431, 414, 400]
        assert not endpoint.ledger.records
        assert (await endpoint.ask(body=encoded(INITIALIZE), X_Large="x" * 32_000)).status == 200

    async def test_a_client_that_never_ends_its_sessions_goes_on(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_sessions=2) as endpoint:
            opened = [await endpoint.open_session() for _ in range(5)]
            found = [(await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status for session in opened]
        assert found == [404, 404, 404, 200, 200]

    async def test_too_many_sessions_in_use_are_refused_with_advice_to_wait(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_sessions=1) as endpoint:
            session = await endpoint.open_session()
            [used] = [known for known in endpoint.sessions._open.values() if known.id == session]
            with endpoint.sessions.calling(used, time.monotonic):
                answer = await endpoint.ask(body=encoded(INITIALIZE))
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")


async def cut_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trickle: bytes) -> bool:
    """Send byte by byte; say whether the server closed the connection before the last one."""
    for byte in trickle:
        try:
            writer.write(bytes([byte]))
            await writer.drain()
            async with asyncio.timeout(0.05):
                if await reader.read(1) == b"":
                    return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


TOO_DEEP = b"[" * 120 + b"]" * 120
REFUSED_CALLS = {
    "a number": (b'{"n":725653563933458432}', "number_range"),
    "nesting": (TOO_DEEP, "too_complex"),
    "a repeated key": (b'{"a":1,"a":2}', "parse_error"),
    "half a character": (rb'{"a":"\ud800"}', "parse_error"),
    "size": (b'["%b"]' % (b"x" * 1_100_000), "too_large"),
}


class TestRefusedBodies:
    """What is refused before it is decoded is answered for its id, so that no client gives up its session."""

    @pytest.mark.parametrize("case", REFUSED_CALLS)
    async def test_a_call_gets_a_tool_result(self, endpoint: Endpoint, case: str) -> None:
        arguments, reason = REFUSED_CALLS[case]
        session = await endpoint.open_session()
        body = b'{"method":"tools/call","params":{"name":"find","arguments":%b},"jsonrpc":"2.0","id":"c-1"}' % arguments
        answer = await endpoint.ask(body=body, Mcp_Session_Id=session)
        assert (answer.status, answer.json["id"]) == (200, "c-1")
        result = answer.json["result"]
        assert (result["isError"], result["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"]) == (True, reason)
        assert len(endpoint.refusals) == 1
        assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 200

    @pytest.mark.parametrize("case", REFUSED_CALLS)
    async def test_another_request_gets_an_error(self, endpoint: Endpoint, case: str) -> None:
        session = await endpoint.open_session()
        body = b'{"jsonrpc":"2.0","id":5,"method":"ping","params":{"x":%b}}' % REFUSED_CALLS[case][0]
        answer = await endpoint.ask(body=body, Mcp_Session_Id=session)
        assert (answer.status, answer.json["id"]) == (200, 5)
        assert answer.json["error"]["code"] in {-32600, -32700}

    @pytest.mark.parametrize("case", REFUSED_CALLS)
    async def test_a_notification_gets_nothing(self, endpoint: Endpoint, case: str) -> None:
        session = await endpoint.open_session()
        body = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"x":%b}}' % REFUSED_CALLS[case][0]
        answer = await endpoint.ask(body=body, Mcp_Session_Id=session)
        assert (answer.status, answer.body) == (202, b"")

    @pytest.mark.parametrize("case", REFUSED_CALLS)
    async def test_a_session_that_is_not_there_comes_first(self, endpoint: Endpoint, case: str) -> None:
        body = b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"x":%b}}' % REFUSED_CALLS[case][0]
        answer = await endpoint.ask(body=body, Mcp_Session_Id="nobody")
        assert (answer.status, answer.json["id"]) == (404, 5)
        assert (await endpoint.ask(body=body)).status == 400

    async def test_a_body_far_over_the_limit_closes_the_connection(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_request_bytes=1000) as endpoint:
            session = await endpoint.open_session()
            for size, status in ((3_000, 200), (63_900, 200), (64_100, 413)):
                body = b'{"id":1,"method":"ping","params":{"x":"%b"}}' % (b"x" * size)
                assert (await endpoint.ask(body=body, Mcp_Session_Id=session)).status == status

    async def test_callers_who_are_slow_with_such_bodies_keep_nobody_from_an_answer(self, tmp_path: Path) -> None:
        async with running(tmp_path, max_request_bytes=1000) as endpoint:
            session = await endpoint.open_session()
            body = b'{"id":1,"method":"ping","params":{"x":"%b"}}' % (b"x" * 3_000)
            sent = request("POST", "/mcp", body, Mcp_Session_Id=session)
            held = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(20)]
            for _, writer in held:
                writer.write(sent[:-10])
                await writer.drain()
            assert (await endpoint.ask(body=body, Mcp_Session_Id=session)).status == 200
            for reader, writer in held:
                writer.write(sent[-10:])
                assert b" 200 " in await reader.readline()
                writer.close()

    async def test_what_is_held_of_bodies_that_are_slow_to_come_is_bounded(self, tmp_path: Path) -> None:
        """By caller; what is over it is answered for its request, and keeps no other caller and no small call out."""
        limit, slow = 100_000, 60
        body = b'{"jsonrpc":"2.0","id":9,"method":"ping","params":{"x":"%b"}}' % (b"x" * (limit - 1000))
        async with running(tmp_path, max_request_bytes=limit) as endpoint:
            session = await endpoint.open_session()
            sent = request("POST", "/mcp", body, Mcp_Session_Id=session)
            held = [await asyncio.open_connection("127.0.0.1", endpoint.port) for _ in range(slow)]
            for _, writer in held:
                writer.write(sent[:-20])
                await writer.drain()
            while (over := await endpoint.ask(body=body, Mcp_Session_Id=session)).json.get("result") == {}:
                pass  # not all of them have been read yet
            assert (over.status, over.json["id"], over.json["error"]["code"]) == (200, 9, 1429)
            small = encoded(PING)
            assert (await endpoint.ask(body=small, Mcp_Session_Id=session)).json["result"] == {}
            other = await endpoint.ask(body=body, Authorization=f"Bearer {token('bob')}", Mcp_Session_Id=session)
            assert other.status == 404, "read as a whole; the session is another caller's"
            ends = []
            for reader, writer in held:
                writer.write(sent[-20:])
                ends.append(b'"result"' in await reader.read())
                writer.close()
            assert 32 <= sum(ends) < 40, "the others are answered too, and were not kept"
            again = await endpoint.ask(body=body, Mcp_Session_Id=session)
            assert again.json["result"] == {}, "there is room again"

    async def test_nothing_but_the_ends_of_a_large_body_is_kept(self, tmp_path: Path) -> None:
        """64 MB by 8 callers at once; what is kept of one is a few kB, and what is read ahead of it bounded too."""
        async with running(tmp_path) as endpoint:
            session = await endpoint.open_session()
            start, piece, end = b'{"method":"ping","params":{"x":"', b"x" * 1_000_000, b'"},"jsonrpc":"2.0","id":7}'
            length = len(start) + 60 * len(piece) + len(end)
            top = head("POST", "/mcp", Mcp_Session_Id=session) + b"Content-Length: %d\r\n\r\n" % length

            async def send() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
                writer.write(top + start)
                for _ in range(60):
                    writer.write(piece)
                    await writer.drain()
                writer.write(end)
                answer = await reader.readuntil(b"}}")
                writer.close()
                return answer

            tracemalloc.start()
            try:
                answers = await asyncio.gather(*(send() for _ in range(8)))
                _, most = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert all(b" 200 " in answer.splitlines()[0] and b'"id":7' in answer for answer in answers)
        assert most < 60_000_000, "kept as a whole, they would take 480 MB"

    @pytest.mark.parametrize("content", [b'{"n":NaN}', b'{"n":[-Infinity]}', b"[" * 5_000 + b"]" * 5_000])
    async def test_what_no_reader_reads_to_its_end_is_answered_by_its_ends(
        self, endpoint: Endpoint, content: bytes
    ) -> None:
        session = await endpoint.open_session()
        body = b'{"method":"tools/call","params":{"name":"find","arguments":%b},"jsonrpc":"2.0","id":8}' % content
        answer = await endpoint.ask(body=body, Mcp_Session_Id=session)
        assert (answer.status, answer.json["id"], answer.json["result"]["isError"]) == (200, 8, True)
        broken = await endpoint.ask(body=body[:-1], Mcp_Session_Id=session)
        assert (broken.status, broken.json["id"]) == (400, None)


PAGE = "https://app.example"


class TestPages:
    """Pages in browsers: exactly the allowed origins may call and read (CORS)."""

    @pytest.fixture
    async def open_to_a_page(self, tmp_path: Path) -> AsyncIterator[Endpoint]:
        async with running(tmp_path, allowed_origins=frozenset({PAGE})) as made:
            yield made

    async def test_a_preflight_says_what_the_page_may_send(self, open_to_a_page: Endpoint) -> None:
        answer = await open_to_a_page.ask(
            "OPTIONS", Origin=PAGE, Authorization=None, Access_Control_Request_Method="POST"
        )
        assert (answer.status, answer.body) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["access-control-allow-methods"] == "POST, GET, DELETE"
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type", "mcp-session-id", "mcp-protocol-version", "last-event-id"} <= {
            *allowed
        }
        assert answer.headers["vary"] == "Origin"
        assert "*" not in str(answer.headers)
        assert "access-control-allow-credentials" not in answer.headers

    async def test_a_page_may_send_the_headers_that_repeat_arguments_and_no_others(
        self, open_to_a_page: Endpoint
    ) -> None:
        answer = await open_to_a_page.ask(
            "OPTIONS",
            Origin=PAGE,
            Authorization=None,
            Access_Control_Request_Method="POST",
            Access_Control_Request_Headers="Mcp-Param-Region, x-evil,mcp-param-zone, mcp-param-, mcp-param-a b, *",
        )
        allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert [name for name in allowed if "param" in name] == ["mcp-param-region", "mcp-param-zone"]
        assert not {"x-evil", "*"} & {*allowed}

    async def test_answers_and_refusals_can_be_read_by_the_page(self, open_to_a_page: Endpoint) -> None:
        opened = await open_to_a_page.ask(body=encoded(INITIALIZE), Origin=PAGE)
        refused = await open_to_a_page.ask(body=encoded(PING), Origin=PAGE, Authorization=None)
        lost = await open_to_a_page.ask(body=encoded(PING), Origin=PAGE, Mcp_Session_Id="nobody")
        assert [opened.status, refused.status, lost.status] == [200, 401, 404]
        for answer in (opened, refused, lost):
            assert answer.headers["access-control-allow-origin"] == PAGE
            exposed = answer.headers["access-control-expose-headers"]
            assert {"Mcp-Session-Id", "WWW-Authenticate"} <= {*exposed.split(", ")}

    @pytest.mark.parametrize(
        "other", ["https://app.example:8443", "http://app.example", "https://x.app.example", "null"]
    )
    async def test_another_page_can_do_neither(self, open_to_a_page: Endpoint, other: str) -> None:
        for answer in (
            await open_to_a_page.ask("OPTIONS", Origin=other, Access_Control_Request_Method="POST"),
            await open_to_a_page.ask(body=encoded(INITIALIZE), Origin=other),
        ):
            assert answer.status == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert len(open_to_a_page.sessions) == 0

    async def test_a_client_that_is_no_page_gets_no_such_headers(self, open_to_a_page: Endpoint) -> None:
        answer = await open_to_a_page.ask(body=encoded(INITIALIZE))
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await open_to_a_page.ask("OPTIONS", Origin=PAGE)).status == 405


async def test_the_endpoint_is_served_with_a_slash_too(endpoint: Endpoint) -> None:
    opened = await endpoint.ask(target="/mcp/", body=encoded(INITIALIZE))
    assert opened.status == 200
    session = opened.headers["mcp-session-id"]
    assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 200
    assert (await endpoint.ask(target="/mcp/", Authorization=None)).headers["www-authenticate"].startswith("Bearer ")
    assert (await endpoint.ask("GET", METADATA + "/mcp/")).status == 200
    for target in ("/mcp//", "/mcp/x", "//mcp/"):
        assert (await endpoint.ask(target=target, body=encoded(INITIALIZE))).status == 404


@pytest.mark.parametrize(
    "method", ["notifications/roots/list_changed", "notifications/progress", "notifications/whatever", "x/y"]
)
async def test_a_notification_that_nobody_acts_on_is_accepted(endpoint: Endpoint, method: str) -> None:
    session = await endpoint.open_session()
    message = encoded({"jsonrpc": "2.0", "method": method, "params": {"a": 1}})
    answer = await endpoint.ask(body=message, Mcp_Session_Id=session)
    assert (answer.status, answer.body, endpoint.refusals) == (202, b"", [])
    assert (await endpoint.ask(body=message, Mcp_Session_Id="nobody")).status == 404


@pytest.mark.parametrize("version", ["2026-07-28", "2025-06-18", "2099-01-01", "zzz"])
async def test_the_header_of_an_initialize_does_not_matter(endpoint: Endpoint, version: str) -> None:
    answer = await endpoint.ask(body=encoded(INITIALIZE), MCP_Protocol_Version=version)
    assert (answer.status, answer.json["result"]["protocolVersion"]) == (200, "2025-11-25")


class TestStreams:
    async def listen(self, endpoint: Endpoint, session: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request("GET", "/mcp", Mcp_Session_Id=session, Accept="text/event-stream"))
        top = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in top.splitlines()[0]
        return reader, writer

    async def test_notifications_arrive_as_events(self, endpoint: Endpoint) -> None:
        session = await endpoint.open_session()
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request("GET", "/mcp", Mcp_Session_Id=session, Accept="text/event-stream"))
        top = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"content-type: text/event-stream" in top
        assert b"x-accel-buffering: no" in top
        assert b"cache-control: no-store" in top

        endpoint.pep.tools_changed()
        event = await reader.readuntil(b"}\n\n")

        assert event.endswith(
            b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n'
        )
        writer.close()

    async def test_a_silent_stream_is_kept_alive_by_comments(self, tmp_path: Path) -> None:
        async with running(tmp_path, keep_alive_s=0.05) as endpoint:
            reader, writer = await self.listen(endpoint, await endpoint.open_session())
            for _ in range(3):
                await reader.readuntil(b": keep-alive\n\n")
            writer.close()

    async def test_the_newest_stream_of_a_session_wins(self, endpoint: Endpoint) -> None:
        session = await endpoint.open_session()
        first, first_writer = await self.listen(endpoint, session)
        second, second_writer = await self.listen(endpoint, session)

        async with asyncio.timeout(HANG_S):
            assert (await first.read()).endswith(b"0\r\n\r\n"), "the earlier one has ended"
            endpoint.pep.tools_changed()
            assert await second.readuntil(b"list_changed")
        for writer in (first_writer, second_writer):
            writer.close()

    async def test_a_session_lasts_as_long_as_its_stream_is_open(self, endpoint: Endpoint) -> None:
        session = await endpoint.open_session()
        reader, writer = await self.listen(endpoint, session)
        other = await endpoint.open_session()
        endpoint.sessions._idle_s = 0.05

        await asyncio.sleep(0.2)
        assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 200
        assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=other)).status == 404
        endpoint.pep.tools_changed()
        async with asyncio.timeout(HANG_S):
            assert await reader.readuntil(b"list_changed")
        writer.close()

    async def test_a_stream_that_is_refused_ends_no_other(self, endpoint: Endpoint) -> None:
        session = await endpoint.open_session()
        reader, writer = await self.listen(endpoint, session)
        mallory = f"Bearer {token('mallory')}"

        assert (await endpoint.ask("GET", Mcp_Session_Id=session, Authorization=mallory)).status == 404
        assert (await endpoint.ask("GET", Mcp_Session_Id=session, MCP_Protocol_Version="2024-11-05")).status == 400
        endpoint.pep.tools_changed()

        async with asyncio.timeout(HANG_S):
            assert await reader.readuntil(b"list_changed")
        writer.close()

    async def test_two_sessions_have_a_stream_each(self, endpoint: Endpoint) -> None:
        streams = [await self.listen(endpoint, await endpoint.open_session()) for _ in range(2)]

        endpoint.pep.tools_changed()

        for reader, writer in streams:
            assert await reader.readuntil(b"list_changed")
            writer.close()

    async def test_a_client_that_reads_no_events_gets_no_stream(self, endpoint: Endpoint) -> None:
        session = await endpoint.open_session()

        assert (await endpoint.ask("GET", Mcp_Session_Id=session, Accept="application/json")).status == 406

    async def test_shutting_down_ends_open_streams_at_once(self, tmp_path: Path) -> None:
        limits = ServerLimits(shutdown_s=30)
        async with running(tmp_path, limits) as endpoint:
            reader, writer = await self.listen(endpoint, await endpoint.open_session())
            async with asyncio.timeout(HANG_S):
                await endpoint.runner.cleanup()
                rest = await reader.read()
            assert rest.endswith(b"0\r\n\r\n")
            writer.close()


class Broken(EnforcementPoint):
    """A bug behind the edge."""

    async def enforce(self, *_: Any) -> Reply:  # type: ignore[explicit-override]
        raise RuntimeError("secret detail")


class Held(EnforcementPoint):
    """A call that takes until it is let go."""

    entered: asyncio.Event
    release: asyncio.Event

    async def enforce(self, *message: Any) -> Reply:  # type: ignore[explicit-override]
        self.entered.set()
        await self.release.wait()
        return await super().enforce(*message)


class Flood(EnforcementPoint):
    """More notifications than a client reads."""

    async def listen(self, exchange: Exchange, caller: Caller) -> Stream:  # type: ignore[explicit-override]
        return Stream(events=self._flood())

    async def _flood(self) -> AsyncIterator[StreamEvent]:
        while True:
            yield StreamEvent(b"x" * 1_000_000)


class Refusing(EnforcementPoint):
    """A notification that is refused."""

    async def enforce(self, *_: Any) -> Reply:  # type: ignore[explicit-override]
        return Refused.of(MethodRefused("no"))


def counting(endpoint: Endpoint) -> list[str]:
    """Return what the listener says of the connections that it ends, from now on."""
    counted: list[str] = []
    endpoint.runner._connections._ended = counted.append  # type: ignore[attr-defined]
    return counted


class BrokenPipe(EnforcementPoint):
    """A connection to something behind the endpoint breaks, and nothing there translates that."""

    async def enforce(self, *_: Any) -> Reply:  # type: ignore[explicit-override]
        raise ConnectionResetError


class TestFaultsBehind:
    async def test_a_bug_is_an_internal_error_without_detail(self, tmp_path: Path) -> None:
        async with running(tmp_path, point=Broken) as endpoint:
            answer = await endpoint.ask(body=encoded(PING))
        assert (answer.status, answer.body) == (500, b"Internal error\n")

    async def test_a_call_in_flight_is_finished_on_shutdown(self, tmp_path: Path) -> None:
        Held.entered, Held.release = asyncio.Event(), asyncio.Event()
        async with running(tmp_path, ServerLimits(shutdown_s=30), point=Held) as endpoint:
            call = asyncio.create_task(endpoint.ask(body=encoded(INITIALIZE)))
            await Held.entered.wait()
            closing = asyncio.create_task(endpoint.runner.cleanup())
            await until(lambda: not endpoint.runner.sites)
            Held.release.set()
            assert (await call).status == 200
            await closing

    async def test_a_client_that_does_not_read_its_stream_loses_it(self, tmp_path: Path) -> None:
        async with running(tmp_path, point=Flood, write_timeout_s=0.2) as endpoint:
            counted = counting(endpoint)
            session = await endpoint.open_session()
            reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(request("GET", "/mcp", Mcp_Session_Id=session, Accept="text/event-stream"))
            assert b" 200 " in await reader.readline()
            server = endpoint.runner.server
            assert server is not None
            await until(lambda: not server.connections)
            writer.close()
            assert counted == ["unread"]

    @pytest.mark.parametrize("stay_s", [0.0, 0.02, 0.3])
    @pytest.mark.parametrize("abort", [True, False], ids=["reset", "closed"])
    async def test_a_client_that_opens_a_stream_and_leaves_is_no_error(
        self, endpoint: Endpoint, caplog: pytest.LogCaptureFixture, stay_s: float, *, abort: bool
    ) -> None:
        session = await endpoint.open_session()
        server = endpoint.runner.server
        assert server is not None
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
            writer.write(request("GET", "/mcp", Mcp_Session_Id=session, Accept="text/event-stream"))
            await writer.drain()
            await asyncio.sleep(stay_s)
            writer.transport.abort() if abort else writer.close()
        await until(lambda: not server.connections)
        assert [record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert (await endpoint.ask(body=encoded(PING), Mcp_Session_Id=session)).status == 200

    async def test_a_connection_that_breaks_behind_us_while_the_client_waits_is_an_error_of_ours(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with running(tmp_path, point=BrokenPipe) as endpoint:
            answer = await endpoint.ask(body=encoded(PING))
        assert (answer.status, answer.body) == (500, b"Internal error\n")
        assert "unhandled error" in caplog.text

    async def test_a_refused_notification_is_a_client_error(self, tmp_path: Path) -> None:
        async with running(tmp_path, point=Refusing) as endpoint:
            answer = await endpoint.ask(body=encoded(PING))
        assert (answer.status, answer.json["error"]["code"], answer.json["id"]) == (400, -32601, None)


SMUGGLED = request("POST", "/mcp", encoded(INITIALIZE))
"""A complete request with a good token that must never be understood as one."""
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def framed(*lines: bytes, body: bytes = b"0\r\n\r\n" + SMUGGLED) -> bytes:
    return head("POST", "/mcp", Connection=None) + b"".join(lines) + b"\r\n" + body


SMUGGLING: dict[str, bytes] = {
    "length and chunks": framed(b"Content-Length: 5\r\n", CHUNKED),
    "chunks and length": framed(CHUNKED, b"Content-Length: 5\r\n"),
    "two equal lengths": framed(b"Content-Length: 5\r\n", b"Content-Length: 5\r\n"),
    "two lengths": framed(b"Content-Length: 5\r\n", b"Content-Length: 500\r\n"),
    "two lengths in one": framed(b"Content-Length: 5, 5\r\n"),
    "a signed length": framed(b"Content-Length: +5\r\n"),
    "a negative length": framed(b"Content-Length: -5\r\n"),
    "a hexadecimal length": framed(b"Content-Length: 0x5\r\n"),
    "a length with an underscore": framed(b"Content-Length: 1_0\r\n"),
    "a length in other digits": framed("Content-Length: \u0665\r\n".encode()),
    "an overflowing length": framed(b"Content-Length: 18446744073709551621\r\n"),
    "an empty length": framed(b"Content-Length: \r\n"),
    "chunked twice": framed(CHUNKED, CHUNKED),
    "chunked in a list of two": framed(b"Transfer-Encoding: chunked, chunked\r\n"),
    "chunked not last": framed(b"Transfer-Encoding: chunked, identity\r\n"),
    "almost chunked": framed(b"Transfer-Encoding: xchunked\r\n"),
    "chunked with a control character": framed(b"Transfer-Encoding: \x0bchunked\r\n"),
    "identity": framed(b"Transfer-Encoding: identity\r\n"),
    "a space before the colon": framed(b"Transfer-Encoding : chunked\r\n"),
    "a folded header": framed(b"X: a\r\n b\r\n", CHUNKED),
    "a folded framing": framed(b"Transfer-Encoding:\r\n chunked\r\n"),
    "a bare line feed": framed(b"X: a\nTransfer-Encoding: chunked\r\n"),
    "a bare carriage return": framed(b"X: a\rTransfer-Encoding: chunked\r\n"),
    "a zero byte in a value": framed(b"X: a\x00b\r\n", CHUNKED),
    "a zero byte in a name": framed(b"X\x00: a\r\n", CHUNKED),
    "no colon": framed(b"X\r\n", CHUNKED),
    "an empty name": framed(b": x\r\n", CHUNKED),
    "two hosts": framed(b"Host: evil.example\r\n", CHUNKED),
    "two media types": framed(b"Content-Type: text/plain\r\n", CHUNKED),
    "a negative chunk": framed(CHUNKED, body=b"-1\r\n\r\n" + SMUGGLED),
    "a chunk of strange size": framed(CHUNKED, body=b"0x0\r\n\r\n" + SMUGGLED),
    "an overflowing chunk": framed(CHUNKED, body=b"10000000000000000\r\n\r\n" + SMUGGLED),
    "a chunk without its end": framed(CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n" + SMUGGLED),
    "a chunk ended by a line feed": framed(CHUNKED, body=b"1\na\n0\n\n" + SMUGGLED),
    "an extension with a line feed": framed(CHUNKED, body=b"0;a\nb\r\n\r\n" + SMUGGLED),
    "chunks in HTTP/1.0": framed(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "HTTP/0.9": b"GET /mcp\r\n\r\n" + SMUGGLED,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "HTTP/1.2": framed(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.2", 1),
    "a space in the target": framed(CHUNKED).replace(b" /mcp ", b" /mcp /x ", 1),
    "a tab in the request line": framed(CHUNKED).replace(b"POST /mcp", b"POST\t/mcp", 1),
    "a method in lower case": framed(CHUNKED).replace(b"POST", b"post", 1),
    "an unknown method": framed(CHUNKED).replace(b"POST", b"SMUGGLE", 1),
    "no host": framed(CHUNKED).replace(b"Host: mcp.corp.example\r\n", b"", 1),
    "a leading space": b" " + framed(CHUNKED),
}


@pytest.mark.parametrize("case", SMUGGLING)
async def test_a_request_that_could_be_read_in_two_ways_is_read_in_none(endpoint: Endpoint, case: str) -> None:
    found = await endpoint.raw(SMUGGLING[case])

    assert [answer.status for answer in found] == [400]
    assert len(endpoint.sessions) == 0


@pytest.mark.parametrize("chunk", [b"-1\r\n", b"zz\r\n", b"5\r\nabcdefgh\r\n", b"10000000000000000\r\n"])
async def test_a_chunk_that_breaks_later_ends_the_request_and_the_connection(tmp_path: Path, chunk: bytes) -> None:
    """aiohttp does not tell the reader of a body that its framing broke; the body's time limit ends the wait."""
    body = encoded(INITIALIZE)
    begun = framed(CHUNKED, body=b"%x\r\n%b\r\n" % (len(body), body))
    async with running(tmp_path, body_timeout_s=0.3) as endpoint:
        found = await endpoint.raw(begun, chunk + b"\r\n0\r\n\r\n", SMUGGLED, pause=0.05)

        assert [answer.status for answer in found] == [408]
        assert len(endpoint.sessions) == 0


async def test_two_requests_that_are_clearly_two_are_answered_in_order(endpoint: Endpoint) -> None:
    first = request("POST", "/mcp", encoded(INITIALIZE), Connection=None)

    found = await endpoint.raw(first + SMUGGLED)

    assert [answer.status for answer in found] == [200, 200]
    assert len(endpoint.sessions) == 2


@pytest.mark.parametrize("name", ["Mcp-Session-Id", "MCP-Protocol-Version", "Origin", "Authorization"])
async def test_two_copies_of_a_header_are_refused_before_anybody_is_asked(endpoint: Endpoint, name: str) -> None:
    value = f"Bearer {token()}" if name == "Authorization" else "2025-11-25"
    twice = b"".join(f"{each}: {value}\r\n".encode() for each in (name, name.lower()))
    body = encoded(INITIALIZE)
    top = head("POST", "/mcp", Authorization=None if name == "Authorization" else f"Bearer {token()}")

    [answer] = await endpoint.raw(top + twice + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    assert answer.status == 400
    assert len(endpoint.sessions) == 0


async def test_a_trailer_is_not_a_header(endpoint: Endpoint) -> None:
    body = encoded(INITIALIZE)
    start = head("POST", "/mcp", Authorization=None) + CHUNKED + b"\r\n"
    trailer = f"Authorization: Bearer {token()}\r\n".encode()

    [answer] = await endpoint.raw(start + b"%x\r\n%b\r\n0\r\n" % (len(body), body) + trailer + b"\r\n")

    assert answer.status == 401


async def test_a_refused_upgrade_does_not_turn_what_follows_into_something_else(endpoint: Endpoint) -> None:
    top = head("GET", "/mcp", Authorization=None, Connection="Upgrade", Upgrade="websocket")

    found = await endpoint.raw(top + b"\r\n", request("GET", "/mcp", Authorization=None))

    assert {answer.status for answer in found} == {401}


async def test_malformed_http_is_not_quoted_in_the_answer(endpoint: Endpoint) -> None:
    [answer] = await endpoint.raw(b"GET /secret-path HTTP/1.1\r\nHost: a\r\nBad Header: <script>secret\r\n\r\n")

    assert (answer.status, answer.body) == (400, b"Bad request\n")


def test_the_python_http_parser_is_refused_at_start() -> None:
    program = "from sidecar.edge.server import require_c_parser; require_c_parser()"
    for environment, expected in (({"AIOHTTP_NO_EXTENSIONS": "1"}, 1), ({}, 0)):
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
        assert done.returncode == expected, done.stderr
        assert (b"ConfigurationError" in done.stderr) == bool(expected)


async def test_a_port_that_is_taken_is_a_configuration_error(endpoint: Endpoint) -> None:
    with pytest.raises(ConfigurationError):
        await (await serve(web.Application(), ("127.0.0.1", endpoint.port))).cleanup()


@pytest.mark.parametrize(
    "changes",
    [
        {"max_request_bytes": 0},
        {"body_timeout_s": 0},
        {"keep_alive_s": -1},
        {"allowed_hosts": frozenset()},
    ],
)
def test_a_limit_that_would_be_none_is_a_configuration_error(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        config(**changes)


def test_answers_are_split_as_they_were_sent() -> None:
    sent = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No Content\r\n\r\n"

    assert [(answer.status, answer.body) for answer in answers(sent)] == [(200, b"ok"), (204, b"")]


def with_token_of(size: int) -> str:
    return "Bearer " + "a" * (size - len("Bearer "))


async def test_a_header_that_is_too_long_is_told_so_and_nothing_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, ServerLimits(max_header_bytes=8192)) as endpoint:
        counted = counting(endpoint)
        [long] = await endpoint.raw(request("POST", "/mcp", Authorization=with_token_of(9000)))
        [fitting] = await endpoint.raw(request("POST", "/mcp", Authorization=with_token_of(8000)))

    assert (long.status, long.body) == (431, b"A line of the request's head is longer than 8192 bytes\n")
    assert (fitting.status, counted) == (401, ["long_head"])
    assert "8192" in caplog.text
    assert "aaaa" not in caplog.text


async def test_a_token_with_many_groups_is_accepted(endpoint: Endpoint) -> None:
    groups = [f"{number:08x}-6b0a-4944-982d-f776045632af-of-the-directory-of-corp" for number in range(200)]
    large = token(groups=groups)
    assert len(large) > 16_000

    [answer] = await endpoint.raw(request("POST", "/mcp", encoded(INITIALIZE), Authorization=f"Bearer {large}"))

    assert answer.status == 200
