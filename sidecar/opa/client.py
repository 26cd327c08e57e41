"""The client of the policy decision point: one question in, one believed answer or ``DecisionUnavailable`` out.

Built on ``opa-python-client`` 3.0.0, whose own way of asking does not suit a decision point (each measured, see
``docs/``): it retries an evaluation error three times over 0.9 s, follows redirects with the body, has no per-request
headers (so no traceparent), no Unix socket and no certificate authority, builds the path from its arguments without
quoting (CVE-2025-46569 is the server's side of the same mistake), sends NaN, and takes the last of duplicate keys. What
is kept is its session handling and its request; everything above is decided here.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
from opentelemetry import context as otel_context
from opentelemetry import trace

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.fair_line import MOST_WAITING, FairLine, NoPlace
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.deadline import Presence, answered_within
from sidecar.opa.endpoint import Endpoint
from sidecar.opa.memo import Memo, MemoKey
from sidecar.opa.own_socket import Dropped, OwnSocket
from sidecar.opa.wire import LONGEST_ANSWER, about_request, decode_answer, describe_failure, encode_question
from sidecar.policy import COMPILE_QUERY, COMPILE_UNKNOWNS, asker
from sidecar.ports import PdpAnswer, Question
from sidecar.saturation import Overloaded
from sidecar.system import REQUEST_ID, FollowedFiles, ended, follow_files

if TYPE_CHECKING:
    from sidecar.opa.library_transport import LibraryTransport

_STRICT = "strict-builtin-errors=true"
"""Without it a builtin error makes a ``deny`` rule undefined, and the deny silently disappears."""

_PROVENANCE = "&provenance=true"
"""Asks for the revisions of the bundles that answered: 2.8 kB of an answer's 3.9 kB with a hundred teams (measured), so
only where the revision is not known."""

_COMPILED: JsonObject = {"query": COMPILE_QUERY, "unknowns": [*COMPILE_UNKNOWNS]}

_LONGEST_TOKEN = 65_536
"""Characters."""

_HEALTH = "/health?bundles=true"
_REDIRECTS = range(300, 400)
_OK = 200
AT_ONCE = 64
"""Questions that are put to an OPA elsewhere at the same time; a question that waits here has not been sent, and its
deadline has not begun."""
AT_ONCE_HERE = 8
"""The same of an OPA on this machine: more of them make each slower and none sooner. With 64 on two busy processors,
256 callers at once had all of them miss their deadlines, and OPA was taken for one that hangs."""
QUEUE_S = 2.0
"""Seconds that a question may wait to be sent."""

_NOT_WRONG = frozenset({PdpFault.TIMEOUT, PdpFault.OVERLOADED, PdpFault.LAGGING})
"""What says nothing of the answers that were given before: a late answer, and a question that was not sent."""

_DROPPED = frozenset({errno.ECONNRESET, errno.EPIPE})


def unobserved() -> None:
    """Nobody wants to know when a question is sent."""


class OpaClient:
    """Asks one OPA; the ``DecisionPoint`` of an external OPA, and of one instance of the managed one.

    Args:
        url: ``http://host:port``, ``https://host:port`` or ``unix:///absolute/path``.
        timeout_s: seconds for one question from its sending to the last byte, a repeated attempt included.
        ca_file: PEM file of the authority that OPA's certificate must chain to, instead of the system's (https only).
        token_file: file with a bearer token for OPA (``--authentication=token``); read again when it changes.
        revision: the policy set that is known to answer there; None takes what the answer's provenance says.
        memo: recent answers that stand for equal questions; None asks every time.
        at_once: questions that are put to it at the same time.
        queue: questions that wait to be sent.
        queue_s: seconds that a question may wait to be sent; its deadline begins after that.
        own: the OPA is one that the sidecar started, behind a Unix socket; it is asked over ``OwnSocket``.

    Raises:
        ConfigurationError: the URL has another form, an option does not fit it, or a bearer token would travel in
            clear text over a network.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 0.5,
        ca_file: Path | None = None,
        token_file: Path | None = None,
        revision: str | None = None,
        memo: Memo | None = None,
        at_once: int = AT_ONCE,
        queue: int = MOST_WAITING,
        queue_s: float = QUEUE_S,
        own: bool = False,
    ) -> None:
        self._endpoint = Endpoint.parse(url)
        if own and self._endpoint.socket is None:
            raise ConfigurationError("an OPA that the sidecar starts listens at a Unix socket")
        self._own = own
        self._base = "" if own else self._endpoint.base
        self._memo = memo
        if timeout_s <= 0:
            raise ConfigurationError("opa.timeout_ms must be positive")
        if ca_file is not None and not self._endpoint.tls:
            raise ConfigurationError("opa.ca_file needs an https opa.url")
        if token_file is not None and not (self._endpoint.tls or self._endpoint.loopback):
            raise ConfigurationError("opa.token_file needs an opa.url with https, a loopback address or a Unix socket")
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._token_file = token_file
        self._following: asyncio.Task[None] | None = None
        self._revision = revision
        # Every path is a constant of the port; nothing of a question ever becomes part of one.
        query = _STRICT + (_PROVENANCE if revision is None else "")
        self._urls = {question: f"{self._base}/v1/data/{question.value}?{query}" for question in Question}
        self._urls[Question.RESIDUAL] = f"{self._base}/{Question.RESIDUAL.value}"
        self._health_url = self._base + _HEALTH
        self._transport: LibraryTransport | OwnSocket | None = None
        self._asking: dict[tuple[Question, bytes], asyncio.Future[PdpAnswer | DecisionUnavailable | None]] = {}
        """The questions that OPA is evaluating, where equal ones share an answer."""
        self._at_once = at_once
        self._line = FairLine(at_once, wait_s=queue_s, most=queue)
        self._well = False
        """What the last health probe said that could be believed."""

    async def open(self) -> None:
        """Make the session; nothing is sent yet.

        Raises:
            ConfigurationError: the CA or token file is not usable.
        """
        tls, token = await asyncio.to_thread(self._read_files)
        if self._own and self._endpoint.socket is not None:
            self._transport = OwnSocket(self._endpoint.socket, LONGEST_ANSWER)
        else:
            from sidecar.opa.library_transport import LibraryTransport  # noqa: PLC0415 - not for an OPA of our own

            bearer = (lambda: None) if token is None else (lambda: token.value)
            self._transport = LibraryTransport(self._endpoint, tls=tls, token=bearer, most=2 * self._at_once)
        if token is not None:
            self._following = asyncio.create_task(follow_files(token), name="opa.token_file")
        await self._transport.__aenter__()

    async def close(self) -> None:
        """Close all connections; questions in flight and later ones end in ``DecisionUnavailable``."""
        try:
            if self._following is not None:
                self._following.cancel()
                await ended(self._following)
        finally:
            if self._transport is not None:
                await self._transport.close_connection()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def forget(self) -> None:
        """Forget every remembered answer."""
        if self._memo is not None:
            self._memo.clear()

    def supersede(self) -> None:
        """Put no further question to this OPA: another serves. What was sent already is answered."""
        self._line.close()

    async def ask(self, question: Question, document: JsonObject, sent: Callable[[], None] = unobserved) -> PdpAnswer:
        """Evaluate one rule with ``document`` as input.

        Args:
            question: which rule.
            document: its input; says on whose behalf it is asked, by whom turns are taken.
            sent: called right before the question is sent, which it is not where the answer is known.

        Raises:
            DecisionUnavailable: everything but HTTP 200 with one strict JSON object that has a ``result``, in time.
            Overloaded: it could not be sent in time, or the answer not be read in time.
            LineClosed: it was superseded before the question was sent.
        """
        memo = self._memo
        key = memo.key(question, document) if memo is not None else None
        if memo is None or key is None:
            return (await self._answered(question, self._encoded(question, document), document, sent))[0]
        known = memo.recall(key)
        if known is not None:
            return known
        body = key.platform if key.is_question else self._encoded(question, document)
        return await self._once(memo, key, body, document, sent)

    async def _once(
        self, memo: Memo, key: MemoKey, body: bytes, document: JsonObject, sent: Callable[[], None]
    ) -> PdpAnswer:
        """Have a question evaluated and keep the answer; one that is being evaluated already is waited for.

        Equal is byte for byte, so the answer is that to each of them. Where the one that asked is cancelled, those that
        waited ask by themselves.
        """
        place = (key.question, body)
        while (under_way := self._asking.get(place)) is not None:
            match await asyncio.shield(under_way):
                case PdpAnswer() as answer:
                    return answer
                case Overloaded() as error:
                    raise Overloaded(error.detail, retry_after_s=error.retry_after_s, fault=error.fault)
                case DecisionUnavailable() as error:
                    raise DecisionUnavailable(error.detail, fault=error.fault)
                case None:
                    continue
        mine = self._asking[place] = asyncio.get_running_loop().create_future()
        outcome: PdpAnswer | DecisionUnavailable | None = None
        try:
            outcome, size = await self._answered(key.question, body, document, sent)
        except DecisionUnavailable as error:
            outcome = error
            if error.fault not in _NOT_WRONG:
                # What answers no longer, or not as it should, is not to be quoted either.
                memo.clear()
            raise
        finally:
            del self._asking[place]
            mine.set_result(outcome)
        memo.remember(key, outcome, size=size)
        return outcome

    def _encoded(self, question: Question, document: JsonObject) -> bytes:
        return encode_question(document, _COMPILED if question is Question.RESIDUAL else None)

    async def _answered(
        self, question: Question, body: bytes, document: JsonObject, sent: Callable[[], None]
    ) -> tuple[PdpAnswer, int]:
        """Return the answer to a question, and how many bytes it had."""
        if question is not Question.RESIDUAL:  # OPA's own rules let no other member pass there, and OPA logs none
            body = about_request(body, _request_id())
        raw = await self._evaluate(self._urls[question], body, document, sent)
        return decode_answer(raw, revision=self._revision), len(raw)

    async def engine(self) -> str:
        """Return which version of OPA answers here, by the provenance of its answer; empty if it does not say.

        Raises:
            DecisionUnavailable: as for ``ask``.
        """
        url = f"{self._base}/v1/data/{Question.DECISION.value}?{_STRICT}{_PROVENANCE}"
        return decode_answer(await self._evaluate(url, encode_question({}), {}, unobserved), revision="").engine

    async def _evaluate(self, url: str, body: bytes, document: JsonObject, sent: Callable[[], None]) -> bytes:
        status, media_type, answer = await self._exchange(url, body, document, sent)
        if status != _OK:
            fault = PdpFault.REDIRECT if status in _REDIRECTS else PdpFault.STATUS
            raise DecisionUnavailable(f"OPA answered {status} {describe_failure(answer)}".rstrip(), fault=fault)
        if media_type.partition(";")[0].strip().lower() != "application/json":
            raise DecisionUnavailable("OPA's answer is not application/json", fault=PdpFault.MEDIA_TYPE)
        return answer

    async def healthy(self) -> bool:
        """Whether OPA says that it serves, or said so last where that cannot be told now."""
        found = await self.probe()
        return self._well if found is None else found

    async def probe(self) -> bool | None:
        """Whether OPA says that it serves and its bundles are active (``GET /health?bundles``).

        None: there was no answer while our own loop was away, which says nothing of OPA.
        """
        transport = self._transport
        if transport is None or not transport.open:
            return False
        presence = Presence(self._timeout_s)
        try:
            async with answered_within(self._timeout_s, presence):
                self._well = await transport.status(self._health_url) == _OK
        except TimeoutError:
            if not presence.tells:
                return None
            self._well = False
        except (aiohttp.ClientError, OSError, DecisionUnavailable):
            self._well = False
        return self._well

    async def _exchange(
        self, url: str, body: bytes, document: JsonObject, sent: Callable[[], None]
    ) -> tuple[int, str, bytes]:
        """Send, once more if a kept-alive connection turns out to be dead, all within one deadline.

        The repetition is safe because a question changes nothing, and needed because OPA may close an idle connection
        in the moment in which it is used again (RFC 9112 section 9.3.1).
        """
        headers = _trace_headers()
        if not self._line.enter_at_once():
            await self._line_up(document)
        presence = Presence(self._timeout_s)
        try:
            sent()
            async with answered_within(self._timeout_s, presence):
                try:
                    return await self._opened().post(url, body, headers)
                except (aiohttp.ClientConnectionError, Dropped) as error:
                    if not _dropped(error):
                        raise
                return await self._opened().post(url, body, headers)
        except TimeoutError:
            what = f"no answer within {self._timeout_s:g} s"
            if not presence.tells:
                raise Overloaded(
                    f"{what}, in which this process was busy", retry_after_s=1, fault=PdpFault.LAGGING
                ) from None
            raise DecisionUnavailable(what, fault=PdpFault.TIMEOUT) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        finally:
            self._line.leave()

    async def _line_up(self, document: JsonObject) -> None:
        """Wait until a question may be sent.

        Raises:
            Overloaded: it would wait for too long, or did. It was not sent.
            LineClosed: it was superseded.
        """
        try:
            await self._line.enter(asker(document))
        except NoPlace as refused:
            raise Overloaded(f"not sent: {refused.why}", retry_after_s=refused.retry_after_s) from None

    async def look(self, path: str, *, timeout_s: float, longest: int) -> bytes:
        """Return the body of a GET of ``path``, a constant of the caller's, of at most ``longest`` bytes.

        Raises:
            DecisionUnavailable: everything but HTTP 200 in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                status, body = await self._opened().get(f"{self._base}/{path}", longest)
        except TimeoutError:
            raise DecisionUnavailable(f"no answer within {timeout_s:g} s", fault=PdpFault.TIMEOUT) from None
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from None
        if status != _OK:
            raise DecisionUnavailable(f"OPA answered {status} to GET /{path}", fault=PdpFault.STATUS)
        return body

    def _opened(self) -> "LibraryTransport | OwnSocket":
        if self._transport is None or not self._transport.open:
            raise DecisionUnavailable("the client is not open", fault=PdpFault.UNREACHABLE)
        return self._transport

    def _read_files(self) -> tuple[ssl.SSLContext | None, FollowedFiles[str] | None]:
        try:
            tls = ssl.create_default_context(cafile=self._ca_file) if self._endpoint.tls else None
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigurationError(f"opa.ca_file cannot be used: {type(error).__name__}") from error
        file = self._token_file
        return tls, None if file is None else FollowedFiles("opa.token_file", [file], lambda: _bearer_token(file))


def _bearer_token(file: Path) -> str:
    try:
        with file.open(encoding="ascii") as stream:
            token = stream.read(_LONGEST_TOKEN).strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"opa.token_file cannot be used: {type(error).__name__}") from error
    if not (token and token.isprintable() and " " not in token):
        raise ConfigurationError("opa.token_file must hold one bearer token and nothing else")
    return token


def _unreachable(error: Exception) -> DecisionUnavailable:
    """Without text and cause: a parse error quotes the bytes that OPA sent, and those may repeat the question."""
    reason = error.strerror if isinstance(error, OSError) else None
    detail = ": ".join(filter(None, (type(error).__name__, reason)))
    cut = isinstance(error, aiohttp.ClientPayloadError)
    return DecisionUnavailable(detail, fault=PdpFault.INCOMPLETE if cut else PdpFault.UNREACHABLE)


def _dropped(error: Exception) -> bool:
    """Whether the peer ended the connection before a single byte of an answer."""
    if isinstance(error, aiohttp.ServerDisconnectedError | Dropped):
        return True
    return isinstance(error, aiohttp.ClientOSError) and error.errno in _DROPPED


def _request_id() -> str:
    """Return the request id of the message whose span is open; empty where there is none."""
    found = otel_context.get_value(REQUEST_ID)
    return found if isinstance(found, str) else ""


def _trace_headers() -> dict[str, str]:
    """W3C traceparent of the current span, and nothing else: baggage and tracestate are the caller's, not OPA's.

    Of the flags only *sampled* is sent: with *random* beside it, which our SDK sets, OpenTelemetry for Go before 1.46
    drops the whole header (``propagation/trace_context.go``, ``opts[0] > 2``), and older OPAs are built with that.
    """
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags.sampled):02x}"}
