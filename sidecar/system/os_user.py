"""The user of the operating system as a caller: a convenience on one machine, and no boundary.

A user who can launch the sidecar can read what it reads: its settings, the connection string, the databases.
"""

import grp
import os
import pwd
from dataclasses import dataclass
from typing import Final, Self

from sidecar.errors import ConfigurationError
from sidecar.model import Actor, Credential, Identity, Principal

_ISSUER: Final = "urn:mcp-sidecar:os-user"
"""The issuer of such callers, in questions to policy and in every record; no token can name it, for no key signs it."""

_NEVER: Final = 4_102_444_800.0
"""The beginning of 2100, seconds since the epoch: a login session has no end that is known."""


@dataclass(frozen=True, slots=True)
class OsUser:
    """Takes every request for one of the user who runs the process (``sidecar.ports.TokenVerifier``)."""

    identity: Identity

    @classmethod
    def current(cls, agent: str, scopes: tuple[str, ...]) -> Self:
        """Return the user of this process, with the names of the groups that it has.

        Args:
            agent: the agent that acts, as the settings or the command line name it.
            scopes: what it may ask for.

        Raises:
            ConfigurationError: the system knows no name of the user.
        """
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            raise ConfigurationError(f"stdio.as_os_user: the user {os.getuid()} has no name") from None
        groups = tuple(dict.fromkeys(filter(None, map(_group, sorted({os.getgid(), *os.getgroups()})))))
        principal = Principal(issuer=_ISSUER, subject=name, groups=groups, scopes=scopes)
        return cls(Identity(principal=principal, actor=Actor(id=agent), expires_at=_NEVER))

    async def verify(self, credential: Credential) -> Identity:
        """Return the user; what is presented does not count."""
        del credential
        return self.identity


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""
