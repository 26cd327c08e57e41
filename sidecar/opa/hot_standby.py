"""A hot standby: of two OPAs of one policy set, one decides, and the other takes the questions that might end it.

A policy that passes every check can still ask for more memory than OPA may have: a text doubled 28 times needs one
evaluation and 256 MB, and no deadline interrupts it (measured with 1.22.2: the process ends, and every team's questions
are refused for half a second to three, again and again). One team must not do that to another. So

- if the one that decides ends, the standby decides from that moment on, and another is started;
- partial evaluation, which looks at every owner within reach and only shortens lists, is asked of the one that stands
  by;
- questions about the databases that are to blame (``sidecar.opa.blame``) are put to the standby, one at a
  time and in fair turns; whose question is answered there is no longer to blame, and what ends that one too is set
  aside: refused, for longer each time. A new policy set begins without suspicion.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Final

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.fair_line import LineClosed
from sidecar.fair_turns import FairTurns, TooManyWaiting
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.blame import TERM_S, Blame, Member, PendingQuestion, Places, parts, places, together
from sidecar.opa.deadline import Presence, answered_within
from sidecar.opa.instance import Instance, Launch
from sidecar.policyset import ApprovedSet
from sidecar.ports import PdpAnswer, Question
from sidecar.saturation import Overloaded
from sidecar.system import BackOff, ended, to_its_end

_LOG = logging.getLogger(__name__)

_BROKEN_OFF: Final = frozenset({PdpFault.UNREACHABLE, PdpFault.INCOMPLETE})
_TURNS: Final = 4
"""How many deadlines a question may wait for its turn at the standby."""
_STALLS_S: Final = 30.0
"""Between two processes that are taken out for being slow; beyond that it is the machine that is slow."""
_FIRST_DELAY_S: Final = 0.1
_LAST_DELAY_S: Final = 5.0


class HotStandby:
    """Stands in for one ``Instance``: the same questions, the same end. Made by ``start``.

    Args:
        launch: how OPA processes are started.
        approved: the set that both serve.
        probe_interval_s: seconds between health probes.
    """

    def __init__(
        self, launch: Launch, approved: ApprovedSet, members: tuple[Instance, Instance], probe_interval_s: float
    ) -> None:
        self._launch = launch
        self._approved = approved
        self._probe_interval_s = probe_interval_s
        self._now = asyncio.get_running_loop().time
        first, second = (Member(instance) for instance in members)
        self._first: Member | None = first
        self._second: Member | None = second
        self._there = asyncio.Event()
        self._there.set()
        self._alone = FairTurns()
        self._suspected = Blame(self._now)
        self._set_aside = Blame(self._now)
        self._superseded = False
        self._unwatched = asyncio.Event()
        self._stall_again_at = 0.0
        self._back_off = BackOff(_FIRST_DELAY_S, _LAST_DELAY_S, at_once=True)
        self._tasks = {self._begin(self._watch(member)) for member in (first, second)}

    @classmethod
    async def start(cls, launch: Launch, approved: ApprovedSet, probe_interval_s: float) -> "HotStandby":
        """Start both.

        Raises:
            ConfigurationError: one of them does not start, does not become healthy, or fails the self-test.
            DecisionUnavailable: one of them became healthy and then gave no answer.
        """
        starting = [asyncio.create_task(Instance.start(launch, approved)) for _ in range(2)]
        try:
            first, second = await asyncio.gather(*starting)
        except BaseException:
            await to_its_end(_given_up(starting))
            raise
        return cls(launch, approved, (first, second), probe_interval_s)

    @property
    def pid(self) -> int:
        """Process id of the one that decides; 0 where both have ended."""
        return self._first.instance.pid if self._first is not None else 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of both, the one that decides first."""
        return tuple(member.instance.pid for member in (self._first, self._second) if member is not None)

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Ask the one that decides; ask the standby what might end an OPA.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``; or the question is about what is set aside.
            LineClosed: as for ``OpaClient.ask``.
        """
        about = places(question, document)
        if self._set_aside.holds(about | together(about)):
            what = "an OPA ended over a question like this a short time ago"
            raise DecisionUnavailable(what, fault=PdpFault.SET_ASIDE)
        if question is Question.RESIDUAL or self._suspected.holds(about):
            return await self._ask_alone(question, document, about)
        first = self._first
        if first is None:
            raise DecisionUnavailable("the managed OPA is not running", fault=PdpFault.UNREACHABLE)
        asking = PendingQuestion(about, self._now)
        try:
            return await self._put(first, asking, question, document)
        except DecisionUnavailable as error:
            if error.fault is PdpFault.TIMEOUT:
                first.doubted.set()
                if first.is_slow(asking):
                    self._suspected.put(about)
            if error.fault not in _BROKEN_OFF or (successor := await self._successor(first, about)) is None:
                raise
        return await self._put(successor, PendingQuestion(about, self._now), question, document)

    async def _put(
        self, member: Member, asking: PendingQuestion, question: Question, document: JsonObject
    ) -> PdpAnswer:
        """Put a question to one of the two, which is remembered while it is under way."""
        with member.asking(asking, self._launch.timeout_s):
            return await member.instance.ask(question, document, asking.sent)

    async def _successor(self, lost: Member, about: Places) -> Member | None:
        """Return who decides in the place of a lost one, for a question that is not to blame; None otherwise."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._launch.timeout_s / 2):
                await lost.gone.wait()
        if not lost.gone.is_set() or self._suspected.holds(about):
            return None
        return self._first

    async def _ask_alone(self, question: Question, document: JsonObject, about: Places) -> PdpAnswer:
        """Ask the standby, with no other question beside it, so that it is known what ended it.

        The deadline of the answer begins with the turn, so that who waits for a slow one is not late by that. A turn
        comes within ``_TURNS`` deadlines or not at all.
        """
        timeout_s = self._launch.timeout_s
        turns = contextlib.AsyncExitStack()
        try:
            async with turns:
                async with asyncio.timeout(_TURNS * timeout_s):
                    await turns.enter_async_context(self._alone.turn(self._suspected.among(about) or about))
                    await self._there.wait()
                if self._superseded:
                    raise LineClosed
                async with answered_within(timeout_s):
                    answer = await self._ask_standby(question, document, about)
        except TimeoutError:
            what = f"no answer within {timeout_s:g} s from the standby OPA"
            raise DecisionUnavailable(what, fault=PdpFault.TIMEOUT) from None
        except TooManyWaiting:
            what = "too many questions wait for the standby OPA"
            raise Overloaded(what, retry_after_s=1) from None
        self._suspected.lift(about)
        return answer

    async def _ask_standby(self, question: Question, document: JsonObject, about: Places) -> PdpAnswer:
        second = self._second
        if second is None or self._set_aside.holds(about):
            raise DecisionUnavailable("the standby OPA has ended", fault=PdpFault.UNREACHABLE)
        for place, part in parts(document, about):
            await self._put(second, PendingQuestion(place, self._now), question, part)
        return await self._put(second, PendingQuestion(together(about), self._now), question, document)

    def forget(self) -> None:
        """Forget every remembered answer of both."""
        for member in (self._first, self._second):
            if member is not None:
                member.instance.forget()

    def supersede(self) -> None:
        """See ``OpaClient.supersede``."""
        self._superseded = True
        self._unwatched.set()  # who waits for that looks at those that serve now
        for member in (self._first, self._second):
            if member is not None:
                member.instance.supersede()

    async def healthy(self) -> bool:
        """Whether the one that decides answers its health probe."""
        return self._first is not None and await self._first.instance.healthy()

    async def drained(self, *, within_s: float) -> None:
        """Wait until no question is in flight."""
        for member in (self._first, self._second):
            if member is not None:
                await member.instance.drained(within_s=within_s)

    async def lost(self, probe_interval_s: float) -> str:  # noqa: ARG002  # each member is probed by its own watch
        """Wait until one of them is no longer watched: a defect of the sidecar, or others serve now."""
        await self._unwatched.wait()
        return "is not watched any more"

    async def stop(self, *, grace_s: float | None = None) -> None:
        """End both, also if cancelled. Can be called in any state."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        try:
            await ended(*tasks)
        finally:
            members = [member for member in (self._first, self._second) if member is not None]
            self._first = self._second = None
            for member in members:
                member.gone.set()  # who was asking it waits for no successor
            await to_its_end(asyncio.gather(*(member.instance.stop(grace_s=grace_s) for member in members)))

    def _begin(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name="opa-member")
        task.add_done_callback(self._report)
        return task

    def _report(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.critical("the watch over an opa failed", exc_info=error)
            self._unwatched.set()

    async def _watch(self, member: Member) -> None:
        """Put another process in the place of one that ended or hangs, until cancelled."""
        while True:
            born = self._now()
            why = await self._lost(member)
            self._take_out(member, why)
            lost = member.instance.pid
            await member.instance.stop(grace_s=0)
            if self._now() - born > TERM_S:
                self._back_off.reset()
            member = Member(await self._another())
            _LOG.warning("another opa (pid %d) has come for the one that went (pid %d)", member.instance.pid, lost)
            if self._first is None:
                self._first = member
            else:
                self._second = member
                self._there.set()

    async def _lost(self, member: Member) -> str:
        """Wait until a process has ended, hangs, or keeps everybody waiting; return which, in words."""
        ends = asyncio.create_task(member.instance.lost(self._probe_interval_s))
        doubt = asyncio.create_task(self._stalls(member))
        try:
            await asyncio.wait({ends, doubt}, return_when=asyncio.FIRST_COMPLETED)
            return await ends if ends.done() else "keeps everybody waiting"
        finally:
            for task in (ends, doubt):
                task.cancel()
            await asyncio.wait({ends, doubt})

    async def _stalls(self, member: Member) -> None:
        """Wait until a process that was slow to answer is slow to say that it is well, and the standby is not.

        Where the standby, which has nothing to do, is as slow, it is the machine that is: to start another process then
        would take from it what it has too little of.
        """
        while True:
            await member.doubted.wait()
            member.doubted.clear()
            standby = self._second
            if member is not self._first or standby is None or self._now() < self._stall_again_at:
                continue
            if not await self._well(member) and await self._well(standby):
                self._stall_again_at = self._now() + _STALLS_S
                return

    async def _well(self, member: Member) -> bool:
        """Whether a process answers its health probe in half of the time that a question may take."""
        presence = Presence(self._launch.timeout_s / 2)
        try:
            async with answered_within(self._launch.timeout_s / 2, presence):
                await member.instance.healthy()
        except TimeoutError:
            return not presence.tells
        return True

    def _take_out(self, member: Member, why: str) -> None:
        """Let the other one decide, and remember what the lost one was asked about."""
        blamed = member.blamed(self._now())
        role = "decides" if member is self._first else "stands by"
        _LOG.error("the opa that %s (pid %d) %s over %s", role, member.instance.pid, why, sorted(blamed) or "nothing")
        if member is self._first:
            self._suspected.put(blamed)
            self._first, self._second = self._second, None
        else:
            self._set_aside.put(blamed)
            self._second = None
        self._there.clear()
        member.gone.set()

    async def _another(self) -> Instance:
        """Start another process, and try again until one starts; each obstacle is logged once."""
        obstacle = ""
        while True:
            await asyncio.sleep(self._back_off.pause())
            try:
                return await Instance.start(self._launch, self._approved)
            except (ConfigurationError, DecisionUnavailable) as error:
                if error.detail != obstacle:
                    obstacle = error.detail
                    _LOG.error("another opa does not start: %s", obstacle)


async def _given_up(starting: list[asyncio.Task[Instance]]) -> None:
    """End what starts, and what has started."""
    for start in starting:
        start.cancel()
    for started in await asyncio.gather(*starting, return_exceptions=True):
        if isinstance(started, Instance):
            await started.stop(grace_s=0)
