"""``--watch``: the same command again when a file of the policy folder changes, on what changed."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from sidecar.authoring.cases import FOLDER as CASES
from sidecar.policyset import TEAMS, Snapshot, snapshot

_LOOK_S: Final = 0.2

Act = Callable[[frozenset[str] | None], Awaitable[None]]
"""Takes the paths that changed, below the folder; None the first time, when all is looked at."""


async def watch(folder: Path, act: Act) -> None:
    """Act on the whole folder, then on every change, until cancelled."""
    before = await asyncio.to_thread(snapshot, folder)
    await act(None)
    while True:
        await asyncio.sleep(_LOOK_S)
        now = await asyncio.to_thread(snapshot, folder)
        if now == before:
            continue
        while (later := await _after_a_look(folder)) != now:
            now = later
        changed = {Path(entry[0]).relative_to(folder).as_posix() for entry in {*before} ^ {*now}}
        before = now
        await act(frozenset(changed))


async def _after_a_look(folder: Path) -> Snapshot:
    """Look again a moment later: editors write a file in several steps."""
    await asyncio.sleep(_LOOK_S / 4)
    return await asyncio.to_thread(snapshot, folder)


def team_of(changed: frozenset[str] | None) -> str | None:
    """Return the one team whose folder all changes are in; None where more than that has to be looked at."""
    teams = {path.split("/")[1] if path.startswith(TEAMS) else "" for path in changed or {""}}
    return next(iter(teams)) if len(teams) == 1 and "" not in teams else None


def only_cases(changed: frozenset[str] | None) -> bool:
    """Whether nothing but golden cases changed."""
    return bool(changed) and all(path.startswith(f"{CASES}/") and path.endswith(".json") for path in changed or ())
