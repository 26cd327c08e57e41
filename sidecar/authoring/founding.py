"""``mcp-sidecar policy init``: a policy set of one's own from nothing, with one team, its tests and golden cases.

The platform's rules, schemas and tests are those of this version. The platform's data is that of no world at all: one
server, no routes, no database; what is general (scopes, traits, bounds) stays as it is delivered.
"""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sidecar.authoring.deciding import decide_with_folder, golden_case
from sidecar.authoring.engine import engine, shipped
from sidecar.authoring.platform_entry import FILE, Ownership, planned, pretty
from sidecar.authoring.scaffold import example_of, scaffold
from sidecar.errors import ConfigurationError
from sidecar.mcp import revision
from sidecar.model import JsonObject, RequestContext
from sidecar.policyset import decode_strictly

SERVER: Final = "main"
_WHOLE: Final = {
    "owner": "platform",
    "delegated": [{"kinds": ["metadata"], "collections": [""]}],
    "obligations": [],
}
_MOMENT_NS: Final = 1_767_603_600_000_000_000
"""When the cases are asked: Monday, 2026-01-05, 09:00 UTC."""
_MODE: Final = 0o755


async def found(folder: Path, wanted: Ownership, opa: str) -> tuple[list[Path], str]:
    """Make a policy folder, whole or not at all; return its files, and how the team comes to list databases.

    Args:
        folder: where; it is not there, or is empty.
        wanted: the first team, and the name of the first server and its deployment.
        opa: the executable, which decides the golden cases.

    Raises:
        ConfigurationError: the folder holds something, it cannot be written, or OPA cannot be run.
    """
    wanted = replace(wanted, server=wanted.server or SERVER, deployment=wanted.deployment or SERVER)
    with _beside(folder) as home:
        await asyncio.to_thread(_platform, home, wanted)
        plan = await asyncio.to_thread(planned, home, wanted)
        plan.write()
        scaffold(wanted, home)
        cases = await _cases(home, wanted, opa)
        (home / "cases" / f"{wanted.team}.json").write_text(_json(cases), encoding="utf-8")
        home.chmod(_MODE)
        try:
            home.replace(folder)
        except OSError as error:
            raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    return await asyncio.to_thread(_files, folder), plan.listing


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Hold an unfinished folder beside the one that it becomes, which must hold nothing."""
    try:
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise ConfigurationError(f"{folder} is there and holds something: name a folder that is new or empty")
        home = Path(tempfile.mkdtemp(dir=folder.resolve().parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        yield home
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(home)


def _platform(home: Path, wanted: Ownership) -> None:
    source = shipped()
    for part in ("platform", "system", "schema"):
        shutil.copytree(source / part, home / part)
    shutil.copyfile(source / "capabilities.json", home / "capabilities.json")
    (home / "cases").mkdir()
    shutil.copyfile(source / "cases" / "cases_test.rego", home / "cases" / "cases_test.rego")
    (home / "teams").mkdir()
    delivered = decode_strictly((source / FILE).read_bytes())["mcp"]["platform"]
    (home / FILE).write_text(_json({"mcp": {"platform": _empty_world(delivered, wanted)}}), encoding="utf-8")


def _empty_world(delivered: dict[str, Any], wanted: Ownership) -> dict[str, Any]:
    """Return the platform's data without callers, routes or databases."""
    empty = {
        "servers": {str(wanted.server): {"deployment": wanted.deployment}},
        "routes": [],
        "deployments": {str(wanted.deployment): {"whole": _WHOLE, "databases": {}, "prefixes": {}, "targets": {}}},
        "grants": [],
        "agents": {"default": delivered["agents"]["default"], "registered": {}},
        "windows": [],
        "break_glass": [],
        "suspended": {"subjects": [], "agents": []},
    }
    return {name: empty.get(name, table) for name, table in delivered.items()}


async def _cases(home: Path, wanted: Ownership, opa: str) -> JsonObject:
    """Decide what the team's readers may, and what all others may not."""
    context = RequestContext(
        time_ns=_MOMENT_NS, client_ip="127.0.0.1", protocol=revision.LATEST.value, environment="production"
    )
    arguments = {
        "connectionId": "preconfigured",
        "database": example_of(wanted.databases[0]),
        "collection": example_of(wanted.collections[0]),
        "filter": {},
        "limit": 10,
    }
    cases: JsonObject = {}
    async with engine(opa, home) as held:
        for title, group in (("A reader reads", wanted.group), ("Nobody else reads", f"not-{wanted.group}")):
            claims = {"sub": "ann", "client_id": "an-agent", "groups": [group], "scope": "mongodb:read"}
            question = {"claims": claims, "call": {"name": "find", "arguments": arguments}}
            decided = await decide_with_folder(held, json.dumps(question).encode(), None, context, explained=False)
            if decided.allow is not (group == wanted.group):
                raise ConfigurationError(f"the new set decides its first case otherwise than meant: {decided.document}")
            cases |= golden_case(decided, f"{title} {wanted.team}")
    return cases


def _json(document: object) -> str:
    return f"{pretty(document)}\n"
