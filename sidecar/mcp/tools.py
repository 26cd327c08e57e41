"""The parameters and results of ``initialize``, ``tools/list`` and ``tools/call``, and the wording of refusals.

Parameters are read strictly: a key that MCP does not define is refused, because a key that is ignored here might not be
ignored by a later reader. Results are built here and nowhere else.

What does not live here: the tools themselves and their arguments (``sidecar.commands``).
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from sidecar.errors import InvalidParams
from sidecar.mcp.jsonrpc import encode
from sidecar.mcp.revision import Revision
from sidecar.model import Access, AccessKind, JsonObject, JsonValue, Namespace, Reason, TargetKind, ToolCall

SERVER_NAME: Final = "mcp-sidecar"

DECISION_KEY: Final = "mcp-sidecar/decision"
"""Where a refusal carries its machine-readable half. One label and a name: a valid key and not a reserved one, since no
label of the prefix is ``mcp`` or ``modelcontextprotocol`` (MCP 2025-06-18 and 2025-11-25, basic, _meta)."""

MAX_TOOL_NAME_CHARACTERS: Final = 128
"""Length of a tool's name (MCP 2025-11-25, tools, tool names: 1 to 128)."""

MAX_CLIENT_CHARACTERS: Final = 128
"""Length of a client's self-reported name, and of its version."""

_CALL_KEYS: Final = frozenset({"name", "arguments", "_meta"})

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context level 1, section 3.2: version ff and all-zero ids are invalid."""


def parse_call(params: JsonObject) -> ToolCall:
    """Return the call. What is in ``_meta`` is dropped: the call that is forwarded is the call that was decided.

    Raises:
        InvalidParams: not of the form; ``task`` (2025-11-25, experimental), ``inputResponses`` and ``requestState``
            (2026-07-28) count as unknown, for each is another way to a result than the one that is enforced.
    """
    if not _CALL_KEYS.issuperset(params):
        raise InvalidParams("an unknown key beside name and arguments")
    name = params.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_TOOL_NAME_CHARACTERS:
        raise InvalidParams("name is not a tool's name")
    arguments = params.get("arguments", {})
    if not isinstance(arguments, dict):
        raise InvalidParams("arguments is not an object")
    _check_meta(params)
    return ToolCall(name=name, arguments=arguments)


def check_list_params(params: JsonObject) -> None:
    """Return if these are parameters of ``tools/list``.

    Raises:
        InvalidParams: not of the form, or a cursor: the sidecar never issues one (MCP 2025-11-25, pagination: an
            invalid cursor is -32602).
    """
    if not params.keys() <= {"_meta"}:
        raise InvalidParams("a cursor that was never issued, or an unknown key")
    _check_meta(params)


def parse_initialize(params: JsonObject) -> tuple[JsonValue, str]:
    """Return the requested revision, unchecked, and the client's self-reported name.

    Its version, which MCP requires, is checked and goes nowhere. Other keys are not looked at and go nowhere: the
    sidecar's own handshake with the server is separate.

    Raises:
        InvalidParams: ``clientInfo`` or ``capabilities`` is missing or not of the form.
    """
    client = params.get("clientInfo")
    if not isinstance(client, dict) or not isinstance(params.get("capabilities"), dict):
        raise InvalidParams("clientInfo and capabilities are objects")
    _label(client.get("version"))
    return params.get("protocolVersion"), _label(client.get("name"))


def _label(value: JsonValue) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CLIENT_CHARACTERS or not value.isprintable():
        raise InvalidParams("clientInfo has a name and a version of printable characters")
    return value


def traceparent(params: JsonObject) -> str | None:
    """Return the remote parent of the trace, if a well-formed one is in ``params._meta`` (SEP-414).

    Never raises: a malformed one counts as none (W3C Trace Context, section 4.3), and the parameters of a message that
    will be refused have a trace too.
    """
    meta = params.get("_meta")
    value = meta.get("traceparent") if isinstance(meta, dict) else None
    return value if isinstance(value, str) and _TRACEPARENT.fullmatch(value) else None


def _check_meta(params: JsonObject) -> None:
    if not isinstance(params.get("_meta", {}), dict):
        raise InvalidParams("_meta is not an object")


def initialize_result(revision: Revision, server_version: str, instructions: str | None) -> JsonObject:
    """Return the result of ``initialize``; only tools are offered."""
    result: JsonObject = {
        "protocolVersion": revision.value,
        "capabilities": {"tools": {"listChanged": True}},
        "serverInfo": {"name": SERVER_NAME, "version": server_version},
    }
    if instructions:
        result["instructions"] = instructions
    return result


def tools_list_result(tools: Sequence[JsonObject]) -> bytes:
    """Return the JSON text of a ``tools/list`` result: all of ``tools``, in their order, on one page."""
    return encode({"tools": list(tools)})


def denial(text: str, decision: JsonObject) -> bytes:
    """Return the JSON text of the tool result that a refused call gets.

    Args:
        text: one sentence for the model (``explain``).
        decision: the machine-readable half; its form is fixed by the project's contract.
    """
    return encode(
        {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {DECISION_KEY: decision}},
    )


def unreadable(message: str, path: str) -> str:
    """Return the sentence for a call that was refused before policy: what is wrong, and where in the call.

    Args:
        message: what is wrong, one sentence.
        path: JSON pointer into the params; left out of the sentence where it is empty, long, or not for the eye.
    """
    if not path or len(path) > _MAX_NAME_CHARACTERS or not path.isprintable():
        return f"Refused: {message}"
    return f"Refused: {message} (at {path})"


class _Phrase(NamedTuple):
    """A refusal in words. ``{what}`` becomes the accesses, ``{team}`` the owners; ``advice`` follows a semicolon."""

    text: str
    advice: str = ""


_ASK = "{remedy}ask {team}"
_PLATFORM = "ask the platform team"
_RETRY = "nothing was done, try again shortly"

_PHRASES: Final[Mapping[str, _Phrase]] = MappingProxyType(
    {
        "decision_unavailable": _Phrase("the policy decision point is not available", _RETRY),
        "audit_unavailable": _Phrase("the audit store is not available", _RETRY),
        "invalid_input": _Phrase("this call could not be put to policy", "report it to the platform team"),
        "platform_data_invalid": _Phrase("the platform's policy data is broken", "report it to the platform team"),
        "suspended": _Phrase("this user or agent is suspended", _PLATFORM),
        "system_namespace": _Phrase("{what} is closed to every agent, because it belongs to MongoDB itself"),
        "kind_refused": _Phrase("{what} is closed to every agent"),
        "trait_refused": _Phrase("this call does something that is closed to you", "rewrite it in a plainer way"),
        "scope_missing": _Phrase("{what} is not covered by the token's scope", "sign in with more scope"),
        "agent_ceiling": _Phrase("{what} is more than this agent may do", _PLATFORM),
        "team_policy_error": _Phrase("{what} could not be decided by the policy of {team}", "tell {team}"),
        "team_denied": _Phrase("{what} is forbidden by {team}", _ASK),
        "no_owner": _Phrase("{what} cannot be granted, because no team owns the data", _PLATFORM),
        "not_delegated": _Phrase("{what} is more than {team} may grant", _PLATFORM),
        "not_granted": _Phrase("{what} is not granted to you by {team}", _ASK),
        "outside_window": _Phrase("{what} is closed at this hour", "try again later"),
        "no_route": _Phrase("no server is open to you for this call", _PLATFORM),
        "approval_required": _Phrase("{what} needs an approval first", "ask {team} for one"),
        "obligation_unsupported": _Phrase(
            "{what} is allowed only under a condition that cannot be applied to this call",
            "use a plain find or aggregate",
        ),
    }
)
"""Reason code to words, the most decisive first. The codes are those of policies/schema/reasons.json and of
``sidecar.errors``; the words are constant, so that no text of a policy, a claim or another caller's data can reach a
reply."""

_UNKNOWN: Final = _Phrase("policy does not allow {what}", _ASK)

_DOING: Final[Mapping[AccessKind, str]] = MappingProxyType(
    {
        AccessKind.READ: "reading",
        AccessKind.METADATA: "reading the metadata of",
        AccessKind.INSERT: "inserting into",
        AccessKind.UPDATE: "updating",
        AccessKind.DELETE: "deleting from",
        AccessKind.CREATE: "creating",
        AccessKind.DROP: "dropping",
        AccessKind.INDEX: "changing the indexes of",
        AccessKind.ADMIN: "administering",
        AccessKind.CONNECT: "connecting to",
        AccessKind.EXPORT: "exporting",
        AccessKind.EXTERNAL: "sending data to an outside service from",
        AccessKind.EXECUTE: "running code in",
    }
)

_TARGETS: Final[Mapping[TargetKind, str]] = MappingProxyType(
    {
        TargetKind.ORGANISATION: "that Atlas organisation",
        TargetKind.PROJECT: "that Atlas project",
        TargetKind.CLUSTER: "that Atlas cluster",
        TargetKind.DEPLOYMENT: "that deployment",
        TargetKind.SERVICE: "that service",
    }
)

_REMOVABLE: Final = ("$lookup", "$graphLookup", "$unionWith", "$out", "$merge")
"""Stages that reach into a namespace of their own: without the stage, the rest of the call may stand."""

_MAX_NAMED = 3
"""Accesses that one sentence names."""

_MAX_NAME_CHARACTERS = 120
"""A longer namespace is not repeated (MongoDB itself stops at 255 bytes)."""

_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def decisive(reasons: Sequence[Reason]) -> str:
    """Return the code of the reason that a refusal is explained by, or an empty string where there is none."""
    codes = {reason.code for reason in reasons}
    return next((known for known in _PHRASES if known in codes), reasons[0].code if reasons else "")


def explain(reasons: Sequence[Reason], accesses: Sequence[Access], owners: Sequence[str]) -> str:
    """Return one sentence that a model can act on: what was refused, and who can change that.

    It speaks of the most decisive reason, and of every access that has the same one. It names no namespace that the
    caller did not name: what lies behind a view is called by the view.

    Args:
        reasons: why not; none is worded as an unknown reason.
        accesses: the command's, in the order that ``Reason.access`` counts in; none if it was never derived.
        owners: the owning team of each access, in the same order (empty string where there is none), or
            ``Decision.owners``.
    """
    code = decisive(reasons)
    indices = dict.fromkeys(reason.access for reason in reasons if reason.code == code)
    failed = [index for index in indices if index is not None and 0 <= index < len(accesses)]
    phrase = _PHRASES.get(code, _UNKNOWN)
    words = {
        "what": _what([accesses[index] for index in failed]),
        "team": _team(failed, owners, len(accesses)),
        "remedy": _remedy([accesses[index] for index in failed]),
    }
    advice = f"; {phrase.advice.format_map(words)}" if phrase.advice else ""
    return f"Refused: {phrase.text.format_map(words)}{advice}."


def _what(failed: Sequence[Access]) -> str:
    """Word the accesses, each once; "this call" where the reason is about the whole call."""
    named = list(dict.fromkeys(f"{_DOING[access.kind]} {_object(access)}" for access in failed))
    if not named:
        return "this call"
    more = len(named) - _MAX_NAMED
    return " and ".join(named[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _object(access: Access) -> str:
    if access.target is not None:
        return _TARGETS[access.target.kind]
    return _namespace(access.via_view or access.namespace)


def _namespace(namespace: Namespace) -> str:
    if not namespace.database:
        return "the deployment"
    name = f"{namespace.database}.{namespace.collection}" if namespace.collection else namespace.database
    if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        return "that collection" if namespace.collection else "that database"
    return name if namespace.collection else f"database {name}"


def _team(failed: Sequence[int], owners: Sequence[str], accesses: int) -> str:
    """Word the owners of the failed accesses.

    A list as long as the accesses is in their order; a shorter one (``Decision.owners``: each team once) says whose the
    access is only if it has one entry.
    """
    if len(owners) == accesses:
        candidates = [owners[index] for index in failed] or list(owners)
    else:
        candidates = list(owners) if len(owners) == 1 else []
    teams = list(dict.fromkeys(team for team in candidates if _TEAM.fullmatch(team)))
    return " and ".join(f"team {team}" for team in teams[:_MAX_NAMED]) or "the owning team"


def _remedy(failed: Sequence[Access]) -> str:
    """Name the one stage without which the call would not make the failed accesses, if all share it."""
    stages = {next((stage for stage in _REMOVABLE if stage in access.via.split("/")), "") for access in failed}
    return f"remove that {stages.pop()} or " if len(stages) == 1 and "" not in stages else ""
