"""The wording of denials: one sentence that a model can act on, and the tool result that carries it."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from sidecar.mcp.jsonrpc import encode
from sidecar.model import Access, AccessKind, JsonObject, Namespace, Reason, TargetKind
from sidecar.usage import LimitReached, UsagePart

DECISION_KEY: Final = "mcp-sidecar/decision"
"""Where a refusal carries its machine-readable half. One label and a name: a valid key and not a reserved one, since no
label of the prefix is ``mcp`` or ``modelcontextprotocol`` (MCP 2025-06-18 and 2025-11-25, basic, _meta)."""


STEP_UP_KEY: Final = "mcp-sidecar/step-up"
"""Where the refusal of a call that only lacks scopes says which, as the challenge of an HTTP 403 does."""


def denial(text: str, meta: JsonObject) -> bytes:
    """Return the JSON text of the tool result that a refused call gets.

    Args:
        text: one sentence for the model (``explain``).
        meta: the machine-readable half, under ``DECISION_KEY`` and ``STEP_UP_KEY``; its form is fixed by the
            project's contract.
    """
    return encode({"content": [{"type": "text", "text": text}], "isError": True, "_meta": meta})


def unreadable(message: str, path: str) -> str:
    """Return the sentence for a call that was refused before policy: what is wrong, and where in the call.

    Args:
        message: what is wrong, one sentence.
        path: JSON pointer into the params; left out of the sentence where it is empty, long, or not for the eye.
    """
    if not path or len(path) > _MAX_NAME_CHARACTERS or not path.isprintable():
        return f"Refused: {message}"
    return f"Refused: {message} (at {path})"


def used_up(reached: LimitReached) -> str:
    """Return the sentence for a call over a limit: which, how much there is, whose, and when it is free again."""
    limit = reached.limit
    whose = [_APART[part].format(team=limit.team) for part in UsagePart if part in limit.per]
    free_at = datetime.fromtimestamp(reached.free_at, UTC)
    return (
        f"Refused: the limit {limit.id} is used up ({reached.most} {reached.unit} in {limit.window_s} seconds for "
        f"{' and '.join(whose) or 'all callers together'}); nothing was done. It is free again in {reached.wait_s} "
        f"seconds, at {free_at:%Y-%m-%dT%H:%M:%SZ}; wait until then, or ask the platform team for more."
    )


def later(seconds: int) -> str:
    """Return the sentence for a call that could not be decided in time, because too much is being asked."""
    return (
        "Refused: more is being asked than can be decided in time; nothing was done. Make the same call again in "
        f"{seconds} second{'' if seconds == 1 else 's'}."
    )


_APART: Final[Mapping[UsagePart, str]] = MappingProxyType(
    {
        UsagePart.SUBJECT: "each user",
        UsagePart.AGENT: "each agent",
        UsagePart.TOOL: "each tool",
        UsagePart.TEAM: "the data of team {team}",
    }
)


class _Phrase(NamedTuple):
    """A refusal in words. ``{what}`` becomes the accesses, ``{team}`` the owners; ``advice`` follows a semicolon.

    ``{are}`` and ``{need}`` follow the number of accesses, and ``{conditions}`` says under which an allow stands.
    """

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
        "system_namespace": _Phrase("{what} {are} closed to every agent, because it belongs to MongoDB itself"),
        "kind_refused": _Phrase("{what} {are} closed to every agent"),
        "trait_refused": _Phrase("this call does something that is closed to you", "rewrite it in a plainer way"),
        "insufficient_scope": _Phrase("{what} {need} a token that also has {scopes}", "sign in again with more scope"),
        "scope_missing": _Phrase("{what} {are} not covered by the token's scope", "sign in with more scope"),
        "agent_ceiling": _Phrase("{what} {are} more than this agent may do", _PLATFORM),
        "team_policy_error": _Phrase("{what} could not be decided by the policy of {team}", "tell {team}"),
        "team_denied": _Phrase("{what} {are} forbidden by {team}", _ASK),
        "no_owner": _Phrase("{what} cannot be granted, because no team owns the data", _PLATFORM),
        "not_delegated": _Phrase("{what} {are} more than {team} may grant", _PLATFORM),
        "not_granted": _Phrase("{what} {are} not granted to you by {team}", _ASK),
        "outside_window": _Phrase("{what} {are} closed at this hour", "try again later"),
        "no_route": _Phrase("no server is open to you for this call", _PLATFORM),
        "approval_required": _Phrase("{what} {need} an approval first", "ask {team} for one"),
        "obligation_unsupported": _Phrase(
            "{what} {are} allowed by {team} only {conditions}, which cannot be applied to this call{because}",
            _ASK,
        ),
    }
)
"""Reason code to words, the most decisive first. The codes are those of policies/schema/reasons.json and of
``sidecar.errors``; the words are constant, so that no text of a policy, a claim or another caller's data can reach a
reply."""

_UNKNOWN: Final = _Phrase("policy does not allow {what}", _ASK)

_BOUNDED: Final = (
    "Refused: this call asks for more than its input bounds; at most {bounds} here, each as a plain number and not as "
    "an expression or a field; ask for less."
)
"""The words for a reason with a bound. Both parts are the platform's: the name of what is counted, and a number."""

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

_DOING_TO_TARGET: Final[Mapping[AccessKind, str]] = MappingProxyType(
    {
        AccessKind.READ: "reading from",
        AccessKind.INSERT: "adding to",
        AccessKind.UPDATE: "changing",
        AccessKind.DELETE: "deleting from",
        AccessKind.CREATE: "creating something in",
        AccessKind.DROP: "removing something from",
        AccessKind.INDEX: "changing the indexes in",
        AccessKind.EXPORT: "exporting from",
        AccessKind.EXTERNAL: "sending data to",
        AccessKind.EXECUTE: "running code on",
    }
)
"""Kinds whose words for databases do not fit what is no database."""

_DOCUMENTS: Final = "$documents"
_FROM_DOCUMENTS: Final = "running a pipeline on documents of the call's own in"
"""What ``execute`` is where it comes of ``$documents``, which reads no namespace and runs no code of the caller's."""

_CONDITIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "filter": "for some documents",
        "mask": "without some fields",
        "max_documents": "up to a number of documents",
        "max_time_ms": "up to a time",
        "max_affected": "up to a number of changed documents",
        "max_bytes": "up to a size of the answer",
        "no_collection_scan": "where an index finds the documents",
        "approval": "after an approval",
        "names": "for the names within your reach",
    }
)
"""The obligations in words; the values are policy's own and may come of claims."""

_SOME_CONDITION: Final = "under a condition"

_NAMED: Final = frozenset({TargetKind.TOOL, TargetKind.PROMPT, TargetKind.RESOURCE, TargetKind.QUESTION})
"""Targets that are used as a whole."""

_TARGETS: Final[Mapping[TargetKind, str]] = MappingProxyType(
    {
        TargetKind.ORGANISATION: "that Atlas organisation",
        TargetKind.PROJECT: "that Atlas project",
        TargetKind.CLUSTER: "that Atlas cluster",
        TargetKind.DEPLOYMENT: "that deployment",
        TargetKind.SERVICE: "that service",
        TargetKind.TOOL: "that tool",
        TargetKind.PROMPT: "that prompt",
        TargetKind.RESOURCE: "that resource",
        TargetKind.QUESTION: "that kind of question",
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
    if not reasons:
        return ""
    codes = {reason.code for reason in reasons}
    return next((known for known in _PHRASES if known in codes), reasons[0].code)


def explain(
    reasons: Sequence[Reason],
    accesses: Sequence[Access],
    owners: Sequence[str],
    conditions: Sequence[str] = (),
    *,
    scopes: Sequence[str] = (),
    because: str = "",
) -> str:
    """Return one sentence that a model can act on: what was refused, and who can change that.

    It speaks of the most decisive reason, and of every access that has the same one. It names no namespace that the
    caller did not name: what lies behind a view is called by the view.

    Args:
        reasons: why not; none is worded as an unknown reason.
        accesses: the command's, in the order that ``Reason.access`` counts in; none if it was never derived.
        owners: the owning team of each access, in the same order (empty string where there is none), or
            ``Decision.owners``.
        conditions: the obligations that could not be met, where that is the reason (keys of the decision contract).
        scopes: those that the token lacks, where nothing else is missing; names of the platform's.
        because: the construct for which they could not be met, and what to change.
    """
    code = decisive(reasons)
    indices = dict.fromkeys(reason.access for reason in reasons if reason.code == code)
    failed = [index for index in indices if index is not None and 0 <= index < len(accesses)]
    phrase = _PHRASES.get(code, _UNKNOWN)
    exceeded = {reason.bound for reason in reasons if reason.code == code and reason.bound is not None}
    bounds = sorted(f"{bound.construct} {bound.most:.15g}" for bound in exceeded)
    if bounds:
        return _BOUNDED.format(bounds=", ".join(bounds[:_MAX_NAMED]))
    doing = _doing([accesses[index] for index in failed])
    said = [_CONDITIONS[condition] for condition in _CONDITIONS if condition in conditions]
    words = {
        "what": _what(doing),
        "are": "are" if len(doing) > 1 else "is",
        "need": "need" if len(doing) > 1 else "needs",
        "conditions": " and ".join(said) or _SOME_CONDITION,
        "because": f": {because}" if because else "",
        "scopes": f"the scope{'s' if len(scopes) > 1 else ''} {' and '.join(scopes)}",
        "team": _team(failed, owners, len(accesses)),
        "remedy": _remedy([accesses[index] for index in failed]),
    }
    advice = f"; {phrase.advice.format_map(words)}" if phrase.advice else ""
    return f"Refused: {phrase.text.format_map(words)}{advice}."


def confirmation(tool: str, accesses: Sequence[Access]) -> str:
    """Return what a user is asked about a call that policy wants confirmed."""
    return f"Policy asks you to confirm this call of {tool}: {_what(_doing(accesses))}. Go on?"


def waiting(approval_id: str, owners: Sequence[str], *, denied: bool, left_s: int) -> str:
    """Return the sentences for a call that waits for a second person, or was denied it.

    Args:
        approval_id: what the person needs to find the call.
        owners: the teams whose people can approve it.
        denied: an approver said no.
        left_s: for how long the answer stands.
    """
    team = " and ".join(f"team {one}" for one in owners[:_MAX_NAMED] if _TEAM.fullmatch(one)) or "the owning team"
    minutes = max(1, left_s // 60)
    if denied:
        return (
            f"Refused: a second person denied this call (approval {approval_id}). Do not repeat it: the same call is "
            f"refused for {minutes} minutes; ask {team}."
        )
    return (
        f"Refused for now: this call waits for a second person of {team} (approval {approval_id}). Tell the user to "
        f"ask them for it (mcp-sidecar approvals approve {approval_id}), and then make exactly the same call again; "
        f"it passes once. It waits for {minutes} minutes."
    )


def _doing(failed: Sequence[Access]) -> list[str]:
    """Word the accesses, each once."""
    return list(dict.fromkeys(f"{_verb(access)} {_object(access)}" for access in failed))


def _what(named: Sequence[str]) -> str:
    """Join the words of the accesses; "this call" where the reason is about the whole call."""
    if not named:
        return "this call"
    more = len(named) - _MAX_NAMED
    return " and ".join(named[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _verb(access: Access) -> str:
    if access.target is not None:
        if access.kind is AccessKind.EXECUTE and access.target.kind in _NAMED:
            return "using"
        return _DOING_TO_TARGET.get(access.kind, _DOING[access.kind])
    if access.kind is AccessKind.EXECUTE and access.via.rpartition("/")[2] == _DOCUMENTS:
        return _FROM_DOCUMENTS
    return _DOING[access.kind]


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
