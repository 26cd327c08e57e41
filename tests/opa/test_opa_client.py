"""The client against a real HTTP server that answers properly, or in one of the wrong ways."""

import asyncio
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.client import OpaClient
from sidecar.opa.endpoint import Endpoint
from sidecar.opa.memo import Memo
from sidecar.ports import Question
from sidecar.system import followed_file
from tests.patience import HANG_S

GOOD = b'{"decision_id":"d-1","provenance":{"bundles":{"p":{"revision":"r1"}}},"result":{"allow":false}}'
SECRET = "alice@corp.example"
PATIENT_S = HANG_S
"""Where the fault itself must end the question, so that a deadline cannot pass for it."""
IMPATIENT_S = 0.3

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Peer:
    """An HTTP server in the place of OPA; keeps what it was asked."""

    def __init__(self, handler: Handler) -> None:
        self.url = ""
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self._handler = handler
        self._arrived = asyncio.Event()

    async def was_asked(self, times: int) -> None:
        while len(self.asked) < times:
            self._arrived.clear()
            await self._arrived.wait()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self._arrived.set()
        self.bodies.append(await request.read())
        return await self._handler(request)


@asynccontextmanager
async def peer(handler: Handler, *, tls: ssl.SSLContext | None = None, path: Path | None = None) -> AsyncIterator[Peer]:
    stand_in = Peer(handler)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", stand_in.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if path is not None:
            await web.UnixSite(runner, str(path)).start()
            stand_in.url = f"unix://{path}"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            stand_in.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        yield stand_in
    finally:
        await runner.cleanup()


async def properly(_: web.Request) -> web.Response:
    return web.Response(body=GOOD, content_type="application/json")


def with_status(status: int, body: bytes = GOOD) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type="application/json")

    return answer


def with_headers(body: bytes = GOOD, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return answer


async def never(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def slow_drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


async def truncated(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "500"})
    await response.prepare(request)
    await response.write(GOOD)
    abort(request)
    return response


async def truncated_chunks(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(GOOD)
    abort(request)
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 65536)


async def reset(request: web.Request) -> web.StreamResponse:
    abort(request)
    return web.Response()


def abort(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


def raw(answer: bytes) -> Handler:
    """Bytes that aiohttp would never write."""

    async def write(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(answer)
        request.transport.close()
        return web.Response()

    return write


WRONG_ANSWERS: dict[str, Handler] = {
    "undefined": with_status(200, b'{"decision_id":"d"}'),
    "duplicate keys": with_status(200, b'{"result":{"allow":false,"allow":true}}'),
    "NaN": with_status(200, b'{"result":NaN}'),
    "a list": with_status(200, b"[1]"),
    "an empty body": with_status(200, b""),
    "evaluation error": with_status(500, b'{"code":"internal_error","message":"x"}'),
    "not found": with_status(404),
    "unauthorized": with_status(401),
    "bad request": with_status(400),
    "unavailable": with_status(503),
    "created, with a proper body": with_status(201),
    "non-authoritative, with a proper body": with_status(203),
    "no content": with_status(204, b""),
    "partial content": with_status(206),
    "HTML": with_headers(b"<html>", Content_Type="text/html"),
    "a proper body as HTML": with_headers(Content_Type="text/html"),
    "a proper body as text": with_headers(Content_Type="text/plain"),
    "a proper body as JSON lines": with_headers(Content_Type="application/jsonl"),
    "a content encoding": with_headers(b"\x1f\x8b", Content_Type="application/json", Content_Encoding="gzip"),
    "a proper body that claims an encoding": with_headers(Content_Type="application/json", Content_Encoding="deflate"),
    "a truncated body": truncated,
    "truncated chunks": truncated_chunks,
    "a huge body": with_status(200, b'{"result":"' + b"x" * 2_000_000 + b'"}'),
    "an endless body": endless,
    "a reset connection": reset,
    "not HTTP": raw(b"220 mail.example ESMTP\r\n\r\n"),
    "no media type": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n" + b'{"result":true}'),
    "two lengths": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nContent-Length: 2\r\n\r\n" + b'{"result":true}'),
    "a huge header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
}


STATUS = r"OPA answered {}( internal_error)?"
MEDIA_TYPE = r"OPA's answer is not application/json"
NOT_JSON = r"the answer is not strict JSON \(\w+\)"

REASONS = {
    "undefined": "the result is undefined",
    "duplicate keys": NOT_JSON,
    "NaN": NOT_JSON,
    "a list": "the answer is not a JSON object",
    "an empty body": NOT_JSON,
    "evaluation error": STATUS.format(500),
    "not found": STATUS.format(404),
    "unauthorized": STATUS.format(401),
    "bad request": STATUS.format(400),
    "unavailable": STATUS.format(503),
    "created, with a proper body": STATUS.format(201),
    "non-authoritative, with a proper body": STATUS.format(203),
    "no content": STATUS.format(204),
    "partial content": STATUS.format(206),
    "HTML": MEDIA_TYPE,
    "a proper body as HTML": MEDIA_TYPE,
    "a proper body as text": MEDIA_TYPE,
    "a proper body as JSON lines": MEDIA_TYPE,
    "a content encoding": "OPA answered with a content encoding that was not asked for",
    "a proper body that claims an encoding": "OPA answered with a content encoding that was not asked for",
    "a truncated body": "ClientPayloadError",
    "truncated chunks": "ClientPayloadError",
    "a huge body": "the answer is larger than 1000000 bytes",
    "an endless body": "the answer is larger than 1000000 bytes",
    "a reset connection": r"(ServerDisconnectedError|ClientOSError.*)",
    "not HTTP": "ClientResponseError",
    "no media type": MEDIA_TYPE,
    "two lengths": "ClientResponseError",
    "a huge header": "ClientResponseError",
}
"""What the log says of each, so that an operator knows one from the other without seeing the answer."""


FAULTS = {
    PdpFault.UNDEFINED: {"undefined"},
    PdpFault.MALFORMED: {"duplicate keys", "NaN", "a list", "an empty body"},
    PdpFault.MEDIA_TYPE: {name for name in WRONG_ANSWERS if " as " in name or "encoding" in name}
    | {"HTML", "no media type"},
    PdpFault.TOO_LARGE: {"a huge body", "an endless body"},
    PdpFault.INCOMPLETE: {"a truncated body", "truncated chunks"},
    PdpFault.UNREACHABLE: {"a reset connection", "not HTTP", "two lengths", "a huge header"},
    PdpFault.STATUS: {name for name in REASONS if REASONS[name].startswith("OPA answered")}
    - {"a content encoding", "a proper body that claims an encoding"},
}
"""What the metric and the refusal call each."""


def test_every_wrong_answer_has_one_fault():
    named = [name for names in FAULTS.values() for name in names]
    assert sorted(named) == sorted(WRONG_ANSWERS)


@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_every_wrong_answer_has_its_reason(name: str) -> None:
    async with peer(WRONG_ANSWERS[name]) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        with pytest.raises(DecisionUnavailable) as caught:
            await client.ask(Question.DECISION, {})
    assert re.fullmatch(REASONS[name], caught.value.detail), caught.value.detail
    assert caught.value.label == "decision_unavailable", "what the metric of refusals counts it as"
    assert name in FAULTS[caught.value.fault]


@pytest.mark.parametrize("handler", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
async def test_every_wrong_answer_is_no_decision(handler: Handler) -> None:
    async with peer(handler) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        with pytest.raises(DecisionUnavailable) as caught:
            await client.ask(Question.DECISION, {"subject": SECRET})
    assert SECRET not in caught.value.detail
    assert "within" not in caught.value.detail, "the deadline ended it, not the fault"


@pytest.mark.parametrize("handler", [never, slow_drip], ids=["silent", "dripping"])
async def test_a_late_answer_is_no_decision(handler: Handler) -> None:
    async with peer(handler) as stand_in, OpaClient(stand_in.url, timeout_s=IMPATIENT_S) as client:
        with pytest.raises(DecisionUnavailable, match="no answer within"):
            await client.ask(Question.DECISION, {})


@pytest.mark.parametrize(("then", "kept"), [(never, True), (with_status(500), False)], ids=["late", "wrong"])
async def test_a_late_answer_makes_no_right_one_be_forgotten_and_a_wrong_one_does(then: Handler, kept: bool) -> None:
    asked: list[bytes] = []

    async def first_well(request: web.Request) -> web.StreamResponse:
        asked.append(await request.read())
        return await (properly if len(asked) == 1 else then)(request)

    memo = Memo(60, lambda: True)
    async with peer(first_well) as stand_in, OpaClient(stand_in.url, timeout_s=IMPATIENT_S, memo=memo) as client:
        answer = await client.ask(Question.DECISION, {"a": 1})
        with pytest.raises(DecisionUnavailable):
            await client.ask(Question.DECISION, {"a": 2})
        if kept:
            assert await client.ask(Question.DECISION, {"a": 1}) == answer
            assert len(asked) == 2
        else:
            with pytest.raises(DecisionUnavailable):
                await client.ask(Question.DECISION, {"a": 1})
            assert len(asked) == 3


async def test_the_same_server_answering_properly_gives_the_decision() -> None:
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        answer = await client.ask(Question.DECISION, {"a": "ü"})
    assert answer.result == {"allow": False}
    assert (answer.decision_id, answer.revision) == ("d-1", "r1")
    [request] = stand_in.asked
    assert request.method == "POST"
    assert request.raw_path == "/v1/data/mcp/main/decision?strict-builtin-errors=true&provenance=true"
    assert stand_in.bodies == ['{"input":{"a":"ü"}}'.encode()]
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers
    assert "traceparent" not in request.headers


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_spellings_of_the_right_media_type_are_accepted(media_type: str) -> None:
    handler = with_headers(Content_Type=media_type)
    async with peer(handler) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        assert (await client.ask(Question.DECISION, {})).result == {"allow": False}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with peer(properly) as target:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{target.url}/v1/data/mcp/main/decision"})

        async with peer(redirect) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
            with pytest.raises(DecisionUnavailable, match=str(status)):
                await client.ask(Question.DECISION, {})
            assert not await client.healthy()
        assert target.asked == []


async def test_an_evaluation_error_is_asked_once_and_described_by_its_place() -> None:
    body = (
        b'{"code":"internal_error","message":"error(s) occurred","errors":[{"code":"eval_builtin_error","message":"'
        + SECRET.encode()
        + b'","location":{"file":"teams/red/policy.rego","row":3,"col":1}}]}'
    )
    async with peer(with_status(500, body)) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        with pytest.raises(DecisionUnavailable) as caught:
            await client.ask(Question.DECISION, {"subject": SECRET})
    assert caught.value.detail == "OPA answered 500 internal_error: eval_builtin_error at teams/red/policy.rego:3"
    assert len(stand_in.asked) == 1


async def test_a_kept_connection_that_died_costs_one_more_attempt_and_no_decision() -> None:
    count = 0

    async def dies_when_used_again(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await (reset if count == 2 else properly)(request)

    async with peer(dies_when_used_again) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        for _ in range(2):
            assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
    assert len(stand_in.asked) == 3


async def test_a_server_that_always_resets_is_tried_twice() -> None:
    async with peer(reset) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        with pytest.raises(DecisionUnavailable):
            await client.ask(Question.DECISION, {})
    assert len(stand_in.asked) == 2


async def test_the_deadline_covers_the_second_attempt() -> None:
    count = 0

    async def resets_then_hangs(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await (reset if count == 1 else never)(request)

    async with peer(resets_then_hangs) as stand_in, OpaClient(stand_in.url, timeout_s=IMPATIENT_S) as client:
        with pytest.raises(DecisionUnavailable, match="no answer within"):
            await client.ask(Question.DECISION, {})


async def test_nobody_listening_is_no_decision(free_port: int, runtime: Path) -> None:
    for url in (f"http://127.0.0.1:{free_port}", f"unix://{runtime}/none"):
        async with OpaClient(url, timeout_s=PATIENT_S) as client:
            with pytest.raises(DecisionUnavailable):
                await client.ask(Question.DECISION, {})
            assert not await client.healthy()


async def test_a_client_that_is_not_open_gives_no_decision() -> None:
    async with peer(properly) as stand_in:
        fresh, closed = OpaClient(stand_in.url, timeout_s=PATIENT_S), OpaClient(stand_in.url, timeout_s=PATIENT_S)
        await closed.open()
        await closed.close()
        for client in (fresh, closed):
            with pytest.raises(DecisionUnavailable, match="not open"):
                await client.ask(Question.DECISION, {})
            assert not await client.healthy()
    assert stand_in.asked == []


async def test_closing_ends_the_questions_in_flight() -> None:
    async with peer(never) as stand_in:
        async with OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
            questions = [asyncio.create_task(client.ask(Question.DECISION, {})) for _ in range(3)]
            await stand_in.was_asked(3)
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DecisionUnavailable] * 3


async def test_cancelling_a_question_passes_through() -> None:
    async with peer(never) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        question = asyncio.create_task(client.ask(Question.DECISION, {}))
        await stand_in.was_asked(1)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question


async def test_fifty_questions_do_not_wait_for_one_another() -> None:
    waiting, all_there = 0, asyncio.Event()

    async def together(request: web.Request) -> web.Response:
        nonlocal waiting
        waiting += 1
        if waiting == 50:
            all_there.set()
        await all_there.wait()
        return await properly(request)

    async with peer(together) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        answers = await asyncio.gather(*(client.ask(Question.DECISION, {"n": n}) for n in range(50)))
    assert len(answers) == 50


async def test_a_question_that_waits_too_long_for_others_is_refused_and_was_not_sent() -> None:
    async with peer(never) as stand_in, OpaClient(stand_in.url, timeout_s=IMPATIENT_S) as client:
        questions = [client.ask(Question.DECISION, {"n": number}) for number in range(64 * 12)]
        faults = Counter(
            found.fault if isinstance(found, DecisionUnavailable) else found
            for found in await asyncio.gather(*questions, return_exceptions=True)
        )
        late = faults.total() - faults[PdpFault.OVERLOADED]
        assert faults.keys() - {PdpFault.LAGGING} == {PdpFault.TIMEOUT, PdpFault.OVERLOADED}
        assert late >= 64
        assert len(stand_in.asked) <= late, "each that was sent had a whole deadline"


async def test_no_more_questions_are_under_way_than_may_be() -> None:
    under_way, most, answered = 0, 0, asyncio.Event()

    async def counted(request: web.Request) -> web.Response:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if under_way == 3:
            answered.set()
        await answered.wait()
        await asyncio.sleep(0)
        under_way -= 1
        return await properly(request)

    async with peer(counted) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, at_once=3) as client:
        answers = await asyncio.gather(*(client.ask(Question.DECISION, {"n": n}) for n in range(30)))
    assert len(answers) == 30
    assert most == 3


async def test_the_trace_travels_and_the_baggage_does_not() -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        token = context.attach(baggage.set_baggage("user", SECRET))
        with tracer.start_as_current_span("authorize") as span:
            await client.ask(Question.DECISION, {})
        context.detach(token)
    ours = span.get_span_context()
    headers = stand_in.asked[0].headers
    assert (
        headers["traceparent"] == f"00-{trace.format_trace_id(ours.trace_id)}-{trace.format_span_id(ours.span_id)}-01"
    )
    assert not {"baggage", "tracestate"} & {name.lower() for name in headers}


async def test_proxy_variables_and_netrc_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password eve\n")
    netrc.chmod(0o600)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    monkeypatch.setenv("NETRC", str(netrc))
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
    assert "Authorization" not in stand_in.asked[0].headers


async def test_cookies_are_not_kept() -> None:
    handler = with_headers(Content_Type="application/json", Set_Cookie="a=b")
    async with peer(handler) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        for _ in range(2):
            await client.ask(Question.DECISION, {})
    assert all("Cookie" not in request.headers for request in stand_in.asked)


async def test_a_unix_socket_is_asked_the_same_way(runtime: Path) -> None:
    async with peer(properly, path=runtime / "s") as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        assert (await client.ask(Question.VISIBILITY, {})).result == {"allow": False}
        assert await client.healthy()
    assert [request.path for request in stand_in.asked] == ["/v1/data/mcp/main/visibility", "/health"]


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (500, False), (401, False), (204, False)])
async def test_only_200_is_healthy(status: int, healthy: bool) -> None:
    async with peer(with_status(status)) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S) as client:
        assert await client.healthy() is healthy


# --- trust ------------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A self-signed certificate for 127.0.0.1: the server's context and the file that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file, key_file)
    return server, file


async def test_tls_is_verified_against_the_given_authority(tmp_path: Path) -> None:
    server, authority = certificate(tmp_path, "opa")
    _, other = certificate(tmp_path, "other")
    async with peer(properly, tls=server) as stand_in:
        async with OpaClient(stand_in.url, timeout_s=PATIENT_S, ca_file=authority) as client:
            assert (await client.ask(Question.DECISION, {})).result == {"allow": False}
        for ca_file in (other, None):
            async with OpaClient(stand_in.url, timeout_s=PATIENT_S, ca_file=ca_file) as client:
                with pytest.raises(DecisionUnavailable):
                    await client.ask(Question.DECISION, {})
    assert len(stand_in.asked) == 1


async def test_a_bearer_token_comes_from_its_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken\n")
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, token_file=token) as client:
        await client.ask(Question.DECISION, {})
    assert stand_in.asked[0].headers["Authorization"] == "Bearer t0ken"


async def test_a_changed_token_is_shown_from_then_on_and_a_wrong_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(followed_file, "LOOK_S", 0.01)
    token = tmp_path / "token"
    token.write_text("t0ken")
    async with peer(properly) as stand_in, OpaClient(stand_in.url, timeout_s=PATIENT_S, token_file=token) as client:
        token.write_text("two words")
        async with asyncio.timeout(HANG_S):
            while not caplog.records:  # noqa: ASYNC110 - the log says nothing when it has a line
                await asyncio.sleep(0.01)
            await client.ask(Question.DECISION, {})
            assert stand_in.asked[-1].headers["Authorization"] == "Bearer t0ken"
            token.write_text("an0ther")
            while stand_in.asked[-1].headers["Authorization"] != "Bearer an0ther":
                await client.ask(Question.DECISION, {})
            await client.healthy()
            assert stand_in.asked[-1].headers["Authorization"] == "Bearer an0ther"
    assert "two words" not in caplog.text


@pytest.mark.parametrize("content", ["", "\n", "a b", "a\nb", "a\r\nX-Evil: 1", "tökén"])
async def test_a_token_file_holds_one_token(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    with pytest.raises(ConfigurationError):
        async with OpaClient("http://127.0.0.1:1", token_file=token):
            pass


async def test_missing_files_are_configuration_errors(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for client in (
        OpaClient("https://127.0.0.1:1", ca_file=missing),
        OpaClient("https://127.0.0.1:1", token_file=missing),
    ):
        with pytest.raises(ConfigurationError):
            async with client:
                pass


REFUSED_URLS = [
    "",
    "opa:8181",
    "//opa:8181",
    "ftp://opa",
    "file:///run/opa.sock",
    "http://",
    "http://:8181",
    "http://opa:notaport",
    "http://opa:99999",
    "http://user@opa:8181",
    "http://user:pw@opa:8181",
    "http://opa:8181/v1",
    "http://opa:8181?x=1",
    "http://opa:8181#f",
    "http://[::1",
    "unix://run/opa.sock",
    "unix:run/opa.sock",
    "unix:///run/opa.sock?x=1",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_another_form_of_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        OpaClient(url)


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("http://opa:8181", Endpoint(base="http://opa:8181")),
        ("https://opa.corp.example/", Endpoint(base="https://opa.corp.example", tls=True)),
        ("http://127.0.0.1:8181", Endpoint(base="http://127.0.0.1:8181", loopback=True)),
        ("http://localhost:8181", Endpoint(base="http://localhost:8181", loopback=True)),
        ("http://[::1]:8181", Endpoint(base="http://[::1]:8181", loopback=True)),
        ("unix:///run/opa.sock", Endpoint(base="http://opa", socket="/run/opa.sock", loopback=True)),
    ],
)
def test_the_forms_of_url(url: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(url) == endpoint


def test_options_that_do_not_fit_the_url_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ca_file"):
        OpaClient("http://127.0.0.1:8181", ca_file=tmp_path)
    with pytest.raises(ConfigurationError, match="token_file"):
        OpaClient("http://opa:8181", token_file=tmp_path)
    with pytest.raises(ConfigurationError, match="timeout"):
        OpaClient("http://opa:8181", timeout_s=0)
