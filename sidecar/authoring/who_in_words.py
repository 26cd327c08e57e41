"""``policy who`` for people: who reaches a place, by which grant and line, on which server."""

from collections.abc import Iterator
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.authoring.rows_in_words import cell, conditions, items, limits
from sidecar.model import JsonObject
from sidecar.printing import escaped


def print_who(document: JsonObject, console: Console) -> None:
    """Print who could reach a place, one row for each grant by each route; readable at 80 columns."""
    asked: Any = document["place"]
    if "target" in asked:
        place = f"{asked['target']['kind']}/{asked['target']['id']}"
    else:
        place = asked["database"] if asked["collection"] is None else f"{asked['database']}.{asked['collection']}"
    held: Any = document["held"]
    for one in held:
        console.print(Text(escaped(f"{place} belongs to {one['owner']} in the deployment {one['deployment']}")))
    if not held:
        console.print(Text(escaped(f"{place} has no owner: every call on it is refused"), style="yellow"))
        return
    rows: Any = document["reach"]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, most in (("who", 28), ("may", 10), ("by, and under what", None)):
        table.add_column(column, overflow="fold", max_width=most)
    for row in rows:
        cells = ("\n".join(_caller(row)), "\n".join(row["kinds"]), "\n".join(_reached_by(row)))
        table.add_row(*(Text(cell(text)) for text in cells))
    console.print(table if rows else Text("no caller reaches it: no grant meets a route"))
    for line, style in _beside_the_callers(document):
        console.print(Text(escaped(line), style=style))


def _beside_the_callers(document: JsonObject) -> Iterator[tuple[str, str]]:
    denies: Any = document["denies"]
    for owner, codes in denies.items():
        yield f"{owner} denies, over every grant: {', '.join(codes)}", "yellow"
    for closed in items(document["closed"]):
        yield f"{closed}, so it counts for nobody", "yellow"
    for view in items(document["views"]):
        yield f"also read through the view {view}, without a grant here: see policy who {view}", "yellow"
    suspended: Any = document["suspended"]
    who = [f"agent {agent}" for agent in suspended["agents"]]
    who += [f"person {one['id']} of {one['issuer']}" for one in suspended["subjects"]]
    if who:
        yield f"suspended by the platform: {', '.join(who)}; each of their calls is refused", "red"


def _caller(row: Any) -> Iterator[str]:
    groups = [" and ".join(group) for group in row["groups"] if group]
    yield f"group {' or '.join(groups)}" if groups else "any group"
    if row["asks_more"]:
        yield f"also in {' or '.join(row['route_groups'])}"
    yield from (f"role {role}" for role in row["roles"])
    yield " or ".join(_agents(row))
    yield " or ".join(f"scope {scope}{_of(row['scopes_of'], scope)}" for scope in row["scopes"])
    if "*" not in row["route_scopes"] and not {*row["scopes"]} <= {*row["route_scopes"]}:
        yield f"also {' or '.join(row['route_scopes'])}"
    if row["issuers"]:
        yield f"issuer {' or '.join(row['issuers'])}"


def _agents(row: Any) -> Iterator[str]:
    """Name the agents; of a registered one only what it alone may is told, where all others may it too."""
    named = [name for name in row["agents"] if name != "*"]
    if "*" not in row["agents"]:
        yield from (f"agent {name}{_of(row['agents_of'], name)}" for name in named)
        return
    yield f"any agent{_of(row['agents_of'], '*')}"
    yield from (f"agent {name}{_of(row['agents_of'], name)}" for name in named if row["agents_of"].get(name))


def _of(issuers: Any, name: str) -> str:
    return f" of {' or '.join(issuers[name])}" if issuers.get(name) else ""


def _reached_by(row: Any) -> Iterator[str]:
    yield f"{row['owner']}/{row['grant']}"
    yield from (f"  {at}" for at in row["at"])
    yield f"on {row['server']} by {row['route']}"
    if row["collections"] is not None:
        yield f"- collections {', '.join(name or '(the database)' for name in row['collections'])}"
    yield from (f"- {condition}" for condition in conditions(row))
    yield from (f"- {limit}" for limit in limits(row))
    if row["refused"] is not None:
        yield f"- REFUSED{_BY.get(row['refused'], ' by this build')}: {row['refused']}"
    elif row["suspended"]:
        yield f"- SUSPENDED: agent {', '.join(row['suspended'])}"
    yield from (f"- OFF: {off}" for off in row["off"])


_BY: Final = {"suspended": "", "system_namespace": ""}
"""What every build refuses."""
