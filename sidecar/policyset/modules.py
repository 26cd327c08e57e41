"""A set's modules as a check takes them: whose they are, how many are parsed at once, who defines what is called."""

import hashlib
from typing import Final

from sidecar.policyset.containment import MAX_MODULE_BYTES
from sidecar.policyset.finding import Violation
from sidecar.policyset.folder import TEAMS
from sidecar.policyset.module_lint import ModuleReport, uncalled

_BATCH_BYTES: Final = 128 * 2**10
"""Of source in one parse. A tree takes several hundred times its source in OPA's memory."""


def uncalled_of_teams(judged: dict[str, ModuleReport], served: frozenset[str]) -> list[Violation]:
    """Find the calls that nothing defines. What is served cannot call what only a test defines."""
    found: list[Violation] = []
    for team in dict.fromkeys(map(team_of, judged)):
        modules = {path: linted for path, linted in judged.items() if team_of(path) == team}
        serving = [linted for path, linted in modules.items() if path in served]
        found += uncalled(serving)
        found += uncalled([linted for path, linted in modules.items() if path not in served], serving)
    return found


def batches(modules: dict[str, bytes]) -> list[dict[str, bytes]]:
    """Divide modules into what one process parses."""
    batches: list[dict[str, bytes]] = []
    size = MAX_MODULE_BYTES
    for path in sorted(modules):
        content = modules[path]
        if not batches or size + len(content) > _BATCH_BYTES:
            batches.append({})
            size = 0
        batches[-1][path] = content
        size += len(content)
    return batches


def is_team_module(path: str) -> bool:
    """Whether a path is a team's module."""
    return path.startswith(TEAMS) and path.endswith(".rego")


def team_of(path: str) -> str:
    """Return the team of a path in its folder."""
    return path.split("/", 2)[1]


def module_key(path: str, content: bytes, *, served: bool) -> bytes:
    """Return what a verdict on a module is remembered by."""
    return hashlib.sha256(f"{path}\n{served}\n".encode() + content).digest()


def text_of(content: bytes) -> str | None:
    """Return the text of a module; None where it is not UTF-8."""
    try:
        return content.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return None
