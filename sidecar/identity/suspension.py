"""What an operator takes away at once: a user, an agent, a user through an agent, a token or a session.

A suspension names what it is about exactly; there are no patterns. One caller answers to several names: the person,
each agent of the chain (RFC 8693 section 4.1: the outermost acts, the others passed the right on), each pair of the
two, and the token.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from sidecar.model import Identity, JsonObject, JsonValue

CallerName: TypeAlias = tuple[str, ...]
"""The kind, and what names one of it."""

LONGEST_NAME: Final = 1024
"""Characters of an issuer, a subject or an agent."""

LONGEST_TEXT: Final = 256
"""Characters of a reason or an operator."""

_DIGEST: Final = re.compile("[0-9a-f]{16,64}")
_FIELDS: Final = frozenset({"kind", "issuer", "subject", "agent", "digest", "until", "reason", "operator", "since"})


class Suspendable(StrEnum):
    """What can be suspended."""

    USER = "user"
    AGENT = "agent"
    PAIR = "pair"
    """One user through one agent."""
    TOKEN = "token"  # noqa: S105 - a kind, not a token
    """One access token, by the digest that audit records carry (``Identity.token``)."""
    SESSION = "session"
    """One session, by the digest that audit records carry."""


_USER, _AGENT, _PAIR, _TOKEN = (
    one.value for one in (Suspendable.USER, Suspendable.AGENT, Suspendable.PAIR, Suspendable.TOKEN)
)
"""Looked up once: an enumeration's value takes a microsecond on Python 3.11, and each call has ten of them."""


_NEEDS: Final[Mapping[Suspendable, frozenset[str]]] = {
    Suspendable.USER: frozenset({"issuer", "subject"}),
    Suspendable.AGENT: frozenset({"issuer", "agent"}),
    Suspendable.PAIR: frozenset({"issuer", "subject", "agent"}),
    Suspendable.TOKEN: frozenset({"digest"}),
    Suspendable.SESSION: frozenset({"digest"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionTarget:
    """What a suspension is about.

    Raises:
        ValueError: a part is missing, does not belong to the kind, or is too long; the message says which.
    """

    kind: Suspendable
    issuer: str = ""
    subject: str = ""
    agent: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        parts = {"issuer": self.issuer, "subject": self.subject, "agent": self.agent, "digest": self.digest}
        for part, value in parts.items():
            if bool(value) is not (part in _NEEDS[self.kind]):
                raise ValueError(f"a {self.kind} {'has no' if value else 'needs its'} {part}")
            if len(value) > LONGEST_NAME:
                raise ValueError(f"the {part} is longer than {LONGEST_NAME} characters")
        if self.digest and not _DIGEST.fullmatch(self.digest):
            raise ValueError("a digest is hexadecimal, as in audit records: 32 digits of a token, 16 of a session")

    @property
    def name(self) -> CallerName:
        """What ``names_of`` is looked up for."""
        return (self.kind.value, *(part for part in (self.issuer, self.subject, self.agent, self.digest) if part))

    def document(self) -> JsonObject:
        """Render it; only the parts that it has."""
        parts = {"issuer": self.issuer, "subject": self.subject, "agent": self.agent, "digest": self.digest}
        return {"kind": self.kind.value, **{part: value for part, value in parts.items() if value}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspension:
    """What is suspended, until when, why and by whom."""

    target: SuspensionTarget
    until: int | None
    """Seconds since the epoch; None until an operator resumes it."""
    reason: str
    operator: str
    since: int
    """Seconds since the epoch."""

    def over(self, now: float) -> bool:
        """Whether it has ended by itself; ``now`` in seconds since the epoch."""
        return self.until is not None and self.until <= now

    def document(self) -> JsonObject:
        """Render it as it is stored, listed and recorded."""
        return {
            **self.target.document(),
            "until": self.until,
            "reason": self.reason,
            "operator": self.operator,
            "since": self.since,
        }


def read_suspension(document: JsonValue) -> Suspension:
    """Read what ``Suspension.document`` rendered.

    Raises:
        ValueError: it is not of that form.
    """
    if not isinstance(document, dict) or not document.keys() <= _FIELDS:
        raise ValueError("not a suspension")
    until = document.get("until")
    return Suspension(
        target=read_target(document),
        until=None if until is None else whole_seconds(until),
        reason=_text(document.get("reason"), LONGEST_TEXT),
        operator=_text(document.get("operator"), LONGEST_TEXT),
        since=whole_seconds(document.get("since")),
    )


def read_target(document: JsonObject) -> SuspensionTarget:
    """Read the parts of a document that say what is suspended.

    Raises:
        ValueError: they name nothing that can be.
    """
    kind = _text(document.get("kind"), LONGEST_NAME)
    if kind not in frozenset(Suspendable):
        raise ValueError(f"the kinds are {', '.join(Suspendable)}")
    parts = {part: _text(document.get(part, ""), LONGEST_NAME) for part in ("issuer", "subject", "agent", "digest")}
    return SuspensionTarget(kind=Suspendable(kind), **parts)


def whole_seconds(value: JsonValue) -> int:
    """Return a moment; raises ValueError where it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**40:
        raise ValueError("a moment is whole seconds since the epoch")
    return value


def names_of(identity: Identity) -> tuple[CallerName, ...]:
    """Return every name that this caller answers to."""
    issuer, subject = identity.principal.issuer, identity.principal.subject
    actor = identity.actor
    names: list[CallerName] = [(_USER, issuer, subject)]
    for agent in (actor.id, *actor.chain):
        names += ((_AGENT, issuer, agent), (_PAIR, issuer, subject, agent))
    if identity.token:
        names.append((_TOKEN, identity.token))
    return tuple(names)


def _text(value: JsonValue, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest:
        raise ValueError(f"a text of at most {longest} characters is missing")
    return value
