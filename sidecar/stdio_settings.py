"""The settings of ``mcp-sidecar stdio``: who calls, where a client launches the sidecar and no request has a header."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from sidecar.settings_group import SettingsGroup


class Stdio(SettingsGroup):
    """Who calls over standard input and output (`mcp-sidecar stdio`)."""

    token: SecretStr | None = None
    """The access token of the user. Better a file: a process's environment can be read by every program of the user."""
    token_file: Path | None = None
    """A file with the access token, read again whenever it changes; so a token can be renewed while a client runs."""
    agent: str = Field(default="", max_length=256)
    """The agent, where the token names none. It proves nothing, because the one who launches the sidecar
    chooses it."""
    as_os_user: bool = False
    """Without a token, the caller is the user of the operating system. A convenience for one machine, and no boundary;
    refused where `environment` is `production`."""

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        given = [self.token is not None, self.token_file is not None, self.as_os_user]
        if sum(given) > 1:
            raise ValueError("give one of stdio.token, stdio.token_file and stdio.as_os_user")
        if self.as_os_user and not self.agent:
            raise ValueError("stdio.as_os_user needs stdio.agent: the operating system names none")
        return self
