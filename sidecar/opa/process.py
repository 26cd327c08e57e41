"""The managed OPA: a private process that the sidecar starts, watches, restarts and takes down with itself.

One ``Generation`` is one process, one socket, one policy set and one client. ``ManagedOpa`` holds the current one in a
single attribute: a switch is one assignment, so a question is answered by one set and labelled with that set's
revision. A new generation takes the place only after the self-test.
"""

import asyncio
import logging
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.model import JsonObject
from sidecar.opa.generation import Generation, Launch, check
from sidecar.opa.policies import PolicySet
from sidecar.ports import PdpAnswer, Question

_LOG = logging.getLogger(__name__)

MIN_MEMORY_BYTES = 256 * 2**20
"""An idle OPA 1.22.2 built with cgo counts 135 MiB of writable pages, 40 MiB of them resident (measured)."""

_FIRST_DELAY_S = 0.1
_LAST_DELAY_S = 5.0
_STABLE_S = 30.0
"""A generation that lived this long is restarted without delay; otherwise the delay doubles."""

_MISSED_PROBES = 3


class ManagedOpa:
    """A ``DecisionPoint`` over an OPA of our own.

    Args:
        binary: the OPA executable, as a path or as a name on ``PATH``.
        policies: the policy folder (``policies/README.md`` has its layout).
        directory: runtime folder for sockets and private copies; made with mode 0700, or refused if others can enter.
        timeout_s: seconds for one question.
        memory_limit_bytes: writable memory of the OPA process; beyond it the process dies and is restarted.
        otlp_endpoint: ``host:port`` of an OTLP/HTTP collector, for OPA's own spans inside ours; None for no spans.
        start_timeout_s: seconds that an OPA may take from start to healthy.
        probe_interval_s: seconds between health probes; three missed in a row count as hung, and it is restarted.
        memo_s: seconds for which an answer stands for an equal question; 0 asks every time.
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
    ) -> None:
        self._binary = binary
        self._folder = policies
        self._directory = directory
        self._timeout_s = timeout_s
        self._memory_limit_bytes = memory_limit_bytes
        self._otlp_endpoint = otlp_endpoint
        self._start_timeout_s = start_timeout_s
        self._probe_interval_s = probe_interval_s
        self._memo_s = memo_s
        self._current: Generation | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._revision = ""

    @property
    def revision(self) -> str:
        """Digest of the policy set in force (also while its process is being restarted); empty before the start."""
        return self._revision

    @property
    def pid(self) -> int | None:
        """Process id of the OPA that answers now, or None while there is none."""
        return self._current.pid if self._current is not None else None

    async def start(self) -> None:
        """Check the policies, start OPA, self-test it, and begin to watch it.

        Raises:
            ConfigurationError: the binary, the runtime folder or the policy set is not usable. The detail names file
                and line where OPA does.
        """
        launch = await asyncio.to_thread(self._launch)
        policies = await asyncio.to_thread(PolicySet.read, self._folder)
        await check(launch, policies)
        try:
            self._current = await Generation.start(launch, policies)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"OPA does not answer the self-test: {error.detail}") from error
        self._revision = policies.revision
        self._supervisor = asyncio.create_task(self._supervise(launch, policies), name="opa-supervisor")
        self._supervisor.add_done_callback(_report)
        _LOG.info("opa serves policy set %s", policies.revision)

    async def stop(self) -> None:
        """End the watch and the process; questions in flight end in ``DecisionUnavailable``."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.wait({supervisor})
        current, self._current = self._current, None
        if current is not None:
            await current.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Ask the current generation.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``; at once while OPA is down.
        """
        current = self._current
        if current is None:
            raise DecisionUnavailable("the managed OPA is not running")
        return await current.client.ask(question, document)

    async def healthy(self) -> bool:
        """Whether there is a generation, it is watched, and it answers its health probe."""
        current, supervisor = self._current, self._supervisor
        if current is None or supervisor is None or supervisor.done():
            return False
        return await current.client.healthy()

    def _launch(self) -> Launch:
        binary = shutil.which(self._binary)
        if binary is None:
            raise ConfigurationError(f"there is no OPA executable {self._binary}")
        if self._memory_limit_bytes < MIN_MEMORY_BYTES:
            raise ConfigurationError(f"OPA needs a memory limit of at least {MIN_MEMORY_BYTES} bytes")
        _make_private(self._directory)
        return Launch(
            binary=str(Path(binary).resolve()),
            directory=self._directory.resolve(),
            timeout_s=self._timeout_s,
            start_timeout_s=self._start_timeout_s,
            memory_limit_bytes=self._memory_limit_bytes,
            otlp_endpoint=self._otlp_endpoint,
            memo_s=self._memo_s,
        )

    async def _supervise(self, launch: Launch, policies: PolicySet) -> None:
        """Put a new generation of the same set in the place of one that ended or hangs, until cancelled."""
        delay = 0.0
        loop = asyncio.get_running_loop()
        while (current := self._current) is not None:
            born = loop.time()
            why = await self._lost(current)
            self._current = None
            _LOG.error("opa (pid %d) %s; calls are refused until it is back", current.pid, why)
            await current.stop(grace_s=0)
            if loop.time() - born >= _STABLE_S:
                delay = 0.0
            self._current, delay = await _restart(launch, policies, delay)
            _LOG.warning("opa is back (pid %d)", self._current.pid)

    async def _lost(self, generation: Generation) -> str:
        """Wait until the process has ended or has missed its probes; return which, in words."""
        missed = 0
        while missed < _MISSED_PROBES:
            try:
                async with asyncio.timeout(self._probe_interval_s):
                    status = await generation.ended()
            except TimeoutError:
                missed = 0 if await generation.client.healthy() else missed + 1
            else:
                return f"ended with status {status}"
        return f"missed {missed} health probes"


def _report(supervisor: asyncio.Task[None]) -> None:
    """Say at once that nobody watches OPA any more; a task that is kept would keep its error to itself."""
    if not supervisor.cancelled() and (error := supervisor.exception()) is not None:
        _LOG.critical("the watch over opa failed", exc_info=error)


async def _restart(launch: Launch, policies: PolicySet, delay: float) -> tuple[Generation, float]:
    """Try until a generation is ready; return it and the delay that the next restart starts from."""
    while True:
        await asyncio.sleep(delay)
        delay = min(max(2 * delay, _FIRST_DELAY_S), _LAST_DELAY_S)
        try:
            return await Generation.start(launch, policies), delay
        except (ConfigurationError, DecisionUnavailable) as error:
            _LOG.error("opa does not come back: %s", error.detail)


def _make_private(directory: Path) -> None:
    """Make the folder, or see that it is ours alone: whoever can enter it could put another socket in OPA's place."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise ConfigurationError(f"the runtime directory is not usable: {error}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(f"the runtime directory {directory} must be a folder of this user with mode 0700")
