"""From the validated question to the input document that OPA sees.

The document is a pure value: no request or session ids, no argument values, time truncated to a step. So the same
question under the same policy revision is the same decision, which is what replay and golden cases stand on. Its form
is ``policies/schema/input.json`` (and ``visibility.json``); the tests hold both sides to it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sidecar.errors import DecisionUnavailable
from sidecar.model import (
    Access,
    AccessKind,
    AccessRequest,
    Actor,
    Command,
    Identity,
    JsonObject,
    JsonValue,
    Principal,
    RequestContext,
    Target,
    Trait,
)

VERSION = 1
"""The version of both sides of the contract; a document of another version is not understood."""

STEP_NS = 1_000_000_000
"""One second: the step that time is truncated to, unless configured otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolKinds:
    """The kinds of access that the calls of one tool have."""

    needs: frozenset[AccessKind] = frozenset()
    """What every call needs."""
    may_need: frozenset[AccessKind] = frozenset()
    """What some calls need besides."""
    target: Target | None = None
    """What every call is about, and nothing else, where there is such a thing."""

    def document(self) -> JsonObject:
        """Render it; ``target`` only where there is one."""
        document: JsonObject = {"needs": _ordered(self.needs), "may_need": _ordered(self.may_need)}
        if self.target is not None:
            document["target"] = {"kind": self.target.kind.value, "id": self.target.id}
        return document


def decision_document(request: AccessRequest, *, step_ns: int = STEP_NS) -> JsonObject:
    """Render the question whether one call may happen.

    Args:
        request: the whole question, already validated.
        step_ns: nanoseconds that ``context.time_ns`` is truncated to.

    Raises:
        DecisionUnavailable: an access has a namespace and a target; there is no one question about it.
    """
    return {
        "v": VERSION,
        "subject": subject_document(request.identity.principal),
        "actor": actor_document(request.identity.actor),
        "action": {"method": request.method, "tool": request.command.tool},
        "accesses": [_access(access) for access in request.command.accesses],
        "command": _command(request.command),
        "context": context_document(request.context, step_ns),
    }


def visibility_document(
    identity: Identity,
    context: RequestContext,
    tools: Mapping[str, ToolKinds],
    *,
    possible: list[JsonValue] | None = None,
    step_ns: int = STEP_NS,
) -> JsonObject:
    """Render the question which of these tools a caller may see.

    Args:
        identity: who asks.
        context: what is true of the request.
        tools: the kinds of access that the calls of each tool have.
        possible: what the owners could grant this caller (``residual.possible_document``); None where that is not
            known, and then everything that is delegated counts as granted.
        step_ns: nanoseconds that ``context.time_ns`` is truncated to.
    """
    return listing_document(identity, context, tools_document(tools), possible, step_ns)


def tools_document(tools: Mapping[str, ToolKinds]) -> JsonObject:
    """Render the tools of such a question, which are the same in each."""
    return {name: kinds.document() for name, kinds in sorted(tools.items())}


def listing_document(
    identity: Identity, context: RequestContext, tools: JsonObject, possible: list[JsonValue] | None, step_ns: int
) -> JsonObject:
    """Render the same question, of tools that are rendered."""
    return {
        "v": VERSION,
        "subject": subject_document(identity.principal),
        "actor": actor_document(identity.actor),
        "action": {"method": "tools/list"},
        "tools": tools,
        "possible": possible,
        "context": context_document(context, step_ns),
    }


def command_document(command: Command) -> JsonObject:
    """Render a command as people and policies read it: its tool, its accesses, and what else is known of it."""
    return {"tool": command.tool, "accesses": [_access(access) for access in command.accesses], **_command(command)}


def subject_document(principal: Principal) -> JsonObject:
    """Render who the token speaks for; ``several_issuers`` is a key only where there are."""
    document: JsonObject = {
        "type": principal.kind.value,
        "id": principal.subject,
        "issuer": principal.issuer,
        "groups": list(principal.groups),
        "roles": list(principal.roles),
        "scopes": list(principal.scopes),
        "claims": dict(principal.claims),
    }
    if principal.several_issuers:
        document["several_issuers"] = True
    return document


def actor_document(actor: Actor) -> JsonObject:
    """Render who acts."""
    return {"type": "agent", "id": actor.id, "chain": list(actor.chain)}


def asker(document: JsonObject) -> tuple[str, str]:
    """Return the user on whose behalf a question is asked, by issuer and id; empty texts where there is none."""
    match document.get("subject"):
        case {"issuer": str(issuer), "id": str(subject)}:
            return issuer, subject
        case _:
            return "", ""


def _access(access: Access) -> JsonObject:
    """Render one access as ``Access.document`` does."""
    if access.target is not None and access.namespace.database:
        raise DecisionUnavailable("an access has a namespace or a target, never both")
    return access.document()


def _command(command: Command) -> JsonObject:
    """Render what a command does; ``amplifiers`` and ``arguments`` are keys only where there are any."""
    returned = command.fields.returned
    document: JsonObject = {
        "traits": _ordered(command.traits),
        "stages": list(command.stages),
        "fields": {
            "filtered": list(command.fields.filtered),
            "returned": "all" if returned is None else list(returned),
        },
        "limit": command.limit,
    }
    if command.amplifiers:
        document["amplifiers"] = [
            {"construct": one.construct, "number": one.number, "at": one.at} for one in command.amplifiers
        ]
    if command.arguments:
        document["arguments"] = dict(command.arguments)
    return document


def _ordered(values: Collection[AccessKind] | Collection[Trait]) -> list[JsonValue]:
    """Each once and in one order, so that equal questions are equal documents."""
    return [*sorted({value.value for value in values})]


def context_document(context: RequestContext, step_ns: int) -> JsonObject:
    """Render what is true of the request; its time is truncated to ``step_ns``."""
    return {
        "time_ns": context.time_ns - context.time_ns % step_ns,
        "client_ip": context.client_ip,
        "protocol": context.protocol,
        "environment": context.environment,
        "approval": None,
    }
