"""The people of the demo, and the agents that act for them."""

from dataclasses import dataclass
from typing import Final

TOKEN_SECONDS: Final = 8 * 3600
SCOPES: Final = ("mongodb:read", "mongodb:write", "mongodb:admin", "mongodb:export")
"""What a client may ask for; the platform's data says what each is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user who lends rights to an agent."""

    user: str
    agent: str
    groups: tuple[str, ...]
    scopes: tuple[str, ...]

    @property
    def label(self) -> str:
        """Who calls, as the tour shows it."""
        return f"{self.user} via {self.agent}"


ANALYST: Final = Person(user="alice", agent="claude-desktop", groups=("analysts",), scopes=("mongodb:read",))
LOADER: Final = Person(
    user="larry", agent="nightly-loader", groups=("loaders",), scopes=("mongodb:read", "mongodb:write")
)
STRANGER: Final = Person(user="mallory", agent="claude-desktop", groups=(), scopes=("mongodb:read",))
EVERYBODY: Final = (ANALYST, LOADER, STRANGER)
