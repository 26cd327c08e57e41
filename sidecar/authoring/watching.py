"""``--watch``: the same command again when a file of the policy folder changes, what changed before the rest.

Nearly every rule of the platform is asked by nearly every test, through the decision. So a change is told of twice: as
soon as its own tests have run, and when the others have.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.authoring.cases import FOLDER as CASES
from sidecar.authoring.checking import ALL_TESTS, ChosenTests
from sidecar.policyset import TEAMS, PolicySet, Snapshot, snapshot
from sidecar.system import ended

_LOOK_S: Final = 0.1
"""A look at the 80 files that ship takes 1 ms."""

_REST_S: Final = 0.05

Changed = frozenset[str] | None
"""The paths that changed, below the folder; None the first time, when all is looked at."""
Act = Callable[[Changed], Awaitable[None]]
Later = Callable[[Changed, Changed], Awaitable[None]]
"""Takes all changes that are not yet looked at, and those for which ``Act`` was just called."""

_PACKAGE: Final = re.compile(r"^package (\S+)", re.MULTILINE)
_TEST: Final = "_test.rego"


async def watch(folder: Path, act: Act, later: Later | None = None) -> None:
    """Act on the whole folder, then on every change, until cancelled.

    Args:
        folder: the policy folder.
        act: called for each change, and never interrupted.
        later: what can wait until ``act`` is done; a change interrupts it, and the next time it takes that change too.
    """
    before = await asyncio.to_thread(snapshot, folder)
    await act(None)
    waiting: asyncio.Future[None] | None = None
    owed: frozenset[str] = frozenset()
    try:
        while True:
            await asyncio.sleep(_LOOK_S)
            now = await asyncio.to_thread(snapshot, folder)
            if waiting is not None and waiting.done():
                waiting.result()
                waiting, owed = None, frozenset()
            if now == before:
                continue
            while (again := await _after_a_look(folder)) != now:
                now = again
            await _stopped(waiting)
            changed = frozenset(Path(entry[0]).relative_to(folder).as_posix() for entry in {*before} ^ {*now})
            before, owed = now, owed | changed
            await act(changed)
            waiting = asyncio.ensure_future(later(owed, changed)) if later is not None else None
    finally:
        await _stopped(waiting)


async def _stopped(task: asyncio.Future[None] | None) -> None:
    if task is not None:
        task.cancel()
        await ended(task)


async def _after_a_look(folder: Path) -> Snapshot:
    """Look again a moment later: editors write a file in several steps."""
    await asyncio.sleep(_REST_S)
    return await asyncio.to_thread(snapshot, folder)


def at_once(policies: PolicySet, changed: Changed) -> ChosenTests:
    """Choose the tests of what changed: a team's, golden cases, or those that name the platform's packages."""
    if changed is None:
        return ALL_TESTS
    if only_cases(changed):
        return ChosenTests(packages=())
    if team := team_of(changed):
        return ChosenTests(packages=_tests_below(policies, f"{TEAMS}{team}/"), cases=False, below=f"{TEAMS}{team}/")
    named = _tests_naming(policies, changed)
    return ChosenTests(packages=named, cases=not named, measured=False)


def afterwards(policies: PolicySet, owed: Changed, done: Changed) -> ChosenTests | None:
    """Choose what else could be decided otherwise after changes; None where that is nothing.

    A team's rules are asked by its tests and by golden cases only: the platform's tests hold without any team.
    """
    ran = at_once(policies, done)
    if owed is None or only_cases(owed):
        return None
    if team_of(owed):
        return ChosenTests(packages=(), measured=False)
    rest = {*_tests_below(policies, "")} - {*(ran.packages or ())}
    return ChosenTests(packages=tuple(sorted(rest)), cases=not ran.cases, measured=False)


def team_of(changed: Changed) -> str | None:
    """Return the one team whose folder all changes are in; None where more than that has to be looked at."""
    teams = {path.split("/")[1] if path.startswith(TEAMS) else "" for path in changed or {""}}
    return next(iter(teams)) if len(teams) == 1 and "" not in teams else None


def only_cases(changed: Changed) -> bool:
    """Whether nothing but golden cases changed."""
    return bool(changed) and all(path.startswith(f"{CASES}/") and path.endswith(".json") for path in changed or ())


def _tests_below(policies: PolicySet, folder: str) -> tuple[str, ...]:
    """Return the packages of the tests below a folder of the set."""
    found = (_package(text) for file, text in _modules(policies) if file.startswith(folder) and file.endswith(_TEST))
    return tuple(sorted({*filter(None, found)}))


def _tests_naming(policies: PolicySet, changed: frozenset[str]) -> tuple[str, ...]:
    """Return the packages of the tests that changed, or that name a package of a module that did."""
    modules = [*_modules(policies)]
    touched = {*filter(None, (_package(text) for file, text in modules if file in changed))}
    names = re.compile("|".join(rf"\bdata\.{re.escape(one)}(?!\w)" for one in sorted(touched)) or r"(?!)")
    tests = ((_package(text), text) for file, text in modules if file.endswith(_TEST))
    return tuple(sorted({one for one, text in tests if one and (one in touched or names.search(text))}))


def _modules(policies: PolicySet) -> Iterable[tuple[str, str]]:
    for file, content in (*policies.files, *policies.aside):
        if file.endswith(".rego"):
            with suppress(UnicodeDecodeError):
                yield file, content.decode()


def _package(text: str) -> str:
    found = _PACKAGE.search(text)
    return found[1] if found is not None else ""
