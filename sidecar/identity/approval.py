"""A call that waits for the approval of a second person: what it is bound to, and who asked and who answered.

An approval is about one exact call: its binding is a digest of who calls through which agent, the server, the method,
the tool and the canonical arguments. The policy set that asked for the approval is bound too; under another one, the
call has to be approved again. It counts once, until it expires.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import ClassVar, Final

import msgspec

from sidecar.errors import AccessDenied, DependencyError, SidecarError
from sidecar.identity.suspension import CallerName, names_of
from sidecar.model import Identity, JsonObject, JsonValue

MOST_ARGUMENT_BYTES: Final = 16_384
"""Bytes of a call's arguments, as JSON, up to which it can wait for an approval: a person has to read them."""

_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")
_LONGEST: Final = 2_048
"""Characters of a name; those of tokens are shorter."""
_MOST_NAMES: Final = 64
_LATEST: Final = 2**40
"""Seconds since the epoch."""


class ApprovalState(StrEnum):
    """How far it is."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A person through a client, and every name under which an operator can suspend either."""

    issuer: str
    subject: str
    agent: str
    names: tuple[CallerName, ...]

    @classmethod
    def of(cls, identity: Identity, *more: CallerName) -> "Party":
        """Return the party that a token speaks for.

        Args:
            identity: the token's.
            more: further names, such as a session's.
        """
        issuer, subject, agent = identity.key
        return cls(issuer=issuer, subject=subject, agent=agent, names=(*names_of(identity), *more))

    def is_person(self, identity: Identity) -> bool:
        """Whether a token speaks for the same person, through whichever agent."""
        return (self.issuer, self.subject) == (identity.principal.issuer, identity.principal.subject)

    def document(self) -> JsonObject:
        """Render it as it is stored."""
        return {
            "issuer": self.issuer,
            "subject": self.subject,
            "agent": self.agent,
            "names": [[*name] for name in self.names],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One call that waits for an approval, or has one, or was denied it."""

    id: str
    """32 random hexadecimal digits."""
    binding: str
    """``binding_of`` the call."""
    state: ApprovalState
    requester: Party
    server: str
    method: str
    tool: str
    accesses: tuple[JsonObject, ...]
    """What the call touches, as records have it, each with its ``owner`` and whether it ``waits``."""
    arguments: JsonObject
    """The whole of them: nobody can judge a call that they cannot read."""
    arguments_sha256: str
    revision: str
    """The policy set that asked for the approval."""
    requested: int
    """Seconds since the epoch, as all moments here."""
    expires: int
    request_id: str
    """Of the call that was answered with the id."""
    trace_id: str
    approver: Party | None = None
    decided: int | None = None

    @property
    def waiting_accesses(self) -> list[JsonObject]:
        """The accesses that wait, as policy is asked about them."""
        beside = ("owner", "waits")
        return [
            {key: value for key, value in access.items() if key not in beside}
            for access in self.accesses
            if access.get("waits") is True
        ]

    @property
    def owners(self) -> tuple[str, ...]:
        """The teams whose people can approve it, each once."""
        return tuple(dict.fromkeys(str(one.get("owner", "")) for one in self.accesses if one.get("waits") is True))

    @property
    def parties(self) -> tuple[Party, ...]:
        """Whose suspension ends it."""
        return (self.requester,) if self.approver is None else (self.requester, self.approver)

    def over(self, now: float) -> bool:
        """Whether it counts no more; ``now`` in seconds since the epoch."""
        return self.expires <= now

    def concerns(self, name: CallerName) -> bool:
        """Whether the one who asked, or who decided, answers to a name."""
        return any(name in party.names for party in self.parties)

    def decided_by(self, approver: Party, state: ApprovalState, now: int, expires: int) -> "Approval":
        """Return it as it was decided."""
        return replace(self, approver=approver, state=state, decided=now, expires=expires)

    def document(self) -> JsonObject:
        """Render it as it is stored."""
        return {
            "id": self.id,
            "binding": self.binding,
            "state": self.state.value,
            "requester": self.requester.document(),
            "server": self.server,
            "method": self.method,
            "tool": self.tool,
            "accesses": [*self.accesses],
            # A text: arguments can have numbers that a store would change.
            "arguments": msgspec.json.encode(self.arguments).decode(),
            "arguments_sha256": self.arguments_sha256,
            "revision": self.revision,
            "requested": self.requested,
            "expires": self.expires,
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "approver": None if self.approver is None else self.approver.document(),
            "decided": self.decided,
        }


class ApprovalRequired(AccessDenied):
    """The call waits for the approval of a second person, or was denied it.

    Args:
        approval: what it waits for.
        now: seconds since the epoch.
        first: it is this call that asked for it.
    """

    label: ClassVar[str] = "approval_required"
    public: ClassVar[str] = "The call waits for the approval of a second person."

    def __init__(self, approval: Approval, now: float, *, first: bool = False) -> None:
        super().__init__(approval.id)
        self.approval = approval
        self.first = first
        self.left_s = max(0, round(approval.expires - now))


class TooManyApprovals(AccessDenied):
    """So many calls wait for an approval, of this caller or in all, that there is no place for one more."""

    label: ClassVar[str] = "too_many_approvals"
    public: ClassVar[str] = (
        "This call needs the approval of a second person, and too many calls wait for one already; nothing was done. "
        "Have those decided first."
    )


class ApprovalsUnavailable(DependencyError):
    """Which approvals there are cannot be read or kept, so none counts."""

    label: ClassVar[str] = "approvals_unavailable"
    public: ClassVar[str] = "Approvals cannot be read or kept at the moment; nothing was done. Try again shortly."


class ApprovalNotFound(SidecarError):
    """There is none of this id, or none that this person may approve; both are answered alike."""

    label: ClassVar[str] = "approval_not_found"
    public: ClassVar[str] = "There is no such approval, or it is not yours to give."
    code: ClassVar[int] = 1404


class ApprovalConflict(SidecarError):
    """It cannot be decided any more: another person did, or the policies that asked for it are no longer in force."""

    label: ClassVar[str] = "approval_conflict"
    public: ClassVar[str] = (
        "It was decided already, or the policies changed since the call was made; list again, or have the call made "
        "again."
    )
    code: ClassVar[int] = 1409


def binding_of(identity: Identity, server: str, method: str, tool: str, arguments_sha256: str) -> str:
    """Return 64 hexadecimal digits that stand for one exact call of one caller.

    Equal arguments, however they are spelled, are equal here (``sidecar.audit.record.arguments_digest``); values that
    MongoDB compares equal but that are written differently (``1`` and ``{"$numberInt": "1"}``) are not.
    """
    parts = ["approval", *identity.key, server, method, tool, arguments_sha256]
    return sha256(msgspec.json.encode(parts)).hexdigest()


def read_approval(document: JsonValue) -> Approval:
    """Read what ``Approval.document`` rendered.

    Raises:
        ValueError: it is not of that form.
    """
    if not isinstance(document, dict) or document.keys() != _FIELDS:
        raise ValueError("not an approval")
    arguments: JsonValue = msgspec.json.decode(_text(document["arguments"], MOST_ARGUMENT_BYTES))
    accesses = document["accesses"]
    if not isinstance(arguments, dict) or not isinstance(accesses, list):
        raise ValueError("arguments or accesses are of another type")  # noqa: TRY004 - a fault of the document
    approver, decided, state = document["approver"], document["decided"], ApprovalState(_text(document["state"]))
    found = Approval(
        id=_matching(_ID, document["id"]),
        binding=_matching(_DIGEST, document["binding"]),
        state=state,
        requester=_party(document["requester"]),
        server=_text(document["server"]),
        method=_text(document["method"]),
        tool=_text(document["tool"]),
        accesses=tuple(_object(one) for one in accesses),
        arguments=arguments,
        arguments_sha256=_text(document["arguments_sha256"]),
        revision=_text(document["revision"]),
        requested=_moment(document["requested"]),
        expires=_moment(document["expires"]),
        request_id=_text(document["request_id"]),
        trace_id=_text(document["trace_id"]),
        approver=None if approver is None else _party(approver),
        decided=None if decided is None else _moment(decided),
    )
    open_still = state is ApprovalState.WAITING
    if {approver is None, decided is None} != {open_still} or not found.waiting_accesses:
        raise ValueError("an approval that nobody decided, or of nothing")
    return found


_FIELDS: Final = frozenset(
    {"id", "binding", "state", "requester", "server", "method", "tool", "accesses", "arguments", "arguments_sha256"}
    | {"revision", "requested", "expires", "request_id", "trace_id", "approver", "decided"}
)


def _party(value: JsonValue) -> Party:
    document = _object(value)
    names = document.get("names")
    if document.keys() != {"issuer", "subject", "agent", "names"} or not isinstance(names, list):
        raise ValueError("not a party")
    if not 0 < len(names) <= _MOST_NAMES:
        raise ValueError("a party without names, or with too many")
    return Party(
        issuer=_text(document["issuer"]),
        subject=_text(document["subject"]),
        agent=_text(document["agent"]),
        names=tuple(tuple(_text(part) for part in (name if isinstance(name, list) else [])) for name in names),
    )


def _object(value: JsonValue) -> JsonObject:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - a fault of the document like the others
    return value


def _matching(form: re.Pattern[str], value: JsonValue) -> str:
    text = _text(value)
    if not form.match(text):
        raise ValueError("an id of another form")
    return text


def _text(value: JsonValue, longest: int = _LONGEST) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"a text of at most {longest} characters is missing")
    return value


def _moment(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _LATEST:
        raise ValueError("a moment is whole seconds since the epoch")
    return value
