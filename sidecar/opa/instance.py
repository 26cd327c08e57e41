"""One OPA process, its socket, its policy set and its client: born together, checked, and gone together."""

import asyncio
import contextlib
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.fair_line import MOST_WAITING
from sidecar.model import JsonObject
from sidecar.opa.client import AT_ONCE_HERE, QUEUE_S, OpaClient, unobserved
from sidecar.opa.engine_version import version_fault
from sidecar.opa.memo import Memo
from sidecar.opa.self_test import self_test
from sidecar.opa.wire import MAX_QUESTION_BYTES
from sidecar.policyset import ApprovedSet, OpaCommand, PolicySet, store
from sidecar.ports import PdpAnswer, Question
from sidecar.printing import printable
from sidecar.system import Pulse, in_thread, kill, make_home, remove, to_its_end

_LOG = logging.getLogger(__name__)

_MAX_SOCKET_PATH = 103
"""Bytes of ``sockaddr_un.sun_path`` without the NUL: 104 on macOS, 108 on Linux."""

_TRACE_BATCH_MS = 200
_STOP_GRACE_S = 3.0
_MISSED_PROBES = 3
_UNTOLD_PROBES = 12
"""Probes in a row that say nothing because our own loop was away; one more counts as missed."""
_SELF_TESTS = 3
_POLL_S = 0.02
_TAIL_LINES = 12
_MAX_PENDING = 65536
_MAX_RAW_LINES = 20
"""Lines that are not OPA's JSON, per process: a crash of Go prints hundreds."""

_DROP_MODULE = b"""package sidecar.managed

drop := true
"""
"""Decision logs must be on, because only then OPA has decision ids (in the answer, and as ``opa.decision_id`` on its
span). Their only sink is the console, which would print every question; this rule drops each event before that
(``v1/plugins/logs``: a dropped event is neither masked nor printed, and a rule that fails drops too). Tested with
1.22.2: nothing of a question is printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineLimits:
    """How questions wait to be put to one process."""

    at_once: int = AT_ONCE_HERE
    """Questions that are put at the same time."""
    queue: int = MOST_WAITING
    """Questions that wait."""
    queue_s: float = QUEUE_S
    """Seconds that a question may wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How OPA processes are started; the same for every instance."""

    opa: OpaCommand
    directory: Path
    """Private folder of this user; every instance makes its own inside."""
    timeout_s: float
    """Seconds for one question."""
    start_timeout_s: float
    """Seconds from start to ready."""
    memo_s: float
    """Seconds for which an answer stands for an equal question; 0 asks every time."""
    line: LineLimits = LineLimits()
    otlp_endpoint: str | None
    """``host:port`` of an OTLP/HTTP collector without TLS, or None."""

    def configuration(self) -> JsonObject:
        """Return OPA's configuration document."""
        document: JsonObject = {
            "decision_logs": {"console": True, "drop_decision": "/sidecar/managed/drop"},
            "server": {"decoding": {"max_length": MAX_QUESTION_BYTES, "gzip": {"max_length": MAX_QUESTION_BYTES}}},
        }
        if self.otlp_endpoint is not None:
            document["distributed_tracing"] = {
                "type": "http",
                "address": self.otlp_endpoint,
                "service_name": "opa",
                # The parent decides: OPA's span exists where ours is sampled, and never alone.
                "sample_percentage": 0,
                "batch_span_processor_options": {"batch_timeout_ms": _TRACE_BATCH_MS},
            }
        return document


class Instance:
    """One running, self-tested OPA. Made by ``start``; never changes what it serves."""

    def __init__(
        self,
        *,
        home: Path,
        process: asyncio.subprocess.Process,
        pulse: Pulse,
        client: OpaClient,
        revision: str,
        linger_s: float,
    ) -> None:
        self.home = home
        self._linger_s = linger_s
        self._pulse = pulse
        self.client = client
        self.revision = revision
        self._process = process
        self._asked = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ready = False
        self._pump = asyncio.create_task(self._forward_output(), name="opa-output")

    @classmethod
    async def start(cls, launch: Launch, approved: ApprovedSet) -> "Instance":
        """Start OPA on a private copy of the set; return when it passed the self-test.

        Raises:
            ConfigurationError: it does not start, does not become healthy, or fails the self-test.
            DecisionUnavailable: it became healthy and then gave no answer.
        """
        policies = approved.policies
        home = make_home(launch.directory, "opa-")
        try:
            arguments = await in_thread(_prepare, home, launch, approved)
            pulse = Pulse()
            client = OpaClient(
                f"unix://{home / 's'}",
                timeout_s=launch.timeout_s,
                revision=policies.revision,
                memo=Memo(launch.memo_s, pulse.alive, approved.reads),
                at_once=launch.line.at_once,
                queue=launch.line.queue,
                queue_s=launch.line.queue_s,
                own=True,
            )
            process = await launch.opa.start(*arguments, folder=home / "policies", home=home)
        except BaseException:
            await remove(home)
            raise
        pulse.watch(process.pid)
        instance = cls(
            home=home,
            process=process,
            pulse=pulse,
            client=client,
            revision=policies.revision,
            linger_s=0.0 if launch.otlp_endpoint is None else 2 * _TRACE_BATCH_MS / 1000,
        )
        try:
            await client.open()
            await instance._become_ready(launch.start_timeout_s)
        except BaseException:
            await instance.stop(grace_s=0)
            raise
        return instance

    @property
    def pid(self) -> int:
        """Process id of OPA."""
        return self._process.pid

    async def ask(self, question: Question, document: JsonObject, sent: Callable[[], None] = unobserved) -> PdpAnswer:
        """Ask, counted as in flight until the answer is there.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``.
            LineClosed: as there.
        """
        self._asked += 1
        self._idle.clear()
        try:
            return await self.client.ask(question, document, sent)
        finally:
            self._asked -= 1
            if not self._asked:
                self._idle.set()

    async def drained(self, *, within_s: float) -> None:
        """Wait until no question is in flight; every question has a deadline, and so has this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    async def ended(self) -> int:
        """Wait until the process has ended, for any reason, and return its status."""
        return await self._process.wait()

    def forget(self) -> None:
        """Forget every remembered answer."""
        self.client.forget()

    def supersede(self) -> None:
        """See ``OpaClient.supersede``."""
        self.client.supersede()

    async def healthy(self) -> bool:
        """Whether OPA answers its health probe."""
        return await self.client.healthy()

    async def lost(self, probe_interval_s: float) -> str:
        """Wait until the process has ended or has missed its probes; return which, in words.

        Args:
            probe_interval_s: seconds between two probes.
        """
        missed = untold = 0
        while missed < _MISSED_PROBES:
            try:
                async with asyncio.timeout(probe_interval_s):
                    status = await self.ended()
            except TimeoutError:
                match await self.client.probe():
                    case True:
                        missed = untold = 0
                    case None if untold < _UNTOLD_PROBES:
                        untold += 1
                    case _:
                        missed += 1
            else:
                return f"ended with status {status}"
        return f"missed {missed} health probes"

    async def stop(self, *, grace_s: float | None = None) -> None:
        """Let OPA answer what it is asked, end it, and remove its folder. Can be called in any state.

        A cancellation shortens the grace; nothing of OPA is left then either, since nobody else would end it.

        Args:
            grace_s: seconds that OPA may take, three by default; 0 kills it at once.
        """
        grace_s = _STOP_GRACE_S if grace_s is None else grace_s
        try:
            if grace_s and self._process.returncode is None:
                # OPA 1.22.2 ends without sending the spans that it has not sent yet (seen in Jaeger).
                await asyncio.sleep(self._linger_s)
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_s):
                        await self._process.wait()
        finally:
            await to_its_end(self._clear_up())

    async def _clear_up(self) -> None:
        await kill(self._process)
        self._pulse.close()
        await self.client.close()
        await self._pump
        await remove(self.home)

    async def _become_ready(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not await self.client.healthy():
                    if self._process.returncode is not None:
                        await self._pump
                        raise ConfigurationError(f"OPA does not start: {' '.join(self._tail) or 'no message'}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise ConfigurationError(f"OPA was not healthy within {timeout_s:g} s") from None
        await self._pass_self_test()
        if too_old := version_fault(await self.client.engine()):
            raise ConfigurationError(too_old)
        self._ready = True

    async def _pass_self_test(self) -> None:
        """Take the self-test; an answer that is wrong is final, one that is late is asked for again.

        The first question pays for what OPA prepares lazily, which on a busy machine can exceed the deadline of one.
        """
        for _ in range(_SELF_TESTS - 1):
            with contextlib.suppress(DecisionUnavailable):
                return await self_test(self.client)
        return await self_test(self.client)

    async def _forward_output(self) -> None:
        """Drain OPA's output to the log, line by line, forever: a full pipe would stop OPA."""
        stream = self._process.stdout
        if stream is None:
            return
        pending, raw = b"", 0
        while chunk := await stream.read(65536):
            *lines, pending = (pending + chunk).split(b"\n")
            pending = pending[:_MAX_PENDING]
            for line in lines:
                raw += self._log(line, quiet=raw >= _MAX_RAW_LINES)

    def _log(self, line: bytes, *, quiet: bool) -> bool:
        """Log one line; return whether it was not OPA's own JSON."""
        try:
            entry = _ENTRY.decode(line)
        except msgspec.DecodeError:
            # A log line of OPA's that is cut off or of another form may name what a request held; a crash does not.
            text = "(unreadable log line)" if line.startswith(b"{") else printable(line)
            if text and not quiet:
                self._tail.append(text)
                _LOG.warning("opa: %s", text)
            return True
        text = printable(entry.msg.encode())
        self._tail.append(text)
        # What a start remarks on is the same at each restart; what ends it is told by the one who started it.
        remark = logging.WARNING if self._ready else logging.DEBUG
        _LOG.log(logging.ERROR if entry.level in {"error", "fatal", "panic"} else remark, "opa: %s", text)
        return False


class _Entry(msgspec.Struct):
    """The members of OPA's log line that are passed on; the others may quote a request."""

    level: str
    msg: str


_ENTRY = msgspec.json.Decoder(_Entry)


def _prepare(home: Path, launch: Launch, approved: ApprovedSet) -> Sequence[str]:
    """Write what the process reads, and return its arguments. Blocking file access."""
    policies = approved.policies
    # What data alone decides was decided when the set was checked: no question asks for it again.
    examined: JsonObject = {"examined": True} if approved.sound else {}
    socket = home / "s"
    if len(os.fsencode(socket)) > _MAX_SOCKET_PATH:
        raise ConfigurationError(f"the runtime directory is too long for a Unix socket: {socket}")
    own = (
        ("managed/data.json", _json({"mcp": {"revision": policies.revision, **examined}})),
        ("managed/log.rego", _DROP_MODULE),
        ("config.json", _json(launch.configuration())),
    )
    store(policies.loaded, home / "policies")
    store(PolicySet(bundles=("managed",), files=own), home)
    return (
        *("run", "--server", "--addr", f"unix://{socket}", "--unix-socket-perm", "600", "--authorization=basic"),
        *("--config-file", str(home / "config.json"), "--log-level", "error", "--log-format", "json"),
        *("--skip-version-check", "--shutdown-grace-period", "2"),
        # Data is read on every question and written never: keep it in the form in which it is read.
        "--optimize-store-for-read-speed",
        # As folders, not as bundles: OPA reads the manifest of every bundle again for every request that it authorizes
        # (``internal/bundle``, ``LoadWasmResolversFromStore``), an eighth of its work with a hundred teams. What
        # manifests are for, roots that do not overlap, was held against the set when it was vetted.
        # The slash: OPA takes a path that ends in .tar.gz for a bundle, also a folder's.
        *(f"{folder}/" for folder in (*policies.bundles, "../managed")),
    )


def _json(document: JsonObject) -> bytes:
    return json.dumps(document).encode()
