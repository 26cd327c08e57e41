"""TLS of a listener whose files change: a connection that is made after that is made with the new ones.

Every handshake asks for the newest context (the server name callback runs for each ClientHello, also for one without a
name), so that certificate, key and the authorities for client certificates change together or not at all.
"""

import ssl
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from sidecar.system.followed_file import FollowedFiles

_HANDSHAKE_FAILED: Final = ssl.ALERT_DESCRIPTION_INTERNAL_ERROR


class FollowedTls(FollowedFiles[ssl.SSLContext]):
    """The newest good context of some files.

    Args:
        setting: what the log calls them.
        paths: the files.
        make: makes a context of them; a ConfigurationError says why they cannot be used.

    Raises:
        ConfigurationError: they cannot be used now.
    """

    def __init__(self, setting: str, paths: Collection[Path], make: Callable[[], ssl.SSLContext]) -> None:
        super().__init__(setting, paths, make)
        self.context = self.value
        """What the listener is opened with; each handshake goes on with the newest one."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> int | None:
        try:
            connection.context = self.value
        except (ValueError, TypeError, ssl.SSLError):
            return _HANDSHAKE_FAILED
        return None
