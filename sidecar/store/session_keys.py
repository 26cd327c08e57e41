"""The file of the keys that session handles are sealed with, read again when it changes."""

import base64
import binascii
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.mcp import HandleKeys
from sidecar.system import FollowedFiles

_LONGEST: Final = 4096
"""Bytes; two lines take 90."""


class SessionKeyFile(FollowedFiles[HandleKeys]):
    """One or two keys, a line each, base64 of 32 random bytes; the first one seals.

    Args:
        path: the file.
        resource: what the sessions are of.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, resource: str) -> None:
        super().__init__("session_keys_file", [path], lambda: _keys(path, resource))

    @property
    def keys(self) -> HandleKeys:
        """As they are now; the last good ones where the file is damaged."""
        return self.value


def _keys(path: Path, resource: str) -> HandleKeys:
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    try:
        keys = [base64.b64decode(line.strip(), validate=True) for line in text.splitlines() if line.strip()]
        return HandleKeys(keys, resource)
    except binascii.Error:
        raise ConfigurationError(f"{path}: a line is not base64; make keys with: openssl rand -base64 32") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}; make keys with: openssl rand -base64 32") from None
