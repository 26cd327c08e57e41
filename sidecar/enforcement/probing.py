"""What a server is asked before a call goes there, because of an obligation; each question has its own evidence.

The questions are the sidecar's, made by the plan (``sidecar.obligations.probes``). They go the way of every call: the
tool is held against its pin, an intent is stored, and the permit that this gives is what is forwarded.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sidecar.commands import derive
from sidecar.enforcement.turn import Ports, Turn
from sidecar.mcp import Era
from sidecar.model import Decision, JsonObject, Permit, ToolCall, UpstreamResult
from sidecar.obligations import Plan

Commit = Callable[[ToolCall, Decision, Plan, Turn], Awaitable[Permit]]
Forward = Callable[[Permit, Plan, Turn], Awaitable[UpstreamResult]]
Pinned = Callable[[str, str], Awaitable[tuple[JsonObject, ...]]]


class Probing:
    """Asks what a plan wants to be asked, and notes where a call went further all the same.

    Args:
        ports: identifiers, metrics and the log.
        commit: stores an intent, and gives the permit.
        forward: has a permitted call carried out.
        pinned: returns the reviewed tools of a server where the named one is as it was reviewed.
    """

    def __init__(self, ports: Ports, commit: Commit, forward: Forward, pinned: Pinned) -> None:
        self._ports = ports
        self._commit = commit
        self._forward = forward
        self._pinned = pinned

    async def require(self, decision: Decision, todo: Plan, turn: Turn) -> None:
        """Return if every answer lets the call go.

        Raises:
            ObligationNotSupported: one does not, or cannot be judged.
            SidecarError: as the ways of a call do.
        """
        for probe in todo.probes:
            command = derive(probe.call).command
            own = replace(
                turn,
                request_id=self._ports.identifiers.request_id(),
                call=probe.call,
                derived=None,
                named=command,
                command=command,
                channel=None,
                era=Era.HANDSHAKE,
                askable=frozenset(),
                approval=None,
                opinion=None,
                question=None,
                reviewed=await self._pinned(decision.server, probe.call.name),
                besides={"probe": {"of": turn.request_id, "obligation": probe.obligation}},
            )
            permit = await self._commit(probe.call, decision, Plan(), own)
            result = await self._forward(permit, Plan(time_ms=todo.time_ms), own)
            if turn.flight is not None:
                turn.flight.sent = False  # the call itself was not
            probe.judge(result.result, failed=result.failed)

    def note_excess(self, result: UpstreamResult, todo: Plan, turn: Turn) -> None:
        """Record and alert that a call changed more documents than it may: more were there than were counted."""
        most, changed = todo.most_affected, result.documents
        if most is None or changed is None or changed <= most:
            return
        self._ports.metrics.exceeded("max_affected")
        if turn.intended is not None:
            turn.intended = {**turn.intended, "excess": {"max_affected": most}}
        if self._ports.log is not None:
            facts: JsonObject = {"request_id": turn.request_id, "tool": turn.tool, "server": turn.server}
            self._ports.log.exceeded({**facts, "max_affected": most, "changed": changed})
