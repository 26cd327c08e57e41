"""Which names of a list a caller's grants reach: every name that is shown was allowed in some use, by OPA, just now.

A tool on a list is harmless, a name is a disclosure; so here, other than in ``visibility``, what cannot be told hides.
OPA is asked its ordinary question about single uses of each name, with the policies that decide calls. Which
collections of a database to ask about comes from partial evaluation, and only adds questions: nothing shows because of
it alone.

A name counts as reached only on the server that listed it: the same name on another deployment may be another team's.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final

from sidecar.enforcement.shadow import read_answer
from sidecar.enforcement.turn import Turn
from sidecar.enforcement.visibility import Ask
from sidecar.errors import DecisionUnavailable, UpstreamProtocolViolation
from sidecar.faults import PdpFault
from sidecar.model import (
    Access,
    AccessKind,
    AccessRequest,
    Command,
    Identity,
    JsonValue,
    Namespace,
    RequestContext,
    UpstreamResult,
)
from sidecar.obligations import failed_list, read_names
from sidecar.policy import PossibleGrant, decision_document, read_residual, residual_document
from sidecar.ports import Question

KINDS: Final = (
    AccessKind.METADATA,
    AccessKind.READ,
    AccessKind.INSERT,
    AccessKind.UPDATE,
    AccessKind.DELETE,
    AccessKind.CREATE,
    AccessKind.INDEX,
    AccessKind.DROP,
    AccessKind.EXPORT,
)
"""The uses of a name that make it one of the caller's; the likely ones first."""

ALWAYS: Final = frozenset({AccessKind.METADATA, AccessKind.READ})
"""What is asked of every database; partial evaluation does not speak of what the platform itself grants."""

ASKED_AT_ONCE: Final = 128
"""Accesses of one question; policy takes 256."""

MAX_QUESTIONS: Final = 256
"""Questions to OPA for one list; a list that takes more is refused."""

MAX_COLLECTIONS: Final = 64
"""Collections of one database that are asked about."""

_ANY: Final = "x"
"""Stands for what a glob leaves open."""

_VIA: Final = "/name"


async def cut_down(
    answer: UpstreamResult, turn: Turn, names: "ReachableNames", context: RequestContext
) -> UpstreamResult:
    """Cut a list of names down to those that the caller reaches; what cannot be cut down is withheld.

    Raises:
        UpstreamProtocolViolation: the result has a form that is not known.
        DecisionUnavailable: it cannot be told what the caller may see.
    """
    if answer.failed:
        return replace(answer, result=failed_list())
    if turn.named is None or turn.call is None:
        raise UpstreamProtocolViolation("a result of no call")
    tool, database = turn.call.name, turn.named.accesses[0].namespace.database
    listed = read_names(answer.result, tool, database)
    shown = await names.of(listed.names, turn.identity, context, tool=tool, server=turn.server, database=database)
    return replace(answer, result=listed.only(shown))


class _Listing:
    """One list of one caller while it is looked at; its state is the questions that are left."""

    def __init__(
        self, ask: Ask, identity: Identity, context: RequestContext, *, tool: str, server: str, step_ns: int
    ) -> None:
        self._ask = ask
        self._identity = identity
        self._context = context
        self._tool = tool
        self._server = server
        self._step_ns = step_ns
        self._left = MAX_QUESTIONS

    async def ways(self) -> tuple[PossibleGrant, ...] | None:
        """Return what the owners could grant this caller; None where that cannot be told."""
        try:
            return read_residual((await self._ask(Question.RESIDUAL, residual_document(self._identity))).result)
        except DecisionUnavailable:
            return None

    async def allowed(self, kind: AccessKind, namespaces: Sequence[Namespace]) -> frozenset[Namespace]:
        """Return those of the namespaces on which the kind is allowed.

        Raises:
            DecisionUnavailable: it cannot be told, or takes too many questions.
        """
        found: set[Namespace] = set()
        for first in range(0, len(namespaces), ASKED_AT_ONCE):
            found |= await self._part(kind, namespaces[first : first + ASKED_AT_ONCE])
        return frozenset(found)

    async def _part(self, kind: AccessKind, namespaces: Sequence[Namespace]) -> set[Namespace]:
        """Ask one question, or two about its halves where OPA cannot evaluate it.

        A team whose policy fails makes a question about its own database fail; the names of the others still show.
        """
        try:
            return await self._question(kind, namespaces)
        except DecisionUnavailable as error:
            if error.fault is not PdpFault.STATUS:
                raise
            half = len(namespaces) // 2
            if not half:
                return set()
            return await self._part(kind, namespaces[:half]) | await self._part(kind, namespaces[half:])

    async def _question(self, kind: AccessKind, namespaces: Sequence[Namespace]) -> set[Namespace]:
        if not self._left:
            raise DecisionUnavailable("a list of names takes too many questions", fault=PdpFault.OVERLOADED)
        self._left -= 1
        accesses = tuple(Access(kind=kind, namespace=namespace, via=_VIA) for namespace in namespaces)
        request = AccessRequest(
            identity=self._identity,
            method="tools/call",
            command=Command(tool=self._tool, accesses=accesses),
            context=self._context,
        )
        answer = await self._ask(Question.DECISION, decision_document(request, step_ns=self._step_ns))
        # Another server than this one would be another deployment's word; what it would say is not looked at.
        servers = {str(answer.result.get("server"))} if isinstance(answer.result, dict) else set()
        decision = read_answer(answer, accesses=len(accesses), servers=servers)
        if decision.server != self._server or len(decision.accesses) != len(accesses):
            return set()
        refused = {reason.access for reason in decision.reasons}
        if None in refused:
            return set()
        return {
            namespace
            for index, (namespace, verdict) in enumerate(zip(namespaces, decision.accesses, strict=True))
            if index not in refused and verdict.owner and verdict.grants
        }


class ReachableNames:
    """Answers which names of a list to show.

    Args:
        ask: asks the decision point.
        step_ns: nanoseconds that the time in questions is truncated to.
    """

    def __init__(self, ask: Ask, *, step_ns: int) -> None:
        self._ask = ask
        self._step_ns = step_ns

    async def of(
        self,
        names: Collection[str],
        identity: Identity,
        context: RequestContext,
        *,
        tool: str,
        server: str,
        database: str,
    ) -> frozenset[str]:
        """Return the names to show.

        Args:
            names: collections of ``database``, or databases where that is empty.
            identity: who asks.
            context: what is true of the request.
            tool: the tool that lists them.
            server: the instance that listed them.
            database: what the call named.

        Raises:
            DecisionUnavailable: it cannot be told.
        """
        listing = _Listing(self._ask, identity, context, tool=tool, server=server, step_ns=self._step_ns)
        ways = None if database else await listing.ways()
        shown: set[str] = set()
        for kind in KINDS:
            hidden = [name for name in dict.fromkeys(names) if name not in shown]
            if database:
                asked = [Namespace(database=database, collection=name) for name in hidden]
            else:
                asked = [
                    Namespace(database=name, collection=collection)
                    for name in hidden
                    for collection in _collections(name, kind, ways)
                ]
            for allowed in await listing.allowed(kind, asked):
                shown.add(allowed.collection if database else allowed.database)
        return frozenset(shown)


def _collections(database: str, kind: AccessKind, ways: Sequence[PossibleGrant] | None) -> list[str]:
    """Return the collections of a database that it is worth asking about; the empty name is the database itself."""
    if ways is None:
        return ["", _ANY]
    found = dict.fromkeys(["", _ANY] if kind in ALWAYS else [])
    for way in ways:
        if way.kinds is not None and kind.value not in way.kinds:
            continue
        if way.databases is not None and database not in way.databases:
            continue
        if way.collections is not None:
            found.update(dict.fromkeys(sorted(way.collections)))
        else:
            found.update(dict.fromkeys(["", _ANY]))
            found.update(dict.fromkeys(text.replace("*", _ANY).replace("?", _ANY) for text in _texts(way.conditions)))
    return [*found][:MAX_COLLECTIONS]


def _texts(terms: Sequence[JsonValue]) -> Iterator[str]:
    """Return the constants in conditions of OPA's syntax tree: patterns of collections are among them."""
    waiting = [*terms]
    while waiting:
        match waiting.pop():
            case {"type": "string", "value": str(text)} if text:
                yield text
            case {"type": "ref", "value": [*_]}:
                continue
            case dict(members):
                waiting.extend(members.values())
            case list(members):
                waiting.extend(members)
            case _:
                continue
