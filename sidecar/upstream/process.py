"""The MongoDB MCP server as a child on standard input and output: one process, many callers, restarted when it dies.

Preferred over HTTP: no other program can reach its pipes, and it is faster than the server's own HTTP layer (measured,
``count`` at 8 callers: 575/s against 194 to 218/s).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sidecar.errors import (
    ConfigurationError,
    UpstreamError,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from sidecar.model import JsonObject, Permit, UpstreamResult
from sidecar.system import BackOff, Outage
from sidecar.upstream.agreeing import Opening, agree, ended_early
from sidecar.upstream.at_work import CallsAtWork
from sidecar.upstream.child import AnswerForm, Child
from sidecar.upstream.environment import check_command, check_environment, child_environment, secrets_of
from sidecar.upstream.export_files import ExportFiles
from sidecar.upstream.homes import own_home
from sidecar.upstream.messages import Outgoing, outgoing, read_result
from sidecar.upstream.redaction import Redactor, Repeats
from sidecar.upstream.renewal import ChildSource, Renewal
from sidecar.upstream.spawning import resolved, spawn
from sidecar.upstream.stateless import DISCOVER
from sidecar.upstream.toollist import OF_PROMPTS, PromptList, ToolList
from sidecar.upstream.watched import WatchedResources

_FIRST_BACKOFF_S = 0.25
_LONGEST_BACKOFF_S = 30.0
_SILENCE_S = 5.0
"""How long a ping is waited for before calls are refused at once (``recovery`` says why), or half of their time."""
_STABLE_S = 60.0
"""A child that lived this long was well; the next restart is prompt again."""


class StdioUpstream:
    """One configured MongoDB MCP server instance, as ``sidecar.ports.Upstream``.

    Args:
        name: the instance's name in the settings; a permit for another instance is refused.
        command: executable and arguments. No secret may be in it: every user of the machine can read it.
        environment: the child's variables besides ``sidecar.upstream.environment.BASE``; the secret travels here.
        timeout_s: the longest a call may take, waiting for its turn included.
        start_timeout_s: the longest the handshake of a new child may take.
        ready_wait_s: how long a call waits for a child that is being restarted.
        max_in_flight: how many calls the child works on at once; further ones wait.
        stop_grace_s: how long each step of the shutdown waits before the next one.
        renewal: when what it names, or the program, has changed, a new child takes over.
        opening: how the talk with a child begins; where that says ``ASKING``, calls come one at a time with ``reply``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        timeout_s: float,
        start_timeout_s: float = 30.0,
        ready_wait_s: float = 2.0,
        max_in_flight: int = 256,
        stop_grace_s: float = 2.0,
        renewal: Renewal | None = None,
        opening: Opening = Opening.HANDSHAKE,
    ) -> None:
        check_environment(environment)
        check_command(tuple(command), environment)
        self._name = name
        self._command = resolved(command)
        self._source = ChildSource(self._command, environment, renewal or Renewal())
        self._look_s = self._source.look_s
        self._opening = opening
        self._timeout_s, self._start_timeout_s = timeout_s, start_timeout_s
        self._ready_wait_s, self._stop_grace_s = ready_wait_s, stop_grace_s
        self._slots = asyncio.Semaphore(max_in_flight)
        self._log = logging.getLogger(f"sidecar.upstream.{name}")
        self._redactor = Redactor(secrets_of(environment))
        self._repeats = Repeats()
        self._outage = Outage(self._log, f"the server {name}", lost="is gone and started again", found="is back")
        self._obstacle = ""
        """Why it does not start again, as last reported."""
        self._child: Child | None = None
        self._at_work = CallsAtWork()
        news = self._watched = WatchedResources(self._ask)
        self.on_updated, self.unwatch, self.on_prompts_changed = news.on_update, news.unwatch, news.on_prompts_changed
        self._exports = ExportFiles()
        self.discard = self._exports.discard
        self._prompts = PromptList()
        self.on_prompts_changed(self._prompts.changed)
        self._retired: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._renewals = BackOff(_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S)
        self._ready = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._silent: Child | None = None  # it does not answer a ping
        self._tools = ToolList()  # of the present child

    @property
    def healthy(self) -> bool:
        """Whether the child runs and answered the last thing it was asked in time."""
        return self._ready.is_set() and self._probe is None

    @property
    def refusing(self) -> bool:
        """Whether calls are refused at once, because the child does not answer a ping."""
        return self._child is not None and self._child is self._silent

    @property
    def pid(self) -> int | None:
        """The process id of the present child."""
        return self._child.pid if self._child is not None else None

    @property
    def calls(self) -> int:
        """How many calls are with its children."""
        return self._at_work.total

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever the tool list may have changed: the server says so, or its child ended."""
        self._tools.on_change(callback)

    async def start(self) -> None:
        """Start the child and return when it has answered the handshake. From then on it is restarted when it dies.

        Raises:
            ConfigurationError: the command cannot be executed.
            UpstreamError: the child went away, or does not speak MCP; nothing is left running.
        """
        if self._supervisor is not None:
            raise ValueError("already started")
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(first), name=f"upstream {self._name}")
        try:
            await asyncio.wait({first, self._supervisor}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done() or first.exception() is not None:
                # It puts away what it started before it ends.
                await self._supervisor
            first.result()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the child; calls in flight fail. Returns when nothing of it is left."""
        supervisor, self._supervisor = self._supervisor, None
        tasks = [task for task in (self._probe, supervisor) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(self._watched.stop(), self._exports.stop())

    async def forward(self, permit: Permit, reply: AnswerForm | None = None) -> UpstreamResult:
        """Send exactly the permitted call and return its result (see ``sidecar.ports.Upstream``).

        Args:
            permit: the call's.
            reply: answers what the server asks about it.
        """
        if permit.server != self._name:
            raise UpstreamRefused(f"a permit for server {permit.server!r} cannot be used at {self._name!r}")
        async with self._watched.asked(permit):
            return read_result(permit.method, await self._ask(outgoing(permit), reply))

    async def tools(self) -> tuple[JsonObject, ...]:
        """Return the server's live tools, all pages, cached until they change (see ``sidecar.ports.Upstream``)."""
        if (kept := self._tools.kept) is not None:
            return kept
        async with self._turn("tools/list") as child:
            return await child.tools.get(partial(child.ask, "tools/list"))

    async def prompts(self) -> tuple[JsonObject, ...]:
        """Return the server's live prompts, all pages, asked for each time (see ``sidecar.ports.Upstream``)."""
        async with self._turn("prompts/list") as child:
            return await self._prompts.read(child, partial(child.ask, "prompts/list"))

    async def _ask(self, request: Outgoing, reply: AnswerForm | None = None) -> bytes:
        async with self._turn(request.method) as child:
            if request.reviewed is not None and request.method in OF_PROMPTS:
                await self._prompts.require(child, request.reviewed, partial(child.ask, "prompts/list"))
            elif request.reviewed is not None:
                # The child may be another one than when the call was checked, and another version of the program.
                await child.tools.require(request.reviewed, partial(child.ask, "tools/list"))
            return await child.ask(request.method, request.params, request.leaving, request.tell, reply)

    @contextlib.asynccontextmanager
    async def _turn(self, method: str) -> AsyncIterator[Child]:
        """Wait for a free place and a child that runs, and have both for as long as a call may take."""
        child: Child | None = None
        answers = 0
        try:
            async with asyncio.timeout(self._timeout_s), self._slots:
                child = await self._ready_child()
                answers = child.answers
                with self._at_work.at(child):
                    yield child
        except TimeoutError as error:
            if child is not None and child.answers == answers:
                self._suspect(child)
            raise UpstreamTimedOut(f"no answer to {method} within {self._timeout_s} s") from error

    async def _ready_child(self) -> Child:
        if not self._ready.is_set() and self._supervisor is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._ready_wait_s):
                    await self._ready.wait()
        if self._child is None or not self._ready.is_set():
            raise UpstreamUnreachable("the server is not running")
        if self._child is self._silent:
            raise UpstreamUnreachable("not sent, because the server did not answer the last ping")
        return self._child

    def _suspect(self, child: Child) -> None:
        """A call timed out and no other was answered meanwhile: ping the child; kill it if it does not answer."""
        if self._probe is None and child.open and child is self._child and self._supervisor is not None:
            self._probe = asyncio.create_task(self._ping(child), name=f"probe {self._name}")

    async def _ping(self, child: Child) -> None:
        patience_s = min(_SILENCE_S, self._timeout_s / 2)
        silence = asyncio.get_running_loop().call_later(patience_s, self._is_silent, child)
        try:
            async with asyncio.timeout(self._timeout_s):
                await child.ask(DISCOVER if child.stateless else "ping", {})
        except TimeoutError:
            child.kill("does not answer a ping")
        except UpstreamError as error:
            # An error is an answer too; the supervisor handles a child that ended.
            self._log.info("the server answered a ping with an error: %s", error)
        finally:
            silence.cancel()
            self._probe = None
            if self._silent is not None and child.open:
                self._log.info("the server %s (child %d) answers again", self._name, child.pid)
            self._silent = None

    def _is_silent(self, child: Child) -> None:
        self._silent = child
        self._log.warning("the server %s (child %d) does not answer: calls are refused", self._name, child.pid)

    async def _supervise(self, first: asyncio.Future[None]) -> None:
        own = await own_home()
        watching = asyncio.create_task(self._watch(), name=f"files of {self._name}")
        clock = asyncio.get_running_loop().time
        back_off = BackOff(_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S)
        try:
            while True:
                born = clock()
                try:
                    await self._serve(await self._begin(own.path, self._source.environment), own.path, first)
                except (ConfigurationError, UpstreamError) as error:
                    self._failed(first, error)
                if first.cancelled() or first.exception() is not None:
                    return
                if clock() - born >= _STABLE_S:
                    back_off.reset()
                await asyncio.sleep(back_off.pause())
        finally:
            tasks = {watching, *self._retired}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await asyncio.to_thread(own.remove)

    async def _begin(self, home: Path, environment: Mapping[str, str]) -> Child:
        """Start a child and do the handshake; nothing is left of one that fails in it.

        Raises:
            ConfigurationError: the command cannot be executed.
            UpstreamError: it went away, or does not speak MCP.
        """
        try:
            child = await self._spawn(home, environment)
        except OSError as error:
            failure = f"command: {self._command[0]!r} cannot be executed: {error.strerror}"
            raise ConfigurationError(failure) from error
        try:
            await self._handshake(child)
        except TimeoutError as error:
            await child.stop(self._stop_grace_s)
            raise UpstreamTimedOut(f"no handshake within {self._start_timeout_s} s") from error
        except UpstreamError as error:
            failed = error if child.open else await ended_early(child)
            await child.stop(self._stop_grace_s)
            raise failed from error
        except BaseException:
            await child.stop(self._stop_grace_s)
            raise
        return child

    async def _handshake(self, child: Child) -> None:
        async with asyncio.timeout(self._start_timeout_s):
            await agree(child, self._opening, patience_s=self._start_timeout_s / 2)
        if not child.open:
            raise UpstreamUnreachable("the server ended after the handshake")

    async def _serve(self, child: Child, home: Path, first: asyncio.Future[None]) -> None:
        """Offer a child to callers, and another in its place when what it is started from has changed; until one ends.

        In between, ``child`` is the one that is offered.
        """
        try:
            self._offer(child, first)
            while await self._changed_before_end(child):
                child = await self._rolled(child, home, first)
            await child.ended()
            self._outage.begins(child.fault)
        finally:
            self._ready.clear()
            self._child = None
            await child.stop(self._stop_grace_s)

    async def _changed_before_end(self, child: Child) -> bool:
        """Return whether there is a change to take up, or else that the child has ended."""
        waiting = [asyncio.create_task(child.ended()), asyncio.create_task(self._changed.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        changed = child.open and self._changed.is_set()
        self._changed.clear()
        return changed

    async def _rolled(self, child: Child, home: Path, first: asyncio.Future[None]) -> Child:
        """Return the child that serves from now on: a new one, or the old one where it need not or cannot be replaced.

        A new one is ready before the old one gets no more calls; the old one ends when its calls are answered.
        """
        try:
            environment, differs = await asyncio.to_thread(self._source.read)
            if not differs:
                self._source.take_up(environment)
                return child
            check_environment(environment)
            check_command(self._command, environment)
            self._redactor.hide(secrets_of(environment))
            successor = await self._begin(home, environment)
        except (ConfigurationError, UpstreamError) as error:
            if error.detail != self._obstacle:
                self._obstacle = error.detail
                self._log.error("the server %s goes on as it was: a new child does not start: %s", self._name, error)
            return child
        self._source.take_up(environment)
        self._renewals.reset()
        self._log.info("the server %s is a new child (%d): it was changed", self._name, successor.pid)
        self._offer(successor, first)
        self._tools.changed()  # tells those who have the list of the old one
        retiring = asyncio.create_task(self._retire(child), name=f"child {child.pid} of {self._name}")
        self._retired.add(retiring)
        retiring.add_done_callback(self._retired.discard)
        return successor

    async def _retire(self, child: Child) -> None:
        """End a child that gets no more calls, when those that it has are answered or have had their time."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._at_work.idle(child)
        except TimeoutError:
            self._log.info("child %d has had its time, and is ended with calls under way", child.pid)
        finally:
            await child.stop(self._stop_grace_s)

    async def _watch(self) -> None:
        """Ask for another child when what it is started from has changed; less often where that did not work."""
        pause = self._look_s
        while True:
            await asyncio.sleep(pause)
            pause = self._look_s
            if await asyncio.to_thread(self._source.changed):
                self._changed.set()
                pause = max(pause, self._renewals.pause())

    def _offer(self, child: Child, first: asyncio.Future[None]) -> None:
        self._child, self._tools = child, child.tools
        self._ready.set()
        self._watched.renew()
        self._outage.ends()
        self._obstacle = ""
        if not first.done():
            self._log.info("the server %s speaks MCP (child %d)", self._name, child.pid)
            first.set_result(None)

    async def _spawn(self, home: Path, environment: Mapping[str, str]) -> Child:
        exports = self._exports.of_a_child(home)
        return Child(
            await spawn(self._command, child_environment(environment, home, exports), home, exports),
            log=self._log,
            redactor=self._redactor,
            repeats=self._repeats,
            tools=self._tools.of_another(),
            told=self._watched.heard,
            on_end=self._down,
        )

    def _down(self) -> None:
        if self._child is not None and self._child.open:
            return  # another one serves: this one was replaced, or did not come up in its place
        self._ready.clear()
        # The next child may be another version, or find another database.
        self._tools.changed()

    def _failed(self, first: asyncio.Future[None], error: ConfigurationError | UpstreamError) -> None:
        """Report why a life did not begin: to ``start``, or to the log where that is news."""
        if not first.done():
            first.set_exception(error)
        elif error.detail != self._obstacle:
            self._obstacle = error.detail
            self._log.warning("the server %s does not start: %s", self._name, error)
