"""Which tools a caller may see: what the platform leaves open to them, and of that what some grant could still allow.

Two questions and one partial evaluation, of which only the first is asked every time. The first (``possible`` unknown)
says what the platform's tables leave open at this moment, and under which revision. What partial evaluation of the
teams' grants adds depends on the caller and the policies only, so it is kept under both. Where it cannot be had,
because OPA does not offer it, a policy is too large for it or a team's policy fails, the first answer stands: the list
errs on showing, and a call is decided anyway.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sidecar import compact_json
from sidecar.bounded import BoundedMemory
from sidecar.commands import CATALOG, NO_GENERIC_TOOLS, GenericTools
from sidecar.errors import DecisionUnavailable
from sidecar.model import AccessKind, Identity, JsonObject, JsonValue, RequestContext, VisibleTools
from sidecar.policy import (
    ToolKinds,
    listing_document,
    possible_document,
    read_residual,
    read_visibility,
    residual_document,
    tools_document,
)
from sidecar.ports import Clock, PdpAnswer, Question

Ask = Callable[[Question, JsonObject], Awaitable[PdpAnswer]]

MAX_CALLERS: Final = 1024
"""Callers whose list is kept; the one that was made first goes first."""

MAX_POSSIBLE: Final = 1024
"""Different ways to a grant that are looked at; with more, every delegation counts as granted."""

KEPT_S: Final = 300.0
"""How long a list stands under one revision: an external OPA may change its data under the same revision."""

UNNAMED_S: Final = 1.0
"""How long a list stands where OPA names no revision, so that a change of policy cannot be seen."""

RETRY_S: Final = 5.0
"""How long nothing is asked again after partial evaluation failed: a policy that hangs must not hang every list."""

TOOLS: Final = {name: ToolKinds(needs=tool.needs, may_need=tool.may_need) for name, tool in CATALOG.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _VisibleBefore:
    """What partial evaluation said of one caller under one revision."""

    revision: str
    until: float
    tools: frozenset[str] | None
    """None: it failed; everything that the platform leaves open is shown."""


class Visibility:
    """Answers which tools show; its state is what is known of recent callers.

    Args:
        ask: asks the decision point.
        clock: says how old what is known is.
        servers: the names of the configured MCP server instances.
        step_ns: nanoseconds that the time in questions is truncated to.
        generic: the tools outside of the catalog that there are.
    """

    def __init__(
        self,
        ask: Ask,
        clock: Clock,
        servers: Collection[str],
        step_ns: int,
        generic: GenericTools = NO_GENERIC_TOOLS,
    ) -> None:
        self._ask = ask
        self._clock = clock
        executed = frozenset({AccessKind.EXECUTE})
        tools = TOOLS | {name: ToolKinds(needs=executed, target=tool.target) for name, tool in generic.items()}
        self._tools = tools_document(tools)
        self._held_to = (frozenset(tools), frozenset(servers))
        self._step_ns = step_ns
        self._known: BoundedMemory[bytes, _VisibleBefore] = BoundedMemory(MAX_CALLERS)

    def forget(self) -> None:
        """Forget what is known of every caller."""
        self._known.clear()

    async def of(self, identity: Identity, context: RequestContext) -> VisibleTools:
        """Return what this caller may see.

        Raises:
            DecisionUnavailable: it cannot be told.
        """
        open_now, revision = await self._visible(identity, context, None)
        if not open_now.tools:
            return open_now
        caller = residual_document(identity)
        key = sha256(compact_json.encode(caller)).digest()
        known = self._known.get(key)
        if known is None or known.revision != revision or known.until <= self._clock.monotonic():
            known = await self._look(identity, context, caller, revision)
            self._known.put(key, known)
        if known.tools is None:
            return open_now
        return VisibleTools(tools=open_now.tools & known.tools, servers=open_now.servers)

    async def _look(
        self, identity: Identity, context: RequestContext, caller: JsonObject, revision: str
    ) -> _VisibleBefore:
        """Ask what some grant could still allow; what cannot be told hides nothing."""
        tools, kept = None, RETRY_S
        try:
            grants = possible_document(read_residual((await self._ask(Question.RESIDUAL, caller)).result))
            if len(grants) <= MAX_POSSIBLE:
                visible, answered = await self._visible(identity, context, grants)
                # A policy set that changed meanwhile gave one half of the answer: neither half is kept.
                kept = (KEPT_S if revision else UNNAMED_S) if answered == revision else 0.0
                tools = visible.tools if answered == revision else None
        except DecisionUnavailable:
            tools = None
        return _VisibleBefore(revision=revision, until=self._clock.monotonic() + kept, tools=tools)

    async def _visible(
        self, identity: Identity, context: RequestContext, possible: list[JsonValue] | None
    ) -> tuple[VisibleTools, str]:
        """Return what shows and the revision that says so."""
        question = listing_document(identity, context, self._tools, possible, self._step_ns)
        answer = await self._ask(Question.VISIBILITY, question)
        visible = answer.lists.get(self._held_to)
        if visible is None:
            tools, servers = self._held_to
            visible = answer.lists[self._held_to] = read_visibility(answer.result, tools=tools, servers=servers)
        return visible, answer.revision
