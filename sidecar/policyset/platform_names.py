"""Whether what the platform's tables name is there: servers, deployments, teams, scopes, windows, tools of limits.

A server or a deployment that a table names and no table has is a mistake of one file, and refused. A team without a
folder, a scope or a window that is gone can be a step of a roll-out and takes access away; that is a warning. So is
a scope that the settings ask clients for and no table has.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from sidecar.commands import CATALOG
from sidecar.policyset.data_lines import MOST_PROBLEMS, PLATFORM, pointer, where
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.holdings import GLOB_SIGNS, holdings_of, unheld
from sidecar.policyset.manifest import decode_strictly
from sidecar.policyset.names import cut, nearest

_PLATFORM_OWNER: Final = "platform"
_ANY: Final = "*"
_ORIGIN: Final = re.compile(r"https://[^/*]+/\*")
_PlacedProblem = tuple[tuple[str | int, ...], str, Severity]
"""Place below the platform's data, what is wrong, and how bad."""


def dangling(policies: PolicySet, scopes: Collection[str] = ()) -> list[Violation]:
    """Find what is named and nothing has; nothing of tables of another form than this build knows.

    Args:
        policies: the set.
        scopes: those that the sidecar asks clients for; none if that is not known here.
    """
    tables = platform_tables(policies)
    try:
        problems = [*_servers(tables), *_owners(tables, policies.teams), *_agents(tables), *_others(tables)]
        problems += _limits(tables, policies.teams)
        problems += _databases(tables)
        problems += _asked(tables, scopes)
    except (KeyError, TypeError, AttributeError):
        return []  # the set's own schema lets it be so, or there is none
    found = []
    for place, message, severity in problems[:MOST_PROBLEMS]:
        file, line = where((*PLATFORM, *place), policies)
        text = f"{pointer((*PLATFORM, *place))}: {message}"
        rule = Rule.OWNER if place[-1] == "owner" else Rule.NAME
        found.append(Violation(file=file, line=line, rule=rule, message=text, severity=severity))
    return sorted(found, key=lambda one: (one.file, one.line))


def platform_tables(policies: PolicySet) -> dict[str, Any]:
    """Return ``data.mcp.platform``, put together as OPA does: a file in a subfolder is data at that path."""
    merged: dict[str, Any] = {}
    bundle = f"{PLATFORM[-1]}/"
    for path, content in policies.files:
        if path.startswith(bundle) and path.endswith("/data.json"):
            document: Any = decode_strictly(content)
            for name in reversed(path.removeprefix(bundle).split("/")[:-1]):
                document = {name: document}
            if isinstance(document, dict):  # OPA's own check says of anything else what is wrong with it
                _merge(merged, document)
    tables: Any = merged
    for name in PLATFORM:
        tables = tables.get(name, {}) if isinstance(tables, dict) else {}
    return tables if isinstance(tables, dict) else {}


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _servers(tables: Mapping[str, Any]) -> Iterator[_PlacedProblem]:
    servers, deployments = tables["servers"], tables["deployments"]
    for name, server in servers.items():
        if server["deployment"] not in deployments:
            yield (
                ("servers", name, "deployment"),
                _missing("deployment", server["deployment"], deployments),
                Severity.ERROR,
            )
    for index, route in enumerate(tables["routes"]):
        if route["server"] not in servers:
            yield ("routes", index, "server"), _missing("server", route["server"], servers), Severity.ERROR
    for place, table, known in _globs(tables):
        for index, pattern in enumerate(table):
            # A pattern may be there for what is to come; a name that is spelled out is meant.
            if pattern not in known and not GLOB_SIGNS & set(pattern):
                yield (*place, index), _missing(place[-1].rstrip("s"), pattern, known), Severity.WARNING


def _globs(tables: Mapping[str, Any]) -> Iterator[tuple[tuple[Any, ...], list[str], Iterable[str]]]:
    """Yield each list of names or globs of servers and deployments."""
    agents: list[tuple[tuple[str, ...], Any]] = [(("default",), tables["agents"]["default"])]
    agents += [(("registered", name), agent) for name, agent in tables["agents"]["registered"].items()]
    for place, agent in agents:
        yield ("agents", *place, "servers"), agent["servers"], tables["servers"]
        yield ("agents", *place, "deployments"), agent["deployments"], tables["deployments"]
    for index, grant in enumerate(tables["grants"]):
        yield ("grants", index, "deployments"), grant["deployments"], tables["deployments"]


def _databases(tables: Mapping[str, Any]) -> Iterator[_PlacedProblem]:
    every = holdings_of(tables, None)
    for place, text in unheld(tables, every):
        yield place, f"no deployment has a database {cut(text)}{nearest(text, every.names)}", Severity.WARNING


def _owners(tables: Mapping[str, Any], teams: Iterable[str]) -> Iterator[_PlacedProblem]:
    known = {_PLATFORM_OWNER, *teams}
    for deployment, tree in tables["deployments"].items():
        holdings: list[tuple[tuple[str, ...], Any]] = [(("whole",), tree["whole"])] if "whole" in tree else []
        holdings += [
            ((table, name), holding)
            for table in ("databases", "prefixes", "targets")
            for name, holding in tree.get(table, {}).items()
        ]
        for place, holding in holdings:
            if holding["owner"] not in known:
                message = f"there is no folder teams/{holding['owner']}{nearest(holding['owner'], known)}"
                at = ("deployments", deployment, *place, "owner")
                yield (
                    at,
                    f"{message}{'' if message.endswith('?') else ', so nothing is granted here'}",
                    Severity.WARNING,
                )


def _agents(tables: Mapping[str, Any]) -> Iterator[_PlacedProblem]:
    """Find registrations that look like patterns and are none: ids of agents are exact, but for those of an origin."""
    for name in tables["agents"]["registered"]:
        if "*" in name and not _ORIGIN.fullmatch(name):
            message = "no agent has this id: only https://host/* stands for several, those named by URLs of an origin"
            yield ("agents", "registered", name), message, Severity.WARNING


def _limits(tables: Mapping[str, Any], teams: Iterable[str]) -> Iterator[_PlacedProblem]:
    """Find limits that two entries share a name of, and those that would never count: a tool or team nobody has."""
    known = {"tools": {_ANY, *CATALOG}, "teams": {_ANY, _PLATFORM_OWNER, *teams}}
    seen: set[str] = set()
    for index, limit in enumerate(tables.get("limits", [])):
        if limit["id"] in seen:
            yield ("limits", index, "id"), f"there is a limit {limit['id']} already", Severity.ERROR
        seen.add(limit["id"])
        for part, names in known.items():
            for number, name in enumerate(limit[part]):
                # A server may have tools outside of the catalogue; what is nearly one of it is a slip.
                if name not in names and (part != "tools" or nearest(name, names)):
                    yield ("limits", index, part, number), _missing(part.rstrip("s"), name, names), Severity.WARNING


def _others(tables: Mapping[str, Any]) -> Iterator[_PlacedProblem]:
    for index, route in enumerate(tables["routes"]):
        for number, scope in enumerate(route["scopes"]):
            if scope != "*" and scope not in tables["scopes"]:
                place = ("routes", index, "scopes", number)
                yield place, _missing("scope", scope, tables["scopes"]), Severity.WARNING
    windows = [window["id"] for window in tables["windows"]]
    for index, glass in enumerate(tables["break_glass"]):
        for number, window in enumerate(glass["windows"]):
            if window not in windows:
                place = ("break_glass", index, "windows", number)
                yield place, _missing("window", window, windows), Severity.WARNING


def _asked(tables: Mapping[str, Any], scopes: Collection[str]) -> Iterator[_PlacedProblem]:
    """Find scopes that clients would be sent to get in vain: neither table has them, so they open nothing."""
    known = {*tables["scopes"], *(scope for route in tables["routes"] for scope in route["scopes"])} - {"*"}
    for scope in scopes:
        if scope not in known:
            message = (
                f"the setting scopes asks for {json.dumps(scope)}, which opens nothing here{nearest(scope, known)}"
            )
            yield ("scopes",), message, Severity.WARNING


def _missing(kind: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {kind} {name}{nearest(name, known)}"
