"""Which outside programs there are, and the lock files that name them.

A wheel carries the lock files in ``sidecar/_parts``; a checkout has them in ``parts``.
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec


class OutsideProgram(StrEnum):
    """An outside program, by the name that it has on ``PATH``."""

    OPA = "opa"
    SERVER = "mongodb-mcp-server"
    ISSUER = "demo-authorization-server"
    """The demo's authorization server."""
    DATABASE = "secantusd-py"
    """The demo's database: a separate program of another licence, which is never imported or distributed."""


SERVING: Final = (OutsideProgram.OPA, OutsideProgram.SERVER)
"""What a sidecar needs that serves."""

NPM_FILES: Final = ("package.json", "package-lock.json", ".npmrc")
ISSUER_FILES: Final = (
    *NPM_FILES,
    "configuration.js",
    "main.js",
    "origins.js",
    "pages.js",
    "provider.js",
    "stores.js",
    "token_exchange.js",
)

FILES: Final = {
    OutsideProgram.SERVER: NPM_FILES,
    OutsideProgram.ISSUER: tuple(f"authorization-server/{name}" for name in ISSUER_FILES),
    OutsideProgram.DATABASE: ("secantusdb.lock",),
}
"""What each part is made from, below the folder of lock files."""

_DIGITS: Final = 12


def locks_folder() -> Path:
    """Return the folder of lock files: the wheel's, else the one beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_parts"
    return inside if inside.is_dir() else package.parent / "parts"


def sources(part: OutsideProgram) -> list[Path]:
    """Return the files that a part is made from; none for OPA, which is named by its version."""
    return [locks_folder() / name for name in FILES.get(part, ())]


def key_of(part: OutsideProgram, *facts: str) -> str:
    """Return a short name for what a part is made from: other lock files are another part.

    Args:
        part: the part.
        facts: what it depends on besides, such as the version of the interpreter.
    """
    digest = hashlib.sha256("\n".join(facts).encode())
    for file in sources(part):
        digest.update(b"\0" + file.read_bytes())
    return digest.hexdigest()[:_DIGITS]


class _Package(msgspec.Struct, frozen=True):
    dependencies: dict[str, str]


def server_version() -> str:
    """Return the version of the MongoDB MCP server that the lock file names."""
    package = msgspec.json.decode((locks_folder() / "package.json").read_bytes(), type=_Package)
    return package.dependencies[OutsideProgram.SERVER.value]
