"""An external OPA: no answer is believed before the set that gave it was examined.

Its bundles come from the holders of signing keys, and change while it runs. So every revision that provenance names is
examined once, before the first answer under it counts: what OPA runs is read from OPA
(``sidecar.opa.external_inventory``), the self-test is taken, and it is read again, so that the three belong to one set.
There is no last good set to fall back on: under a set that is refused nothing is decided.

A revision is what a bundle says of itself, and an author can say the same of two contents. So OPA is looked at again
with the health probe, for every revision, and no look is believed for longer than ``_FRESH_S``.

What OPA itself does not activate never runs. That is reported (``sidecar.opa.external_bundle_status``), and decides
nothing.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from typing_extensions import override

from sidecar.bounded import BoundedMemory
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.client import OpaClient, unobserved
from sidecar.opa.engine_version import version_fault
from sidecar.opa.external_bundle_status import Activation
from sidecar.opa.external_inventory import BUNDLES, MODULES, Inventory, owner, read_inventory, violations
from sidecar.opa.policy_state import Load, PolicyState
from sidecar.opa.startable import Startable
from sidecar.opa.witness import Witness, self_tested
from sidecar.policyset import Severity, Violation, refuse, workshop
from sidecar.ports import PdpAnswer, Question
from sidecar.saturation import Overloaded
from sidecar.system import Outage

_LOG = logging.getLogger(__name__)
_LOOK_S: Final = 10.0
"""For one listing: no question is asked that long, but a set of a hundred teams is 15 MB of trees."""
_EXAMINATION_S: Final = 60.0
_MAX_LISTING_BYTES: Final = 64 * 2**20
"""About 7 MB of Rego: its trees have nine times its size (measured on this repository's policies)."""

_LOOKS: Final = 3
"""How often a set that changes while it is looked at is looked at again, before it is refused."""

_RETRY_S: Final = 5.0
"""A refused set is examined again after this long: the reason may have been a busy machine."""
_PROBE_S: Final = 2.0
"""The least time between two looks without a question, also if health is asked for more often."""
_FRESH_S: Final = 10.0
"""How old a look may be: two of the 5 s between health probes. After that a question looks first."""
_DISHONOUR_S: Final = 60.0
"""How long a revision is refused after content under it was: without ETags OPA activates an archive with every poll,
and which of two modules of a name wins may change with each, so what is looked at next may be the harmless side."""

_AWAY: Final = PdpFault.UNREACHABLE
_MISSED_PROBES: Final = 2
"""Health probes that are missed in a row before the log says so; one may have met a busy machine."""
_REMEMBERED: Final = 64
_NAMES: Final = 1024
_LOCATED: Final = 5
"""Modules for which the line of a finding is looked up."""
_LOCATE_S: Final = 10.0


class ExternalOpa(Startable):
    """A ``DecisionPoint`` over an external OPA.

    Args:
        client: asks that OPA, without a revision of its own and without a memo; opened and closed with this.
        binary: an OPA executable on this machine, for the lines of findings; without one they are all on line 1.
        timeout_s: seconds for one question, the examination of a new set included.
    """

    def __init__(self, client: OpaClient, *, binary: str, timeout_s: float) -> None:
        self._client = client
        self._binary = binary
        self._timeout_s = timeout_s
        self._activation = Activation(client, timeout_s=timeout_s)
        self._accepted: BoundedMemory[str, _Look] = BoundedMemory(_REMEMBERED)
        self._names: BoundedMemory[str, str] = BoundedMemory(_NAMES)
        self._verdicts: BoundedMemory[str, str] = BoundedMemory(_REMEMBERED)
        self._dishonoured: BoundedMemory[str, float] = BoundedMemory(_NAMES)
        self._engines: BoundedMemory[str, None] = BoundedMemory(_REMEMBERED)
        self._refused: set[str] = set()
        self._state = PolicyState(revision="", since=0.0, result=Load.REFUSED)
        self._served: Callable[[], None] = lambda: None
        self._failure = DecisionUnavailable("the policy set was not looked at yet", fault=PdpFault.POLICIES_REFUSED)
        self._examination: asyncio.Task[None] | None = None
        self._again_at = self._probe_at = 0.0
        self._outage = Outage(
            _LOG, "the external opa", lost="does not answer", found="answers again", level=logging.ERROR
        )
        self._missed = 0

    @property
    def policy_state(self) -> PolicyState:
        """Which set was last accepted, and why the newest is not, if it is not: refused here, or not activated by OPA.

        In the second case the set that is named serves on, as the last good one of a managed OPA does.
        """
        if self._state.result is Load.LOADED and (failure := self._activation.failure):
            return replace(self._state, result=Load.REFUSED, error=failure)
        return self._state

    @override
    async def start(self) -> None:
        """Connect, and examine what runs there.

        Raises:
            ConfigurationError: OPA does not answer, does not say what it runs, or runs what must not be believed. The
                detail names file and line.
        """
        await self._client.open()
        try:
            await self._examined("")
        finally:
            if self._state.result is Load.REFUSED:
                await self.stop()
        if self._state.result is Load.REFUSED:
            raise ConfigurationError(self._failure.detail)

    @override
    async def stop(self) -> None:
        """Close all connections; questions in flight and later ones end in ``DecisionUnavailable``."""
        if self._examination is not None:
            self._examination.cancel()
            await asyncio.wait({self._examination})
        await self._client.close()

    def forget(self) -> None:
        """Forget every remembered answer; of an external OPA none is remembered."""

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Ask, and believe the answer of an accepted set only.

        Raises:
            DecisionUnavailable: as for ``OpaClient.ask``; or the set is refused, or not examined within the deadline.
        """
        if question is Question.RESIDUAL:
            # Has no provenance. It narrows a list between two answers that have it, and decides nothing.
            if self._state.result is Load.REFUSED:
                raise self._why()
            return await self._answer(question, document)
        loop, deadline = asyncio.get_running_loop(), 0.0

        def sent() -> None:
            nonlocal deadline
            deadline = loop.time() + self._timeout_s

        answer = await self._answer(question, document, sent)
        if not answer.engine:
            # That says nothing about OPA as it was tested, so it is refused by itself.
            raise DecisionUnavailable(version_fault(answer.engine), fault=PdpFault.POLICIES_REFUSED)
        if answer.engine not in self._engines:
            # Another OPA than those that were tested, even if it runs the same policies.
            self._accepted.clear()
        if not self._believes(answer.revision):
            await self._admit(answer.revision, deadline)
        if answer.engine not in self._engines:
            what = version_fault(answer.engine) or f"OPA {answer.engine} has not passed the self-test"
            raise DecisionUnavailable(what, fault=PdpFault.POLICIES_REFUSED)
        return answer

    async def _answer(
        self, question: Question, document: JsonObject, sent: Callable[[], None] = unobserved
    ) -> PdpAnswer:
        try:
            answer = await self._client.ask(question, document, sent)
        except DecisionUnavailable as error:
            if error.fault is _AWAY:
                self._outage.begins(error.detail)
            raise
        self._outage.ends()
        return answer

    async def _admit(self, revision: str, deadline: float) -> None:
        """Examine the set that gave an answer, or see that it was just refused."""
        if revision in self._refused and not self._due(self._again_at):
            raise self._why()
        try:
            async with asyncio.timeout_at(deadline):
                await self._examined(revision)
        except TimeoutError:
            what = f"policy set {revision} is still being examined"
            raise DecisionUnavailable(what, fault=PdpFault.POLICIES_REFUSED) from None
        if not self._believes(revision):
            raise self._why()

    def _believes(self, revision: str) -> bool:
        look = self._accepted.get(revision)
        return self._state.result is Load.LOADED and look is not None and not self._due(look.began + _FRESH_S)

    def _why(self) -> DecisionUnavailable:
        return DecisionUnavailable(self._failure.detail, fault=self._failure.fault)

    async def healthy(self) -> bool:
        """Whether OPA answers, and what it runs is accepted; looks for a change that no question has met yet."""
        answers = await self._client.healthy()
        self._missed = 0 if answers else self._missed + 1
        if answers:
            self._outage.ends()
        elif self._missed >= _MISSED_PROBES:
            self._outage.begins(f"it missed {self._missed} health probes")
        if self._due(self._probe_at):
            self._probe_at = asyncio.get_running_loop().time() + _PROBE_S
            # Also of one that is not healthy: a bundle that was never activated is why.
            await asyncio.gather(self._activation.look(), *([self._probe()] if answers else []))
        return answers and self._state.result is Load.LOADED

    async def _probe(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._examined("")

    def _due(self, moment: float) -> bool:
        return asyncio.get_running_loop().time() >= moment

    async def _examined(self, revision: str) -> None:
        """Wait for the one examination that is under way, or begin it; a waiter that gives up does not end it."""
        if self._examination is None or self._examination.done():
            self._examination = asyncio.create_task(self._examine(revision), name="opa-examination")
        await asyncio.shield(self._examination)

    async def _examine(self, revision: str) -> None:
        """Accept or refuse what OPA runs now. ``revision`` is that of the answer that asks for it."""
        seen: set[str] = set()
        try:
            look = await self._settled(seen)
        except (ConfigurationError, DecisionUnavailable) as error:
            if isinstance(error, Overloaded) or await self._is_away(error):
                # That says nothing about what it runs; what was refused stays refused.
                fault = error.fault if isinstance(error, Overloaded) else _AWAY
                self._failure = self._failure if self._state.error else DecisionUnavailable(error.detail, fault=fault)
            else:
                self._refuse(seen or {revision}, error.detail)
            self._again_at = asyncio.get_running_loop().time() + _RETRY_S
        else:
            self._accept(look)
            self._failure = DecisionUnavailable("OPA runs another policy set now", fault=PdpFault.POLICIES_REFUSED)

    async def _is_away(self, error: ConfigurationError | DecisionUnavailable) -> bool:
        """Whether OPA as a whole does not answer; one that answers everything but this is not away."""
        unreachable = isinstance(error, DecisionUnavailable) and error.fault is _AWAY
        return unreachable and not await self._client.healthy()

    async def _settled(self, seen: set[str]) -> "_Look":
        """Return what OPA runs, if that may be believed: seen alike before and after a self-test that it passed.

        Args:
            seen: takes the revision that was looked at last.

        Raises:
            ConfigurationError: it must not be believed, or OPA does not say what it runs.
            DecisionUnavailable: OPA does not answer.
        """
        try:
            async with asyncio.timeout(_EXAMINATION_S):
                for _ in range(_LOOKS):
                    if (look := await self._settled_once(seen)) is not None:
                        return look
        except TimeoutError:
            raise ConfigurationError(
                f"the examination of the policy set took longer than {_EXAMINATION_S:g} s"
            ) from None
        raise ConfigurationError("the policy set changed while it was examined, or OPA's answers come from another set")

    async def _settled_once(self, seen: set[str]) -> "_Look | None":
        """Return what OPA runs, or None where that was not the same all along."""
        before = await self._look()
        revision = before.running.revision
        seen.clear()
        seen.add(revision)
        if (known := self._accepted.get(revision)) is not None and known.fingerprint == before.fingerprint:
            return before
        # This is not what was accepted, so nothing of it is believed until it is examined.
        self._accepted.drop(revision)
        witness = Witness(self._client)
        failure = await self_tested(witness)
        fault = await self._judged(before)
        after = await self._look()
        if after.fingerprint != before.fingerprint or not witness.revisions <= {revision}:
            return None
        for too_old in filter(None, map(version_fault, witness.engines)):
            raise ConfigurationError(too_old)
        if failure is not None and not fault:
            raise failure
        for engine in witness.engines if failure is None else ():
            self._engines.put(engine, None)
        self._hold_to_its_name(after.running, fault)
        return after

    async def _look(self) -> "_Look":
        began = asyncio.get_running_loop().time()
        bundles = await self._listing(BUNDLES)
        running = read_inventory(bundles, await self._listing(MODULES))
        return _Look(running=running, fingerprint=running.fingerprint, began=began)

    def _hold_to_its_name(self, running: Inventory, fault: str) -> None:
        """Let a set through if neither it nor another of its name is at fault.

        A folder that is edited has the name that it had; what is made of archives has its digest for a name.

        Raises:
            ConfigurationError: it is at fault itself; or bears a name under which something else was looked at.
        """
        revision, now = running.revision, asyncio.get_running_loop().time()
        if fault:
            if running.archived:
                self._dishonoured.put(revision, now + _DISHONOUR_S)
            raise ConfigurationError(fault)
        until = self._dishonoured.get(revision)
        if running.archived and until is not None and now < until:
            raise ConfigurationError(
                f"other content under revision {revision} was refused less than {_DISHONOUR_S:g} s ago: "
                "wait that long, or give the bundle another revision"
            )
        ours = running.ours
        if self._names.get(revision) not in {None, ours}:
            what = f"revision {revision} is the name of two policy sets: evidence cannot tell them apart"
            if running.archived:
                raise ConfigurationError(f"{what}; give the bundle another revision, as policy bundle does")
            _LOG.warning("%s", what)
        self._names.put(revision, ours)

    async def _listing(self, path: str) -> bytes:
        try:
            return await self._client.look(path, timeout_s=_LOOK_S, longest=_MAX_LISTING_BYTES)
        except DecisionUnavailable as error:
            if error.fault is PdpFault.STATUS:
                raise ConfigurationError(
                    f"{error.detail}: it must be open to the sidecar, which trusts an OPA only if it can read what it "
                    "runs; load policies/system/authz.rego of this version, which opens it"
                ) from error
            raise

    async def _judged(self, look: "_Look") -> str:
        """Return what is wrong with a set, with file and line; an empty text is nothing. The same is judged once."""
        if (verdict := self._verdicts.get(look.fingerprint)) is None:
            verdict = await self._judgement(look.running)
            self._verdicts.put(look.fingerprint, verdict)
        return verdict

    async def _judgement(self, running: Inventory) -> str:
        findings = await asyncio.to_thread(violations, running)
        if any(finding.severity is Severity.ERROR for finding in findings):
            try:
                refuse(await self._located(findings, running))
            except ConfigurationError as error:
                return error.detail
        for warning in findings:
            _LOG.warning("policy: %s", warning)
        return ""

    async def _located(self, findings: list[Violation], running: Inventory) -> list[Violation]:
        """Put the findings of modules on their lines, by parsing their text here."""
        texts = {module.id: module.raw for module in running.modules}
        files = list(dict.fromkeys(finding.file for finding in findings if finding.file in texts))[:_LOCATED]
        located: dict[str, tuple[Violation, ...]] = {}
        try:
            async with asyncio.timeout(_LOCATE_S), workshop(self._binary) as checker:
                for file in files:
                    if (team := owner(file, running)) is not None:
                        located[file] = await checker.locate(texts[file], team=team, file=file)
        except (ConfigurationError, TimeoutError) as error:
            _LOG.info("findings have no lines: %s", error)
        return list(dict.fromkeys(_placed(finding, located.get(finding.file, ())) for finding in findings))

    def on_served(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever another policy set is accepted."""
        self._served = callback

    def _accept(self, look: "_Look") -> None:
        running = look.running
        self._accepted.put(running.revision, replace(look, running=_NOTHING))
        self._refused.clear()
        if (running.revision, Load.LOADED) != (self._state.revision, self._state.result):
            self._state = PolicyState(revision=running.revision, since=time.time(), result=Load.LOADED)
            _LOG.info("the external opa serves policy set %s", running.revision or "without a revision")
            self._served()

    def _refuse(self, revisions: set[str], detail: str) -> None:
        for revision in revisions:
            self._accepted.drop(revision)
        if len(self._refused) > _REMEMBERED:
            self._refused.clear()
        self._refused |= revisions
        if (self._state.result, self._state.error) != (Load.REFUSED, detail):
            _LOG.error("the policies that the external opa runs are refused, nothing is decided: %s", detail)
        self._state = replace(self._state, result=Load.REFUSED, error=detail)
        self._failure = DecisionUnavailable(detail, fault=PdpFault.POLICIES_REFUSED)


_NOTHING: Final = Inventory(bundles={}, modules=(), revision="")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One reading of what OPA runs."""

    running: Inventory
    """Empty where only the rest is remembered."""
    fingerprint: str
    began: float
    """On the loop's clock; what OPA ran later is not in it."""


def _placed(finding: Violation, located: Sequence[Violation]) -> Violation:
    """Take the line of the like finding in the text; what OPA evaluates decides, the text only says where."""
    alike = [one for one in located if one.rule is finding.rule]
    same = [one for one in alike if one.message == finding.message]
    return replace(finding, line=(same or alike or [finding])[0].line)
