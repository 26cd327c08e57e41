"""Calls that wait for an approval: what has to be there before a permit, and what it is bound to.

The two kinds are never confused. A confirmation is the user's, through the client of the call: it guards against
accidents, and an agent that is the client can give it. An approval of a second person comes from a person with a token
of their own, at another time (``approval_desk``). What is required of it here, on the call that uses it:

- the same caller through the same agent, the same server, tool and canonical arguments: one digest is looked up, so a
  call that differs in any of these finds nothing;
- the same policy set: the call was decided under it a moment ago, and the approver was admitted under it;
- neither who asked nor who approved is suspended, up to the moment at which the call leaves;
- it has not expired, and nobody used it: the store gives it out once.

It is used up before the intent is stored, so an intent that fails costs an approval and never the other way round.
"""

import asyncio
from hashlib import sha256
from typing import Final

import msgspec

from sidecar.audit import record
from sidecar.enforcement.confirmation import CONFIRMATION, YES, ConfirmationMissing, Confirmations, Permissible
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Ports, Turn
from sidecar.errors import NotConfirmed, ObligationNotSupported
from sidecar.identity import (
    Approval,
    ApprovalRequired,
    ApprovalState,
    ApprovalStore,
    ApprovalsUnavailable,
    CallerName,
    Party,
    Suspendable,
    binding_of,
    read_approval,
)
from sidecar.mcp import denials
from sidecar.model import Command, Decision, JsonObject, ToolCall, Trait
from sidecar.obligations import Plan

MOST_BYTES: Final = 65_536
"""Of one that is kept, as JSON."""

VOID_AGAIN_S: Final = 1.0
"""Between two attempts to void what concerns a suspended person."""

_CONDITION: Final = ("approval",)


class Approvals:
    """Lets calls pass that wait for nothing, or whose approval is there.

    Args:
        ports: the store of approvals, among others.
        suspensions: who is suspended.
        confirmations: asks users through their clients.
        lifetime_s: how long a call may wait, and an approval be unused.
    """

    def __init__(self, ports: Ports, suspensions: Suspensions, confirmations: Confirmations, lifetime_s: int) -> None:
        self._ports = ports
        self._confirmations = confirmations
        self._suspensions = suspensions
        self._lifetime_s = lifetime_s
        self._voiding: set[asyncio.Task[None]] = set()

    async def cleared(
        self, call: ToolCall, decision: Decision, todo: Plan, turn: Turn, permissible: Permissible | None = None
    ) -> tuple[Decision, Plan]:
        """Return the decision and the plan that stand once everything that the call waits for is there.

        The second person's approval is looked at first, so that no user is asked in vain, and used up last. A call that
        was confirmed is decided once more: its user took their time.

        Args:
            call: as it will be sent.
            decision: the allow.
            todo: what it obliges to.
            turn: the call's.
            permissible: decides the call once more; None for a use that nobody can be asked about.

        Raises:
            SidecarError: as ``_require``, ``Confirmations.own`` and ``permissible`` do.
        """
        if not todo.waits:
            return decision, todo
        approval = await self._require(call, decision, todo, turn)
        if todo.waits.confirm:
            command = turn.named
            if permissible is None or command is None:
                raise ConfirmationMissing("it is no tool call")
            await self._confirmations.own(turn, decision.server, _question(command))
            before, asked = decision, todo.waits
            decision, todo = await permissible(call, command, turn)
            other = decision.server != before.server or todo.waits != asked
            if other or (approval is not None and decision.revision != before.revision):
                raise NotConfirmed("policy decides otherwise by now")
        await self._spend(approval, turn)
        return decision, todo

    async def _require(self, call: ToolCall, decision: Decision, todo: Plan, turn: Turn) -> Approval | None:
        """Return the approval of a second person that the call may use up; None where it needs none.

        Raises:
            ApprovalRequired: it waits for one, or was denied it.
            TooManyApprovals: it would wait, and too many do.
            ApprovalsUnavailable: it cannot be told.
            ObligationNotSupported: nobody can approve here, or nobody could judge this call.
        """
        waiting = todo.waits.second_person
        if not waiting:
            return None
        store, command = self._ports.approvals, turn.command
        if store is None or command is None:
            raise _unsupported("no approvals are kept (settings: approvals)", waiting[0])
        if not decision.revision:
            raise ApprovalsUnavailable("the PDP does not say which policy set decided")
        found = await store.of_call(self._binding(call, decision, turn))
        if found is not None and not self._counts(found, decision):
            await store.remove(found)
            self._ports.metrics.approval("voided")
            found = None
        if found is not None and found.state is ApprovalState.APPROVED:
            return found
        first = found is None
        if found is None:
            wanted = self._wanted(call, decision, waiting, turn)
            found = await store.add(wanted)
            first = found.id == wanted.id
        if first:
            self._ports.metrics.approval("requested")
        turn.approval = {"action": "requested" if first else found.state.value, "id": found.id}
        raise ApprovalRequired(found, self._now(), first=first)

    async def _spend(self, approval: Approval | None, turn: Turn) -> None:
        """Use an approval up.

        Raises:
            ApprovalRequired: another call used it first.
            ApprovalsUnavailable: it cannot be told; then it may be used up.
        """
        store = self._ports.approvals
        if approval is None or store is None:
            return
        if approval.over(self._now()) or self._suspended(approval) or not await store.spend(approval):
            raise ApprovalRequired(approval, self._now())
        self._ports.metrics.approval("spent")
        turn.approval = {"action": "spent", "id": approval.id, **given(approval)}
        turn.relies_on = approval.approver.names if approval.approver is not None else ()

    def void(self, name: CallerName) -> None:
        """End every approval that concerns a caller who is suspended from now on, also if they are resumed later."""
        store = self._ports.approvals
        if store is None:
            return
        task = asyncio.get_running_loop().create_task(self._void(store, name), name="approvals: void")
        self._voiding.add(task)
        task.add_done_callback(self._voiding.discard)

    async def stop(self) -> None:
        """End what is still tried again."""
        for task in self._voiding:
            task.cancel()
        await asyncio.gather(*self._voiding, return_exceptions=True)

    async def _void(self, store: ApprovalStore, name: CallerName) -> None:
        while True:
            try:
                for _ in range(await store.void(name)):
                    self._ports.metrics.approval("voided")
            except ApprovalsUnavailable:
                await asyncio.sleep(VOID_AGAIN_S)
            else:
                return

    def _binding(self, call: ToolCall, decision: Decision, turn: Turn) -> str:
        digest = record.arguments_digest(call.arguments)
        return binding_of(turn.identity, decision.server, turn.method, call.name, digest)

    def _counts(self, found: Approval, decision: Decision) -> bool:
        return found.revision == decision.revision and not found.over(self._now()) and not self._suspended(found)

    def _suspended(self, approval: Approval) -> bool:
        names = {name for party in approval.parties for name in party.names}
        return any(self._suspensions.in_force(name) for name in names)

    def _wanted(self, call: ToolCall, decision: Decision, waiting: tuple[int, ...], turn: Turn) -> Approval:
        """Return what would be kept of the call.

        Raises:
            ObligationNotSupported: its arguments hold a secret, or it is too large for anybody to read.
        """
        command = turn.command
        if command is None or Trait.CREDENTIALS_IN_ARGUMENTS in command.traits:
            raise _unsupported("its arguments hold credentials, which are shown to nobody", waiting[0])
        now = int(self._now())
        session = (Suspendable.SESSION.value, record.session_digest(turn.session_id))
        wanted = Approval(
            id=sha256(self._ports.identifiers.session_id().encode()).hexdigest()[:32],
            binding=self._binding(call, decision, turn),
            state=ApprovalState.WAITING,
            requester=Party.of(turn.identity, *([session] if turn.session_id else [])),
            server=decision.server,
            method=turn.method,
            tool=call.name,
            accesses=tuple(
                {**access.document(), "owner": verdict.owner, "waits": index in waiting}
                for index, (access, verdict) in enumerate(zip(command.accesses, decision.accesses, strict=True))
            ),
            arguments=call.arguments,
            arguments_sha256=record.arguments_digest(call.arguments),
            revision=decision.revision,
            requested=now,
            expires=now + self._lifetime_s,
            request_id=turn.request_id,
            trace_id=turn.span.trace_id,
        )
        try:
            document = wanted.document()
            if len(msgspec.json.encode(document)) > MOST_BYTES:
                raise ValueError("too large")  # noqa: TRY301 - refused like everything that cannot be kept
            read_approval(document)
        except (ValueError, OverflowError, RecursionError) as error:
            raise _unsupported(f"it cannot be kept to be shown: {error}", waiting[0]) from error
        return wanted

    def _now(self) -> float:
        return self._ports.clock.time_ns() / 1e9


def _question(command: Command) -> JsonObject:
    """Return what the user is asked; it says no more than the call itself named, and the same of the same call."""
    return {
        "message": denials.confirmation(command.tool, command.accesses),
        "requestedSchema": {
            "type": "object",
            "properties": {
                CONFIRMATION: {"type": "string", "title": "Go on?", "enum": [YES, "No"], "description": "Yes or No."}
            },
            "required": [CONFIRMATION],
        },
    }


def given(approval: Approval) -> JsonObject:
    """Return who decided an approval, and when, as records have it."""
    approver, decided = approval.approver, approval.decided
    if approver is None or decided is None:
        return {}
    who: JsonObject = {"issuer": approver.issuer, "id": approver.subject, "agent": approver.agent}
    return {"approver": who, "decided": record.rfc3339(decided * 10**9)}


def _unsupported(detail: str, access: int) -> ObligationNotSupported:
    return ObligationNotSupported(detail, access=access, conditions=_CONDITION)
