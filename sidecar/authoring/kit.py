"""A policy folder as a whole, as the command line asks for it: is it right, do its tests pass, what do its rules read.

Settings count where there are some, and only then their models are loaded.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sidecar.authoring.checking import (
    CheckReport,
    ChosenTests,
    TeamTestReport,
    check,
    check_archives,
    read_reads,
    reads_document,
    run_tests,
)
from sidecar.authoring.engine import engine, shipped
from sidecar.authoring.platform_entry import FILE, LISTING, Ownership, planned, printed
from sidecar.authoring.scaffold import scaffold
from sidecar.authoring.watching import Changed, afterwards, at_once, watch
from sidecar.configured import configured, opa_binary
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from sidecar.policyset import MANIFEST, PLATFORM, PolicySet, Rule, Violation, archives_in, read_archives, workshop


async def check_paths(paths: Sequence[Path], opa: str | None, issuers: Sequence[str] = ()) -> CheckReport:
    """Check a policy folder, or archives of bundles.

    Args:
        paths: one policy folder; or archives, and folders of them as ``policy bundle`` writes.
        opa: the OPA executable; None takes the configured one.
        issuers: those that are trusted; none takes the configured ones.

    Raises:
        ConfigurationError: it is neither, or OPA cannot be run.
    """
    binary = opa_binary(opa)
    issuers, scopes = _believed(issuers)
    if len(paths) == 1 and await asyncio.to_thread(_is_policy_folder, paths[0]):
        return await check(await asyncio.to_thread(PolicySet.read, paths[0]), binary, issuers, scopes)
    return await check_archives(await asyncio.to_thread(read_archives, paths, shipped()), binary, issuers, scopes)


def _believed(issuers: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the issuers and scopes to hold the platform's data to: the issuers that are named, else the settings'."""
    config = None if issuers else configured()
    if config is None:
        return issuers, ()
    return [entry.issuer for entry in config.issuers], config.scopes


def _is_policy_folder(path: Path) -> bool:
    """Whether a path is a policy folder, or is at least none of archives."""
    return path.is_dir() and ((path / PLATFORM / MANIFEST).is_file() or not archives_in(path))


async def run_folder(folder: Path, opa: str | None) -> TeamTestReport:
    """Run the tests of a policy folder.

    Raises:
        ConfigurationError: it is no policy folder, its tests do not compile, or OPA cannot be run.
    """
    async with engine(opa_binary(opa), folder) as held:
        return await run_tests(held)


async def watch_checks(
    folder: Path, opa: str | None, issuers: Sequence[str], tell: Callable[[CheckReport], None]
) -> None:
    """Check a policy folder now and after every change, until cancelled. What did not change is not parsed again.

    Raises:
        ConfigurationError: OPA cannot be run.
    """
    async with workshop(opa_binary(opa), *_believed(issuers)) as checker:

        async def act(_: frozenset[str] | None) -> None:
            try:
                policies = await asyncio.to_thread(PolicySet.read, folder)
                tell(CheckReport(findings=tuple(await checker.examine(policies))))
            except ConfigurationError as error:
                tell(CheckReport(findings=(_unusable(error),)))

        await watch(folder, act)


async def watch_tests(folder: Path, opa: str | None, tell: Callable[[TeamTestReport], None]) -> None:
    """Run the tests of a policy folder now, and after every change those of what changed, until cancelled.

    Then those that could go otherwise because of it; the next change interrupts them.
    """

    async def run(choose: Callable[[PolicySet], ChosenTests | None], of: str) -> None:
        try:
            async with engine(opa_binary(opa), folder) as held:
                if chosen := choose(held.policies):
                    tell(replace(await run_tests(held, chosen), of=of))
        except ConfigurationError as error:
            tell(TeamTestReport(passed=0, cases=0, failures=(_unusable(error),), coverage={}, of=of))

    async def act(changed: Changed) -> None:
        await run(lambda policies: at_once(policies, changed), "" if changed is None else "what changed")

    async def later(owed: Changed, done: Changed) -> None:
        await run(lambda policies: afterwards(policies, owed, done), "what depends on it")

    await watch(folder, act, later)


def _unusable(error: ConfigurationError) -> Violation:
    return Violation(file=".", line=1, rule=Rule.COMPILE, message=str(error))


async def new_team(folder: Path, wanted: Ownership, *, write: bool) -> tuple[list[Path], str]:
    """Write a team's folder; return its files, and what is left for the platform team to do, in words.

    Args:
        folder: the policy folder.
        wanted: the team and what it is to own.
        write: put the platform's entries into its data.

    Raises:
        ConfigurationError: the team or its databases are there already, or it is no policy folder.
    """
    plan = await asyncio.to_thread(planned, folder, wanted) if write else None
    files = await asyncio.to_thread(scaffold, wanted, folder)
    if plan is None:
        return files, f"The platform team adds this to {FILE} (or: --write):\n{printed(wanted)}"
    await asyncio.to_thread(plan.write)
    return [*files, plan.path], f"{LISTING}\n{plan.listing}"


async def show_reads(folder: Path, opa: str | None) -> JsonObject:
    """Return which parts of a question the rules of a policy folder read, by package.

    Raises:
        ConfigurationError: it is no policy folder, it would be refused, or OPA cannot be run.
    """
    policies = await asyncio.to_thread(PolicySet.read, folder)
    return reads_document(await read_reads(policies, opa_binary(opa)))
