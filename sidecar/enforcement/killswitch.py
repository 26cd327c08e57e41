"""Taking rights away at once, and giving them back: what an operator's command does, in its order.

A suspension is in force before anything is waited for; that it outlives the process and is recorded comes after, and
the answer says so where it did not. Giving back is the other way round: it is recorded and stored first.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from sidecar.audit import record
from sidecar.enforcement.point import EnforcementPoint
from sidecar.enforcement.suspensions import MOST_SUSPENSIONS, Suspensions
from sidecar.errors import AuditUnavailable, SidecarError, SuspensionsUnavailable
from sidecar.identity import CallerName, Suspendable, Suspension, SuspensionTarget, read_target, whole_seconds
from sidecar.model import JsonObject
from sidecar.ports import AuditSink, Clock, Identifiers, SuspensionStore

LONGEST_REASON: Final = 256


class OperatorCommandFailed(SidecarError):
    """A command of an operator that was not carried out; the detail says why, to the operator."""

    label = "not_done"
    public = "The command was not carried out."


class ByOthers:
    """Does here what operators commanded at other sidecars of the same store; their evidence is there."""

    def __init__(self, pep: EnforcementPoint, suspensions: Suspensions, *, forget: Callable[[], None]) -> None:
        self._pep = pep
        self._suspensions = suspensions
        self._forget = forget

    def changed(self, suspended: Collection[Suspension], resumed: Collection[CallerName]) -> None:
        """Put in force and take out of force; nothing here waits."""
        for suspension in suspended:
            self._suspensions.add(suspension)
            self._pep.take_away(suspension.target)
        for name in resumed:
            self._suspensions.drop(name)
        if suspended:
            self._forget()


class KillSwitch:
    """Carries out what operators command, one command at a time.

    Args:
        issuers: those whose users and agents there are.
        forget: drops every remembered answer of policy.
        shared: other sidecars have the same store, so a session may be open there.
    """

    def __init__(  # one parameter per collaborator
        self,
        pep: EnforcementPoint,
        suspensions: Suspensions,
        store: SuspensionStore,
        audit: AuditSink,
        clock: Clock,
        identifiers: Identifiers,
        *,
        issuers: Sequence[str],
        forget: Callable[[], None],
        shared: bool = False,
    ) -> None:
        self._pep = pep
        self._suspensions = suspensions
        self._shared = shared
        self._store = store
        self._audit = audit
        self._clock = clock
        self._identifiers = identifiers
        self._issuers = tuple(issuers)
        self._forget = forget
        self._turn = asyncio.Lock()

    def suspended(self) -> JsonObject:
        """List what is in force.

        Raises:
            OperatorCommandFailed: the suspensions cannot be read.
        """
        self._require_known()
        return {"suspended": [suspension.document() for suspension in self._suspensions.all()]}

    async def suspend(self, asked: JsonObject, operator: str) -> JsonObject:
        """Take rights away; they are gone when this returns, and what was under way of them has ended.

        Args:
            asked: the parts of the target, ``reason``, and ``until`` where it ends by itself.
            operator: as the control listener knows them.

        Returns:
            The suspension, what ended with it, and whether it is ``stored`` and ``recorded``.

        Raises:
            OperatorCommandFailed: nothing changed; the detail says why.
        """
        async with self._turn:
            self._require_known()
            suspension = self._read(asked, operator)
            self._require_room(suspension)
            before = self._suspensions.find(suspension.target.name)
            self._suspensions.add(suspension)
            taken = self._pep.take_away(suspension.target)
            self._forget()
            stored = await self._stored()
            recorded = await self._recorded("suspend", suspension.document(), operator)
        return {
            "suspended": suspension.document(),
            "extended": before is not None,
            "sessions": taken.sessions,
            "streams": taken.streams,
            "calls": taken.calls,
            "writes": taken.writes,
            "stored": stored,
            "recorded": recorded,
        }

    async def resume(self, asked: JsonObject, operator: str) -> JsonObject:
        """Give rights back, once that is recorded and stored. What policy suspends stays suspended.

        Raises:
            OperatorCommandFailed: nothing changed; the detail says why.
        """
        async with self._turn:
            self._require_known()
            target = self._target(asked)
            found = self._suspensions.find(target.name)
            if found is None:
                raise OperatorCommandFailed(
                    "not suspended: nothing of that name is in the list (mcp-sidecar suspended)"
                )
            if not await self._recorded("resume", found.document(), operator):
                raise OperatorCommandFailed("not resumed: the audit store is not available")
            rest = tuple(one for one in self._suspensions.all() if one.target.name != target.name)
            try:
                await self._store.save(rest)
            except SuspensionsUnavailable as error:
                await self._recorded("resume", found.document(), operator, error.label)
                raise OperatorCommandFailed(f"not resumed: {error.detail}") from error
            self._suspensions.drop(target.name)
        return {"resumed": found.document()}

    def _require_known(self) -> None:
        if not self._suspensions.known:
            raise OperatorCommandFailed(
                "the suspensions cannot be read, so every call is refused; a damaged file: restore it, and restart if "
                "it began so"
            )

    def _read(self, asked: JsonObject, operator: str) -> Suspension:
        now = self._clock.time_ns() / 1e9
        target, reason, until = self._target(asked), asked.get("reason"), asked.get("until")
        if not isinstance(reason, str) or not 0 < len(reason) <= LONGEST_REASON:
            raise OperatorCommandFailed(f"a reason of 1 to {LONGEST_REASON} characters is needed")
        try:
            ends = None if until is None else whole_seconds(until)
        except ValueError as error:
            raise OperatorCommandFailed(f"until: {error}") from error
        if ends is not None and ends <= now:
            raise OperatorCommandFailed("until is in the past")
        if target.kind is Suspendable.SESSION and not self._shared and not self._pep.has_session(target.digest):
            raise OperatorCommandFailed("no session of that digest is open")
        return Suspension(target=target, until=ends, reason=reason, operator=operator[:LONGEST_REASON], since=int(now))

    def _target(self, asked: JsonObject) -> SuspensionTarget:
        """Read what is meant; an issuer need not be named where there is one only."""
        parts = dict(asked)
        if parts.get("kind") in {Suspendable.USER, Suspendable.AGENT, Suspendable.PAIR} and not parts.get("issuer"):
            if len(self._issuers) != 1:
                raise OperatorCommandFailed(f"name the issuer, one of: {', '.join(self._issuers)}")
            parts["issuer"] = self._issuers[0]
        try:
            target = read_target(parts)
        except ValueError as error:
            raise OperatorCommandFailed(str(error)) from error
        if target.issuer and target.issuer not in self._issuers:
            raise OperatorCommandFailed(f"unknown issuer; the trusted ones are: {', '.join(self._issuers)}")
        return target

    def _require_room(self, suspension: Suspension) -> None:
        """Refuse to shorten a suspension that its operator did not resume first, and to let the table grow for ever."""
        found = self._suspensions.find(suspension.target.name)
        if found is None:
            if len(self._suspensions.all()) >= MOST_SUSPENSIONS:
                raise OperatorCommandFailed(
                    f"{MOST_SUSPENSIONS} suspensions are in force, which is the most; resume some, or use policy data"
                )
        elif found.until is None or (suspension.until is not None and suspension.until <= found.until):
            until = "until it is resumed" if found.until is None else f"until {record.rfc3339(found.until * 10**9)}"
            raise OperatorCommandFailed(
                f"already suspended by {found.operator} {until}; to shorten it, resume it first"
            )

    async def _stored(self) -> bool:
        try:
            await self._store.save(self._suspensions.all())
        except SuspensionsUnavailable:
            return False
        return True

    async def _recorded(self, action: str, about: JsonObject, operator: str, error: str | None = None) -> bool:
        entry = record.control(
            action,
            about,
            error,
            operator=operator,
            record_id=self._identifiers.request_id(),
            request_id=self._identifiers.request_id(),
            time_ns=self._clock.time_ns(),
        )
        try:
            await self._audit.append(entry)
        except AuditUnavailable:
            return False
        return True
