"""The role that a server's database user needs: what policy can route there, and nothing else.

MongoDB has no patterns of collections. A glob of a policy becomes the collections that are there now, or, where those
are not known, the whole database, which is marked as wider.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from sidecar.doctor.needs import OF_KIND, WHOLE_DATABASE, WRITING_KINDS, NeededAccess
from sidecar.doctor.privileges import DatabaseUser
from sidecar.model import AccessKind, JsonObject, JsonValue

ADMIN: Final = "admin"
EVERY: Final = "*"
"""The glob of all collections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRole:
    """The role of one server, and what it takes to give it to the server's user."""

    server: str
    resources: Mapping[tuple[str, str], frozenset[str]]
    """Actions by database and collection; an empty collection is the whole database."""
    wider: tuple[str, ...]
    """Databases that are given whole because a policy names collections by a pattern."""
    unwritten: tuple[str, ...]
    """Kinds that policy routes to the server and that it cannot do, because it is read-only."""
    user: DatabaseUser

    @property
    def name(self) -> str:
        """The role's name."""
        return f"mcp-sidecar-{self.server}"

    def commands(self) -> list[JsonObject]:
        """Return the commands that make the role and give it to the user, to be run on the database ``admin``."""
        has_it = any(role == self.name for role, _ in self.user.roles)
        make: JsonObject = {
            ("updateRole" if has_it else "createRole"): self.name,
            "privileges": [self._privilege(place) for place in sorted(self.resources)],
            "roles": [],
        }
        only: list[JsonValue] = [{"role": self.name, "db": ADMIN}]
        if self.user.name and self.user.roles == ((self.name, ADMIN),):
            return [make]
        if self.user.name:
            return [make, {"updateUser": self.user.name, "roles": only}]
        return [make, {"createUser": self.name, "pwd": "<a password>", "roles": only}]

    def _privilege(self, place: tuple[str, str]) -> JsonObject:
        database, collection = place
        return {"resource": {"db": database, "collection": collection}, "actions": [*sorted(self.resources[place])]}

    def differences(self) -> list[str]:
        """Say what the user lacks, and what it has besides."""
        if not self.user.name:
            return []
        held: dict[tuple[str, str], frozenset[str]] = {}
        for one in self.user.privileges:
            place = (one.database, one.collection)
            held[place] = held.get(place, frozenset()) | one.actions
        lacking = [
            f"lacks {', '.join(less)} on {_place(place)}"
            for place, actions in sorted(self.resources.items())
            if (less := sorted(actions - held.get(place, frozenset()) - held.get((place[0], ""), frozenset())))
        ]
        more = [
            f"has {', '.join(further)} on {_place(place)} besides"
            for place, actions in sorted(held.items())
            if (further := sorted(actions - self.resources.get(place, frozenset())))
        ]
        return [*lacking, *more]

    def script(self) -> list[str]:
        """Return lines for mongosh; every name in them is a JSON literal."""
        admin = f"db.getSiblingDB({json.dumps(ADMIN)})"
        lines = [f"// the role of the server {json.dumps(self.server)}: what policy can route to it"]
        lines += [
            f"// wider than policy, which names collections by a pattern: {json.dumps(one)}" for one in self.wider
        ]
        lines += [f"// left out, because the server is read-only: {one}" for one in self.unwritten]
        for command in self.commands():
            text = json.dumps(command)
            if "createUser" in command:
                text = text.replace(json.dumps("<a password>"), "passwordPrompt()")
            lines.append(f"{admin}.runCommand({text})")
        lines += [f"// now: {json.dumps(self.user.name)} {one}" for one in self.differences()]
        return lines

    def document(self) -> JsonObject:
        """Return it as JSON."""
        return {
            "server": self.server,
            "database": ADMIN,
            "commands": [*self.commands()],
            "wider": [*self.wider],
            "left_out": [*self.unwritten],
            "differences": [*self.differences()],
        }


def role_of(
    server: str,
    needs: Iterable[NeededAccess],
    user: DatabaseUser,
    live: Mapping[str, Collection[str]],
    *,
    read_only: bool,
) -> ServerRole:
    """Return the role that a server needs.

    Args:
        server: its name in the settings.
        needs: what policy can route to it.
        user: its database user as it is.
        live: the collections of databases that could be listed.
        read_only: whether the server cannot write.
    """
    resources: dict[tuple[str, str], set[str]] = {}
    wider, unwritten = set(), set()
    for need in needs:
        if need.kind not in OF_KIND:
            continue
        if read_only and need.kind in WRITING_KINDS:
            unwritten.add(need.kind)
            continue
        places, is_wider = _places(need, live)
        wider |= {need.database} if is_wider else set()
        for place in places:
            actions = set(need.actions)
            if need.kind == AccessKind.METADATA.value:
                actions = actions & WHOLE_DATABASE if not need.collection else actions - WHOLE_DATABASE
            resources.setdefault((need.database, place), set()).update(actions)
    return ServerRole(
        server=server,
        resources=_without_repetition(resources),
        wider=tuple(sorted(wider)),
        unwritten=tuple(sorted(unwritten)),
        user=user,
    )


def _places(need: NeededAccess, live: Mapping[str, Collection[str]]) -> tuple[Sequence[str], bool]:
    """Return the collections that an access stands for, and whether they are more than it names."""
    if need.collection in {"", EVERY}:
        return ("",), False
    if not need.is_glob:
        return (need.collection,), False
    there = live.get(need.database)
    if there is not None and "{" not in need.collection:
        return [one for one in there if fnmatchcase(one, need.collection)], False
    return ("",), True


def _without_repetition(resources: Mapping[tuple[str, str], set[str]]) -> dict[tuple[str, str], frozenset[str]]:
    """Leave out of a collection what its whole database gives."""
    kept = {}
    for (database, collection), actions in resources.items():
        whole = resources.get((database, ""), set()) if collection else set()
        if left := actions - whole:
            kept[database, collection] = frozenset(left)
    return kept


def _place(place: tuple[str, str]) -> str:
    database, collection = place
    return json.dumps(f"{database}.{collection}" if collection else f"{database} (every collection)")
