"""What the environment says besides the values of settings: whether there are any, where programs are and go."""

import os
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError

PREFIX: Final = "SIDECAR_"
CONFIG_VARIABLE: Final = "SIDECAR_CONFIG"


def given() -> bool:
    """Whether any settings are given; commands for authors work without them."""
    names = {name.upper() for name in os.environ}
    return bool(names & {CONFIG_VARIABLE, f"{PREFIX}ISSUERS"})


def settings_file() -> Path | None:
    """Return the TOML file that settings come from, if there is one."""
    file = os.environ.get(CONFIG_VARIABLE, "")
    return Path(file) if file else None


def opa_variable() -> str:
    """Return the OPA executable that the environment names, or empty."""
    return os.environ.get(f"{PREFIX}OPA__BINARY", "")


def search_path() -> str:
    """Where programs are looked for; a server's own command may need it to find its interpreter."""
    return os.environ.get("PATH", os.defpath)


def use_programs_of(folder: Path) -> None:
    """Have programs looked for in a folder too, after those on ``PATH``."""
    os.environ["PATH"] = f"{search_path()}{os.pathsep}{folder}"


def data_folder() -> Path:
    """Return where ``mcp-sidecar setup`` puts programs, for this user alone (XDG Base Directory Specification).

    Raises:
        ConfigurationError: this user has no home.
    """
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".local" / "share") / "mcp-sidecar"
    except RuntimeError:
        raise ConfigurationError("this user has no home folder: set XDG_DATA_HOME") from None


def installer_environment() -> dict[str, str]:
    """Return the environment for what installs programs: without the settings, which may be secrets."""
    own = (PREFIX, "MDB_", "OTEL_")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(own)}
