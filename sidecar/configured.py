"""The settings of commands that work without any: read if there are some, and only then loaded."""

from typing import TYPE_CHECKING

from sidecar.os_environment import given, opa_variable

if TYPE_CHECKING:
    from sidecar.settings import Settings


def configured() -> "Settings | None":
    """Return the settings; None where none are given.

    Raises:
        ConfigurationError: they are not complete and right.
    """
    return required() if given() else None


def required() -> "Settings":
    """Return the settings, where a command cannot go on without.

    Raises:
        ConfigurationError: they are not complete and right, or none are given.
    """
    from sidecar import settings  # noqa: PLC0415 - their models take longer to build than what the command does

    return settings.load()


def opa_binary(named: str | None) -> str:
    """Return the OPA executable that a command names, or the one of the settings; these need not be complete."""
    if known := named or opa_variable():
        return known
    config = configured()
    return "opa" if config is None else config.opa.binary
