"""What the platform's data says so that calls reach a new team, put into ``platform/data.json`` without rewriting it.

The file is edited as text, so that the diff an operator reviews has the new lines and nothing else. It is compared with
what was meant before it takes the place of the old one in one step.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sidecar.errors import ConfigurationError
from sidecar.policyset import decode_strictly, json_span

FILE: Final = "platform/data.json"
KINDS: Final = ("read", "metadata")
_FITS: Final = 100
"""Characters of JSON that stand on one line."""
LISTING: Final = (
    "Listing databases shows names of other teams, so the platform grants it, and no team can (policies/README.md).\n"
    'With "names": "reachable", a list shows each caller the names that a grant for this caller reaches.'
)
_TABLES: Final = ("mcp", "platform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What a team is to own, and how its readers reach it."""

    team: str
    databases: tuple[str, ...]
    """Names, or beginnings of names followed by ``*``."""
    collections: tuple[str, ...]
    group: str
    """The group whose members may read."""
    deployment: str | None = None
    """None takes the only one."""
    server: str | None = None
    """None takes the only one of the deployment."""

    @property
    def holding(self) -> dict[str, Any]:
        """The entry of each database."""
        delegated = [{"kinds": [*KINDS], "collections": ["", *self.collections]}]
        return {"owner": self.team, "delegated": delegated, "obligations": []}

    def holdings(self) -> tuple[tuple[str, str], ...]:
        """Return the table and the name of each entry."""
        return tuple(("prefixes", name[:-1]) if name.endswith("*") else ("databases", name) for name in self.databases)

    def route(self, server: str) -> dict[str, Any]:
        """Return the route of the team's readers."""
        who = {"id": f"{self.team}-readers", "groups": [self.group], "agents": ["*"], "scopes": ["*"]}
        return {**who, "kinds": [*KINDS], "server": server}

    def listing(self, deployment: str) -> dict[str, Any]:
        """Return the platform's grant by which the team's readers list databases."""
        grant = {"id": f"{self.team}-lists-databases", "groups": [self.group], "kinds": ["metadata"]}
        return {**grant, "deployments": [deployment], "databases": [""], "collections": [""], "names": "reachable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedFile:
    """The file as it will be, and what it does not do."""

    path: Path
    text: str
    listing: str
    """How the platform lets the team's readers list databases."""

    def write(self) -> None:
        """Put the text in the place of the file, whole or not at all.

        Raises:
            ConfigurationError: it cannot be written.
        """
        target = self.path.resolve()
        try:
            mode = target.stat().st_mode & 0o777
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(self.text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).chmod(mode)
                Path(name).replace(target)
            except OSError:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
                raise
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error


def printed(wanted: Ownership) -> str:
    """Return the entries as pieces of JSON, for the owner of the data to put in."""
    pieces = []
    for table in ("databases", "prefixes"):
        entries = {name: wanted.holding for kind, name in wanted.holdings() if kind == table}
        if entries:
            pieces.append(f"under deployments.{wanted.deployment or '<deployment>'}.{table}:\n{pretty(entries)}")
    route = wanted.route(wanted.server or "<a server of that deployment>")
    pieces.append(f"in routes, unless one covers the group already:\n{pretty(route)}")
    listing = wanted.listing(wanted.deployment or "<deployment>")
    pieces.append(f"{LISTING}\nin grants, unless one covers the group already:\n{pretty(listing)}")
    return "\n\n".join(pieces)


def planned(folder: Path, wanted: Ownership) -> PlannedFile:
    """Work out the platform's data with a team's entries in it.

    Raises:
        ConfigurationError: the file cannot be read or extended, something is owned already, or it is not clear which
            deployment or server is meant.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
        document = decode_strictly(text.encode())
        tables = document["mcp"]["platform"]
        deployment = _only("deployment", wanted.deployment, tables["deployments"])
        mine = {name: one for name, one in tables["servers"].items() if one["deployment"] == deployment}
        server = _only("server", wanted.server, mine)
        holdings = tables["deployments"][deployment]
        for table, name in wanted.holdings():
            if name in holdings[table]:
                owner = holdings[table][name]["owner"]
                raise ConfigurationError(f"{name!r} is in {table} of {deployment} already, and its owner is {owner}")
            text = _put(text, (*_TABLES, "deployments", deployment, table), name, wanted.holding)
            holdings[table][name] = wanted.holding
        if not any(wanted.group in route["groups"] for route in tables["routes"]):
            text = _put(text, (*_TABLES, "routes"), None, wanted.route(server))
            tables["routes"].append(wanted.route(server))
        if decode_strictly(text.encode()) != document:
            raise ConfigurationError(f"{path} cannot be extended: write the entries by hand")
        return PlannedFile(path=path, text=text, listing=_listing(text, tables, deployment, wanted))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} is not of the platform's form ({error}): run policy check") from error


def _only(what: str, named: str | None, known: Mapping[str, Any]) -> str:
    """Return the one that is meant."""
    if named is None and len(known) == 1:
        return next(iter(known))
    if named is None or named not in known:
        said = f"there is no {what} {named}" if named is not None else f"there is more than one {what}"
        raise ConfigurationError(f"{said}: name one with --{what} ({', '.join(sorted(known)) or 'none'})")
    return named


def _put(text: str, place: Sequence[str], name: str | None, value: Any) -> str:
    """Add a member to the end of an object or list, and leave all other characters as they are."""
    begin, end = json_span(text, place)
    inside = text[begin + 1 : end - 1]
    line_begins = text.rfind("\n", 0, begin) + 1
    outer = text[line_begins:begin][: len(text[line_begins:begin]) - len(text[line_begins:begin].lstrip())]
    indent = f"{outer}  "
    member = pretty(value, indent)
    member = member if name is None else f"{json.dumps(name, ensure_ascii=False)}: {member}"
    kept = inside.rstrip()
    separator = "," if kept else ""
    return f"{text[: begin + 1]}{kept}{separator}\n{indent}{member}\n{outer}{text[end - 1 :]}"


def _listing(text: str, tables: Mapping[str, Any], deployment: str, wanted: Ownership) -> str:
    """Say how the team's readers come to list databases, with the line to change."""
    for index, grant in enumerate(tables["grants"]):
        if "" in grant["databases"] and "metadata" in grant["kinds"] and {deployment, "*"} & set(grant["deployments"]):
            if {wanted.group, "*"} & set(grant["groups"]):
                return f"The platform's grant {grant['id']} lets {wanted.group} list databases."
            at = text.count("\n", 0, json_span(text, (*_TABLES, "grants", index, "groups"))[0]) + 1
            return f'{FILE}:{at}: add "{wanted.group}" to the groups of {grant["id"]}'
    at = text.count("\n", 0, json_span(text, (*_TABLES, "grants"))[0]) + 1
    return f"{FILE}:{at}: add to grants: {json.dumps(wanted.listing(deployment))}"


def pretty(value: Any, margin: str = "") -> str:
    """Return JSON as people write it: what fits on a line stands on one.

    Args:
        value: what to write.
        margin: before every line but the first.
    """
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or (len(flat) <= _FITS and _is_flat(value)):
        return flat
    inner = f"{margin}  "
    if isinstance(value, dict):
        members = [f"{json.dumps(name, ensure_ascii=False)}: {pretty(one, inner)}" for name, one in value.items()]
    else:
        members = [pretty(one, inner) for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(members) + f"\n{margin}{closing}"


def _is_flat(value: Any) -> bool:
    """Whether nothing in it holds an object."""
    members = value.values() if isinstance(value, dict) else value
    return not any(isinstance(one, dict) or (isinstance(one, list) and not _is_flat(one)) for one in members)
