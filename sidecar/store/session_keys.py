"""The file of the keys that session handles are sealed with, read again when it changes."""

import base64
import binascii
import logging
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.mcp import HandleKeys

_LOG = logging.getLogger(__name__)

_LONGEST: Final = 4096
"""Bytes; two lines take 90."""


class SessionKeyFile:
    """One or two keys, a line each, base64 of 32 random bytes; the first one seals.

    Args:
        path: the file.
        resource: what the sessions are of.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, resource: str) -> None:
        self._path = path
        self._resource = resource
        self._seen = self._stamp()
        self.keys = self._read()
        """As they are now; the last good ones where the file is damaged."""

    def refresh(self) -> None:
        """Take up a file that changed; one that cannot be used is logged once and changes nothing. Blocking."""
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.keys = self._read()
        except ConfigurationError as error:
            _LOG.error("session_keys_file: the changed keys are not used, those before are: %s", error.detail)
        else:
            _LOG.info("session_keys_file: the changed keys are used from now on")

    def _read(self) -> HandleKeys:
        try:
            with self._path.open("rb") as file:
                text = file.read(_LONGEST)
        except OSError as error:
            raise ConfigurationError(f"{self._path}: {error.strerror}") from None
        try:
            keys = [base64.b64decode(line.strip(), validate=True) for line in text.splitlines() if line.strip()]
            return HandleKeys(keys, self._resource)
        except binascii.Error:
            raise ConfigurationError(
                f"{self._path}: a line is not base64; make keys with: openssl rand -base64 32"
            ) from None
        except ValueError as error:
            raise ConfigurationError(f"{self._path}: {error}; make keys with: openssl rand -base64 32") from None

    def _stamp(self) -> tuple[object, ...]:
        try:
            status = self._path.stat()
        except OSError as error:
            return (type(error).__name__,)
        return status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size
