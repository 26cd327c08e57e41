"""The managed OPA: a private process that the sidecar starts, watches, restarts and takes down with itself.

One ``Instance`` is one process, one socket, one policy set and one client. ``ManagedOpa`` holds the current one in a
single attribute: a switch is one assignment, so a question is answered by one set and labelled with that set's
revision. A new instance takes the place only after the self-test; the old one answers what it was asked, and ends.

Two tasks share that attribute: the supervisor puts the newest good set back after a crash, the reloader puts a newer
set in its place. ``_switching`` is held while either starts a process to take the place, so that there are never more
than two OPAs: one that serves, ends or is about to, and one that is being checked, tested or started.
"""

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path

from typing_extensions import override

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.fair_line import LineClosed
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.follower import Content, at_once, follow
from sidecar.opa.hot_standby import HotStandby
from sidecar.opa.instance import Instance, Launch, LineLimits
from sidecar.opa.policy_state import Load, PolicyState
from sidecar.opa.startable import Startable
from sidecar.policyset import ApprovedSet, OpaCommand, PolicySet, SetChecker, Snapshot, installed, snapshot
from sidecar.ports import PdpAnswer, Question
from sidecar.system import BackOff, ended

_LOG = logging.getLogger(__name__)

MIN_MEMORY_BYTES = 256 * 2**20
"""An idle OPA 1.22.2 built with cgo counts 135 MiB of writable pages, 40 MiB of them resident (measured)."""

_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 5.0
_STABLE_S = 30.0
"""An instance that lived this long is restarted without delay; otherwise the delay doubles."""

_CANDIDATE_S = 10.0
"""How long a start waits for the first look at a candidate."""

Serving = Instance | HotStandby
"""What one policy set runs as."""

_DRAIN_MARGIN_S = 1.0
"""Beyond the deadline of a question, within which an old instance is free of questions."""


class ManagedOpa(Startable):
    """A ``DecisionPoint`` over an OPA of our own.

    Args:
        binary: the OPA executable, as a path or as a name on ``PATH``.
        policies: the policy folder (``policies/README.md`` has its layout).
        directory: runtime folder for sockets and private copies; made with mode 0700, or refused if others can enter.
        timeout_s: seconds for one question, from its sending.
        memory_limit_bytes: writable memory of the OPA process; beyond it the process dies and is restarted.
        otlp_endpoint: ``host:port`` of an OTLP/HTTP collector, for OPA's own spans inside ours; None for no spans.
        start_timeout_s: seconds that an OPA may take from start to healthy.
        probe_interval_s: seconds between health probes; three missed in a row count as hung, and it is restarted.
        memo_s: seconds for which an answer stands for an equal question; 0 asks every time.
        reload_s: seconds for which a changed folder has to be at rest before it is served; 0 never looks again after
            the start.
    """

    def __init__(
        self,
        binary: str,
        policies: Path,
        *,
        directory: Path,
        timeout_s: float = 0.5,
        memory_limit_bytes: int = 512 * 2**20,
        otlp_endpoint: str | None = None,
        start_timeout_s: float = 15.0,
        probe_interval_s: float = 5.0,
        memo_s: float = 0.0,
        reload_s: float = 0.0,
    ) -> None:
        self._binary = binary
        self._folder = policies
        self._directory = directory
        self._timeout_s = timeout_s
        self._line = LineLimits()
        self._memory_limit_bytes = memory_limit_bytes
        self._otlp_endpoint = otlp_endpoint
        self._start_timeout_s = start_timeout_s
        self._probe_interval_s = probe_interval_s
        self._memo_s = memo_s
        self._reload_s = reload_s
        self._note: Callable[[PolicySet], None] = lambda _: None
        self._candidate = False
        self._standby = False
        self._current: Serving | None = None
        self._good: ApprovedSet | None = None
        self._state = PolicyState(revision="", since=0.0, result=Load.REFUSED)
        self._served: Callable[[], None] = lambda: None
        self._switching = asyncio.Lock()
        self._supervisor: asyncio.Task[None] | None = None
        self._reloader: asyncio.Task[None] | None = None

    @property
    def revision(self) -> str:
        """Digest of the policy set in force (also while its process is being restarted); empty before the start."""
        return self._state.revision

    @property
    def policy_state(self) -> PolicyState:
        """Which set serves, since when, and why the folder's present content does not, if it does not."""
        return self._state

    @property
    def pid(self) -> int | None:
        """Process id of the OPA that answers now, or None while there is none."""
        return self._current.pid if self._current is not None else None

    @override
    async def start(
        self,
        *,
        candidate: bool = False,
        standby: bool = False,
        line: LineLimits | None = None,
        issuers: Collection[str] = (),
        scopes: Collection[str] = (),
    ) -> None:
        """Check the policies, start OPA, self-test it, and begin to watch it.

        Args:
            candidate: the set serves no calls and is only compared, so a refused one does not stop the start:
                ``policy_state`` tells, and nothing is answered until the folder holds one that is usable.
            standby: keep a second process of the set, so that a question that ends one does not stop the decisions of
                others.
            line: how questions wait to be put to one process.
            issuers: those whose tokens are accepted; what the platform's data says of none of them is warned of.
            scopes: those that clients are asked for; of one that opens nothing is warned.

        Raises:
            ConfigurationError: the binary, the runtime folder or, unless it is a candidate, the policy set is not
                usable. The detail names file and line where OPA does.
        """
        self._candidate, self._standby, self._line = candidate, standby, line or self._line
        launch = await asyncio.to_thread(self._launch)
        checker = SetChecker(
            launch.opa, launch.directory, timeout_s=launch.start_timeout_s, issuers=issuers, scopes=scopes
        )
        seen = await asyncio.to_thread(snapshot, self._folder)
        if candidate:
            await self._begin_to_compare(launch, checker, seen)
            return
        try:
            await self._load(launch, checker, await asyncio.to_thread(PolicySet.read, self._folder), at_rest=at_once())
        except DecisionUnavailable as error:
            raise ConfigurationError(f"OPA does not answer the self-test: {error.detail}") from error
        if self._reload_s > 0:
            load = partial(self._reload, launch, checker)
            self._reloader = _begin(follow(self._folder, seen, rest_s=self._reload_s, load=load), "opa-reloader")

    async def _begin_to_compare(self, launch: Launch, checker: SetChecker, seen: Snapshot) -> None:
        """Load a candidate, and go on without it where that takes long: its tests must not keep others from serving."""
        looked = asyncio.Event()
        load = partial(self._reload, launch, checker)

        async def compare() -> None:
            loaded = await load(await asyncio.to_thread(Content.read, self._folder), at_once())
            looked.set()
            if self._reload_s > 0:
                await follow(self._folder, seen, rest_s=self._reload_s, load=load, loaded=loaded)

        self._reloader = _begin(compare(), "opa-reloader")
        try:
            async with asyncio.timeout(_CANDIDATE_S):
                await looked.wait()
        except TimeoutError:
            _LOG.warning("the candidate policy folder is still being checked; nothing is compared until that is done")

    @override
    async def stop(self) -> None:
        """End the watch and the process; questions in flight end in ``DecisionUnavailable``."""
        tasks = {task for task in (self._reloader, self._supervisor) if task is not None}
        self._reloader = self._supervisor = None
        for task in tasks:
            task.cancel()
        try:
            await ended(*tasks)
        finally:
            current, self._current = self._current, None
            if current is not None:
                await current.stop()

    def forget(self) -> None:
        """Forget every remembered answer."""
        if self._current is not None:
            self._current.forget()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Ask the current instance; a question that waits while another takes its place is put to that one.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``; at once while OPA is down.
        """
        before: Serving | None = None
        while (current := self._current) is not before and current is not None:
            try:
                return await current.ask(question, document)
            except LineClosed:
                before = current
        raise DecisionUnavailable("the managed OPA is not running", fault=PdpFault.UNREACHABLE)

    async def healthy(self) -> bool:
        """Whether there is an instance, it is watched, and it answers its health probe.

        A refused set does not count: what serves is the last good one, and taking every sidecar out of rotation
        because of one team's typing error would be the outage that keeping it prevents. ``policy_state`` tells.
        """
        current, supervisor = self._current, self._supervisor
        if current is None or supervisor is None or supervisor.done():
            return False
        if self._reload_s > 0 and self._reloader is not None and self._reloader.done():
            return False
        return await current.healthy()

    def _launch(self) -> Launch:
        binary = installed(self._binary)
        if self._memory_limit_bytes < MIN_MEMORY_BYTES:
            raise ConfigurationError(f"opa.memory_mb: OPA needs at least {MIN_MEMORY_BYTES} bytes")
        _make_private(self._directory)
        return Launch(
            opa=OpaCommand(binary=binary, memory_limit_bytes=self._memory_limit_bytes),
            directory=self._directory.resolve(),
            timeout_s=self._timeout_s,
            line=self._line,
            start_timeout_s=self._start_timeout_s,
            otlp_endpoint=self._otlp_endpoint,
            memo_s=self._memo_s,
        )

    def on_served(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever another policy set serves."""
        self._served = callback

    def before_serving(self, note: Callable[[PolicySet], None]) -> None:
        """Have ``note`` take each policy set, in a thread, before it serves."""
        self._note = note

    def _serve(self, instance: Serving, approved: ApprovedSet) -> None:
        """Let an instance answer from now on: the one assignment that a switch is."""
        policies = approved.policies
        self._current = instance
        self._good = approved
        self._state = PolicyState(
            revision=policies.revision, since=time.time(), result=Load.LOADED, routed=policies.routed
        )
        _LOG.info("opa %s policy set %s", "compares with" if self._candidate else "serves", policies.revision)
        self._served()

    def _keep(self, approved: ApprovedSet) -> None:
        """Note that the folder holds what serves (again)."""
        self._good = approved
        self._state = replace(self._state, result=Load.LOADED, error="")

    async def _supervise(self, launch: Launch) -> None:
        """Put a new instance of the newest good set in the place of one that ended or hangs, until cancelled."""
        back_off = BackOff(_FIRST_DELAY_S, _LAST_DELAY_S, at_once=True)
        loop = asyncio.get_running_loop()
        while (current := self._current) is not None:
            born = loop.time()
            why = await current.lost(self._probe_interval_s)
            if self._current is not current:
                continue  # a newer set has taken the place, and the reloader ends this one
            self._current = None
            _LOG.error("opa (pid %d) %s; calls are refused until it is started again", current.pid, why)
            await current.stop(grace_s=0)
            if loop.time() - born >= _STABLE_S:
                back_off.reset()
            await self._restart(launch, back_off)

    async def _restart(self, launch: Launch, back_off: BackOff) -> None:
        """Try until an instance serves; each obstacle is logged once."""
        obstacle = ""
        while True:
            await asyncio.sleep(back_off.pause())
            try:
                async with self._switching:
                    if self._current is None and self._good is not None:
                        self._current = await self._begin_serving(launch, self._good)
            except (ConfigurationError, DecisionUnavailable) as error:
                if error.detail != obstacle:
                    obstacle = error.detail
                    _LOG.error("opa does not start again: %s", obstacle)
            else:
                _LOG.warning("opa is back (pid %d)", self.pid or 0)
                return

    async def _reload(self, launch: Launch, checker: SetChecker, content: Content, at_rest: asyncio.Event) -> bool:
        """Serve the folder's content if it may be served; keep what serves if not. Either waits for the rest."""
        try:
            policies = content.usable()
            if self._good is not None and policies == self._good.policies:
                await at_rest.wait()
                self._keep(self._good)
            else:
                await self._load(launch, checker, policies, at_rest=at_rest)
        except (ConfigurationError, DecisionUnavailable) as error:
            await at_rest.wait()
            self._state = replace(self._state, result=Load.REFUSED, error=error.detail)
            _LOG.error("%s: %s", self._refusal(), error.detail)
        return self._state.result is Load.LOADED

    def _refusal(self) -> str:
        """Say which folder is not loaded, and what stands in its place."""
        match self._candidate, self.revision:
            case False, revision:
                return f"the policy folder is not loaded, {revision} keeps serving"
            case True, "":
                return "the candidate policy folder is not loaded, nothing is compared"
            case _, revision:
                return f"the candidate policy folder is not loaded, {revision} stays the one that is compared"

    async def _load(self, launch: Launch, checker: SetChecker, policies: PolicySet, *, at_rest: asyncio.Event) -> None:
        """Vet a set, and let it serve once its folder has been at rest.

        Raises:
            ConfigurationError: it must not serve, or OPA does not start on it.
            DecisionUnavailable: OPA starts and does not answer.
        """
        approved = await checker.vet(policies)
        if policies.revision == self.revision:
            await at_rest.wait()
            self._keep(approved)  # only tests or schemas differ
        else:
            await self._switch(launch, approved, at_rest)
        for warning in approved.warnings:
            _LOG.warning("policy: %s", warning)

    async def _switch(self, launch: Launch, approved: ApprovedSet, at_rest: asyncio.Event) -> None:
        """Start and self-test an instance beside the serving one, let it take the place, and end the old one."""
        async with self._switching:
            instance = await self._begin_serving(launch, approved)
            try:
                await asyncio.to_thread(self._note, approved.policies)
                await at_rest.wait()
            except BaseException:
                await instance.stop(grace_s=0)
                raise
            old = self._current
            self._serve(instance, approved)
            if old is not None:
                old.supersede()
            if self._supervisor is None:
                self._supervisor = _begin(self._supervise(launch), "opa-supervisor")
        if old is not None:
            try:
                await old.drained(within_s=self._timeout_s + _DRAIN_MARGIN_S)
            finally:
                await old.stop()

    async def _begin_serving(self, launch: Launch, approved: ApprovedSet) -> Serving:
        """Start one process of a set, or two.

        Raises:
            ConfigurationError: it does not start, does not become healthy, or fails the self-test.
            DecisionUnavailable: it became healthy and then gave no answer.
        """
        if self._standby:
            return await HotStandby.start(launch, approved, self._probe_interval_s)
        return await Instance.start(launch, approved)


def _begin(work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    return task


def _report(task: "asyncio.Task[None]") -> None:
    """Log at once that OPA is no longer watched; the error of a kept task would not be seen."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.critical("the watch over opa failed (%s)", task.get_name(), exc_info=error)


def _make_private(directory: Path) -> None:
    """Make the folder, or check that only this user can enter it: another could put another socket in OPA's place."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigurationError(f"the runtime directory is not usable: {error}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(f"the runtime directory {directory} must be a folder of this user with mode 0700")
