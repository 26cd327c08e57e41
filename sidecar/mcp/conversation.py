"""What enforcement knows of a client's side of the protocol, however it was opened.

A handshake (``initialize``, then a session) is one way to have a conversation, the envelope that every request of
2026-07-28 carries is the other. What comes after this point asks neither.
"""

from dataclasses import dataclass
from typing import Self

from sidecar.mcp.revision import Era, McpRevision
from sidecar.mcp.session import IdentityKey, Session
from sidecar.questions import QuestionKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """By which revision one message is read and answered, and whose it is."""

    era: Era
    revision: McpRevision
    client_name: str
    """Self-reported; for people who read logs, never for a decision."""
    key: IdentityKey
    """(issuer, subject, agent); ``Identity.key``."""
    log_level: str | None = None
    """From which level on this one request wants log messages; None where it does not say so."""
    answers: frozenset[QuestionKind] = frozenset()
    """What the client says that it can be asked."""
    session: Session | None = None
    """None where there are no sessions: then nothing outlives the request (MCP 2026-07-28, basic, statelessness)."""

    @classmethod
    def within(cls, session: Session) -> Self:
        """Return the conversation that a session is."""
        return cls(
            era=Era.HANDSHAKE,
            revision=session.revision,
            client_name=session.client_name,
            key=session.key,
            answers=session.answers,
            session=session,
        )

    @property
    def elicits(self) -> bool:
        """Whether its user can be asked (elicitation in a form)."""
        return QuestionKind.ELICITATION in self.answers

    @property
    def session_id(self) -> str:
        """Empty where there is no session."""
        return self.session.id if self.session is not None else ""
