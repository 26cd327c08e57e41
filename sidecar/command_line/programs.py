"""The programs that ``mcp-sidecar setup`` brought, for every command."""

import contextlib

from sidecar import os_environment
from sidecar.errors import ConfigurationError
from sidecar.provision import programs_folder


def find_brought_programs() -> None:
    """Have every command find what ``setup`` brought, after what is on ``PATH``."""
    with contextlib.suppress(ConfigurationError):  # a user without a home has brought nothing
        folder = programs_folder(os_environment.data_folder())
        if folder is not None:
            os_environment.use_programs_of(folder)
