"""The MongoDB MCP server behind a Streamable HTTP endpoint, guarded by a shared-secret header.

Both eras are spoken: with a handshake (MCP 2025-11-25), or without one (2026-07-28, ``stateless``). Request ids are
unique for the life of this object: answers to equal ids that race in one session were seen to reach the wrong caller.
No header, query or cookie of a client travels on; what is sent is built here.
"""

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

import aiohttp

from sidecar.errors import (
    UpstreamError,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.system import Outage
from sidecar.upstream import stateless
from sidecar.upstream.answers import AnswerReader, refusal_in
from sidecar.upstream.asking import Asking, CallTime, QuestionPlaces, carried_out, complete_or_required
from sidecar.upstream.connections import Leaving, ServerAnswer, ServerConnections
from sidecar.upstream.endpoint import ServerHeaders, checked_url
from sidecar.upstream.messages import (
    Outgoing,
    ServerNotification,
    check_initialized,
    encode_notification,
    encode_request,
    initialize_params,
)
from sidecar.upstream.recovery import Recovery
from sidecar.upstream.redaction import LogBudget, Redactor
from sidecar.upstream.relayed import with_progress
from sidecar.upstream.server_session import (
    FAREWELL_S,
    PLAIN,
    Declaration,
    SecretRefused,
    ServerSession,
    SessionGone,
    check_refusal,
    check_status,
    farewell,
    request_headers,
)
from sidecar.upstream.server_stream import ServerStream
from sidecar.upstream.toollist import OF_PROMPTS, PromptList, ToolList, all_prompts
from sidecar.upstream.watched import SUBSCRIBE, TOOLS_CHANGED, UNSUBSCRIBE, WatchedResources

_TOOLS_MAX_AGE_S = 300.0
"""Without a GET stream the server cannot announce a change between calls."""
_SESSION_ID = re.compile(r"[\x21-\x7e]{1,512}\Z")
_CANCELLATIONS_LOGGED_PER_S = 5

T = TypeVar("T")


class HttpUpstream:
    """One configured MongoDB MCP server instance, as ``sidecar.ports.Upstream``.

    Args:
        name: the instance's name in the settings; a permit for another instance is refused.
        url: the endpoint, ``http`` or ``https``, without credentials, query and fragment.
        headers: sent with every request; the shared secret is one of them (``MDB_MCP_HTTP_HEADERS`` of the server).
        timeout_s: the longest a call may take, waiting for its turn included.
        max_in_flight: how many calls are sent at once; further ones wait.
        renewed: reads the headers again, when the server refuses those in use.
        prefer_stateless: speak MCP 2026-07-28 with a server that has both. Otherwise it is spoken with one that has no
            handshake only: of the MongoDB MCP server 3.0.4, exports work with a session only.
    """

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        max_in_flight: int = 256,
        renewed: Callable[[], Mapping[str, str]] | None = None,
        prefer_stateless: bool = False,
    ) -> None:
        self._name = name
        self._url = checked_url(url)
        self._prefer_stateless, self._timeout_s = prefer_stateless, timeout_s
        self._max_in_flight = max_in_flight
        self._slots = asyncio.Semaphore(max_in_flight)
        self._places = QuestionPlaces(max(1, max_in_flight // 2))
        self._log = logging.getLogger(f"sidecar.upstream.{name}")
        self._outage = Outage(self._log, f"the server {name}", lost="does not answer", found="answers again")
        self._redactor = Redactor(headers.values())
        self._headers = ServerHeaders(name, headers, renewed, self._redactor, self._log)
        self._ids = itertools.count(1)
        self._tools = ToolList(max_age_s=_TOOLS_MAX_AGE_S)
        self._http: ServerConnections | None = None
        self._sessions: dict[Declaration, ServerSession] = {}  # one for each set of kinds and era, and so few
        self._handshake = asyncio.Lock()
        self._recovery = Recovery(name, self._ping, self._outage)
        self._answers = AnswerReader(self._redactor, self._heard, self._tell, self._go_on)
        news = self._watched = WatchedResources(self._ask)
        self.on_updated, self.unwatch, self.on_prompts_changed = news.on_update, news.unwatch, news.on_prompts_changed
        self._stream = ServerStream(name, self._opened, self._answers.outside, self._watched.told_all, self._recovery)
        self._cancellations: set[asyncio.Task[None]] = set()
        self._budget = LogBudget(lines=_CANCELLATIONS_LOGGED_PER_S, seconds=1.0)

    @property
    def healthy(self) -> bool:
        """Whether the server answered the last thing it was asked."""
        return PLAIN in self._sessions and not self._recovery.under_way

    @property
    def refusing(self) -> bool:
        """Whether calls are refused at once, because the server does not answer (``recovery``)."""
        return self._recovery.is_open

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the tool list may have changed: the server says so, or there is a new session."""
        self._tools.on_change(callback)

    async def start(self) -> None:
        """Open the session.

        Raises:
            UpstreamError: the server is not there, refuses, or does not speak MCP; nothing is left open.
        """
        if self._http is not None:
            raise ValueError("already started")
        self._http = ServerConnections(self._url, self._max_in_flight * 2)
        try:
            async with asyncio.timeout(self._timeout_s):
                session = await self._open(PLAIN, None)
            self._log.info("the server %s speaks MCP %s", self._name, session.revision)
        except TimeoutError as error:
            await self.stop()
            raise UpstreamTimedOut(f"no handshake within {self._timeout_s} s") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the session (DELETE) and every connection; calls in flight fail."""
        http, self._http = self._http, None
        sessions, self._sessions = self._sessions, {}
        try:
            await self._stream.stop()
            await self._watched.stop()
            await self._recovery.stop()
            tasks = set(self._cancellations)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for session in sessions.values():
                if http is not None and session.id is not None:
                    await farewell(http, request_headers(self._headers.present, session), self._log)
        finally:
            if http is not None:
                await http.close()

    def discard(self, uri: str) -> None:
        """Leave the file of an export to the server: its disk is not seen from here."""

    async def forward(self, permit: Permit) -> UpstreamResult:
        """Send exactly the permitted call and return its result (see ``sidecar.ports.Upstream``)."""
        if permit.server != self._name:
            raise UpstreamRefused(f"a permit for server {permit.server!r} cannot be used at {self._name!r}")
        if permit.method != SUBSCRIBE:
            return await carried_out(permit, self._ask)
        async with self._watched.asked(permit):
            return await carried_out(permit, self._ask)

    async def tools(self) -> tuple[JsonObject, ...]:
        """Return the server's live tools, all pages, cached for a while (see ``sidecar.ports.Upstream``)."""
        if (kept := self._tools.kept) is not None:
            return kept
        # A place is had before the list's lock is: a call that has one may wait for the lock (``_request``).
        return await self._guarded(
            "tools/list",
            lambda time: self._tools.get(lambda params: self._sent(Outgoing(method="tools/list", params=params), time)),
        )

    async def prompts(self) -> tuple[JsonObject, ...]:
        """Return the server's live prompts, all pages (see ``sidecar.ports.Upstream``)."""
        return await all_prompts(lambda params: self._ask(Outgoing(method="prompts/list", params=params)))

    async def _ask(self, request: Outgoing) -> bytes:
        return await self._guarded(request.method, partial(self._sent, request))

    async def _guarded(self, method: str, work: Callable[[CallTime], Awaitable[T]]) -> T:
        """Do what asks the server, unless it is known not to answer; note where it fails."""
        self._recovery.require_closed()
        try:
            return await self._in_turn(method, work)
        except UpstreamRefused:
            raise
        except UpstreamError:
            if self._http is not None:
                self._recovery.begin()
            raise

    async def _in_turn(self, method: str, work: Callable[[CallTime], Awaitable[T]]) -> T:
        """Wait for a free place, and have it for as long as a call may take."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit, self._slots:
                return await work(CallTime(limit))
        except TimeoutError as error:
            raise UpstreamTimedOut(f"no answer to {method} within {self._timeout_s} s") from error

    async def _sent(self, request: Outgoing, time: CallTime) -> bytes:
        used = self._headers.present
        try:
            return await self._in_session(request, time)
        except SecretRefused:
            if not await self._headers.newer_than(used):
                raise
            return await self._in_session(request, time)

    async def _in_session(self, request: Outgoing, time: CallTime) -> bytes:
        told = Declaration.of(request.questions)
        session = self._sessions.get(told) or await self._open(told, None)
        if session.stateless and request.method == SUBSCRIBE:
            return await self._listened_to(request)
        if session.stateless and request.method == UNSUBSCRIBE:
            return b"{}"  # the next stream does not ask for it
        asking = Asking(request.questions, time, self._places)
        try:
            return await self._request(session, request, asking)
        except SessionGone:
            return await self._request(await self._open(told, session), request, asking)

    async def _listened_to(self, request: Outgoing) -> bytes:
        """Listen on a new stream that asks for what is watched too (MCP 2026-07-28, subscriptions).

        Raises:
            UpstreamRefused: the server does not tell of the resource.
            UpstreamUnreachable: there is no such stream.
        """
        if request.leaving is not None:
            request.leaving()
        if request.params.get("uri") not in await self._stream.again():
            raise UpstreamRefused("the server does not tell of this resource")
        return b"{}"

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[ServerAnswer, ServerSession]]:
        """Open the stream of what the server tells that belongs to no call.

        Raises:
            UpstreamRefused: the server has none.
            UpstreamError: it cannot be had now.
        """
        session = self._sessions.get(PLAIN)
        if session is None:
            raise UpstreamUnreachable("no session")
        if session.stateless:
            params = stateless.with_envelope(stateless.listening(self._watched.uris))
            text = encode_request(next(self._ids), stateless.LISTEN, params)
            asked = self._post(text, session, stateless.mirrored_headers(stateless.LISTEN, params, ()))
        else:
            asked = self._exchange("GET", b"", request_headers(self._headers.present, session), session)
        async with asked as response:
            yield response, session

    def _heard(self, told: ServerNotification) -> None:
        """Act on a notification that is about no call."""
        if told.method == TOOLS_CHANGED:
            self._tools.changed()
        else:
            self._watched.heard(told)

    async def _open(self, told: Declaration, gone: ServerSession | None) -> ServerSession:
        """Return a session other than ``gone``; the first caller opens it."""
        async with self._handshake:
            session = self._sessions.get(told)
            if session is None or session is gone:
                self._sessions.pop(told, None)
                session = self._sessions[told] = await self._initialize(told)
                self._tools.changed()
                if told == PLAIN:
                    self._stream.begin()
                    self._watched.renew(asking=not session.stateless)
            return session

    async def _initialize(self, told: Declaration) -> ServerSession:
        """Agree on a revision: with a handshake, or by asking a server that has none."""
        first, second = self._shake_hands, self._discover
        if self._prefer_stateless if told.stateless is None else told.stateless:
            first, second = second, first
        try:
            return await first(told)
        except (UpstreamRefused, UpstreamProtocolViolation, SessionGone) as refused:
            try:
                return await second(told)
            except UpstreamError:
                raise refused from None

    async def _listed(self, method: str, session: ServerSession, asking: Asking | None, params: JsonObject) -> bytes:
        """Return a list as the session has it in which it was reviewed: other eras describe entries otherwise."""
        listing = Outgoing(method=method, params=params)
        if asking is None or not session.kinds:
            return await self._request(session, listing)
        return await self._in_session(listing, asking.time)

    async def _discover(self, told: Declaration) -> ServerSession:
        session = ServerSession(revision=stateless.REVISION, id=None, kinds=told.kinds)
        stateless.check_discovered(await self._request(session, Outgoing(method=stateless.DISCOVER, params={})))
        return session

    async def _shake_hands(self, told: Declaration) -> ServerSession:
        request_id = next(self._ids)
        kinds = told.in_a_session
        body = encode_request(request_id, "initialize", initialize_params(kinds))
        async with self._post(body, None) as response:
            session_id = response.headers.get("mcp-session-id")
            revision = check_initialized(await self._answers.read(response, request_id, None))
        if session_id is not None and not _SESSION_ID.match(session_id):
            raise UpstreamProtocolViolation("the session id has characters other than visible ASCII")
        session = ServerSession(revision=revision, id=session_id, kinds=kinds)
        await self._tell(encode_notification("notifications/initialized"), session)
        return session

    async def _request(self, session: ServerSession, request: Outgoing, asking: Asking | None = None) -> bytes:
        if request.reviewed is not None and request.method in OF_PROMPTS:
            await PromptList().require(
                session, request.reviewed, partial(self._listed, "prompts/list", session, asking)
            )
        elif request.reviewed is not None:
            # The session may be another one than when the call was checked, with another version of the server.
            await self._tools.require(request.reviewed, partial(self._listed, "tools/list", session, asking))
        request_id = next(self._ids)
        params = request.params if request.tell is None else with_progress(request.params, request_id)
        mirrored = {}
        if session.stateless:
            params = stateless.with_envelope(params, session.kinds)
            mirrored = stateless.mirrored_headers(request.method, params, self._tools.known)
        text = encode_request(request_id, request.method, params)
        try:
            async with self._post(text, session, mirrored, request.leaving) as response:
                result = await self._answers.read(response, request_id, session, request.tell, asking, request.paused)
            return complete_or_required(result) if session.stateless else result
        except asyncio.CancelledError:
            if session.stateless:
                raise  # the connection was closed, which cancels (MCP 2026-07-28, cancellation)
            # Closing the connection does not cancel in this era (MCP 2025-11-25, transports); the caller cannot wait.
            note = encode_notification("notifications/cancelled", {"requestId": request_id})
            task = asyncio.create_task(self._cancel(note, session))
            self._cancellations.add(task)
            task.add_done_callback(self._cancellations.discard)
            raise

    async def _cancel(self, note: bytes, session: ServerSession) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._tell(note, session)
        except (UpstreamError, TimeoutError) as error:
            # A caller can cancel as often as it likes.
            if self._budget.admit(asyncio.get_running_loop().time()):
                dropped = self._budget.take_dropped()
                more = f" ({dropped} more before it)" if dropped else ""
                self._log.info("a cancellation was not delivered: %s%s", error, more)

    def _go_on(self, session: ServerSession, event_id: str) -> AbstractAsyncContextManager[ServerAnswer]:
        headers = {**request_headers(self._headers.present, session), "Last-Event-ID": event_id}
        return self._exchange("GET", b"", headers, session)

    async def _tell(self, body: bytes, session: ServerSession) -> None:
        """Send a notification or a response; what the answer says is not read."""
        async with self._post(body, session):
            pass

    def _post(
        self, body: bytes, session: ServerSession | None, mirrored: Mapping[str, str] = {}, leaving: Leaving = None
    ) -> AbstractAsyncContextManager[ServerAnswer]:
        headers = {**request_headers(self._headers.present, session), **mirrored}
        return self._exchange("POST", body, headers, session, leaving)

    @contextlib.asynccontextmanager
    async def _exchange(
        self, leg: str, body: bytes, headers: Mapping[str, str], session: ServerSession | None, leaving: Leaving = None
    ) -> AsyncIterator[ServerAnswer]:
        if self._http is None:
            raise UpstreamUnreachable("not started")
        try:
            async with self._http.exchange(leg, headers, body, leaving) as answer:
                if session is not None and (refusal := await refusal_in(answer)) is not None:
                    check_refusal(refusal, session, self._redactor)
                check_status(answer.status, session)
                yield answer
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise UpstreamUnreachable(f"{type(error).__name__} while talking to the server") from error

    async def _ping(self) -> None:
        """Return when the server answered."""
        known = self._sessions.get(PLAIN)
        alive = stateless.DISCOVER if known is not None and known.stateless else "ping"
        try:
            await self._in_turn(alive, partial(self._sent, Outgoing(method=alive, params={})))
        except UpstreamRefused:
            # An error of the protocol is an answer; one of HTTP (a wrong secret) leaves no session.
            if PLAIN not in self._sessions:
                raise
