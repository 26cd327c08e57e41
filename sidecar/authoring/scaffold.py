"""``mcp-sidecar policy new``: a team's folder that passes check and tests from the first moment on."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from sidecar.authoring.platform_entry import Ownership, pretty
from sidecar.errors import ConfigurationError

_TEAM: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""The folder, the package and the owner are one name; in a package it stands without quotes."""

_TAKEN: Final = frozenset(
    {"platform", "system", "default", "not", "some", "every", "with", "as", "import", "package", "else", "if", "in"}
    | {"contains", "true", "false", "null", "input", "data"}
)
"""The platform's own owner, and words of Rego."""

_DATABASE: Final = re.compile(r"[A-Za-z0-9_-]{1,63}\*?")
_SERVER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""As the settings have it (``servers.name``)."""
_COLLECTION: Final = re.compile(r"[A-Za-z0-9_.*-]{1,120}")

_POLICY: Final = """\
# METADATA
# title: The TEAM team's DATABASES
# description: Readers read the documents and see the names; nobody writes.
# schemas:
#   - input: schema.question
package mcp.teams.TEAM

import data.mcp.lib

# METADATA
# title: What the team grants
# scope: document
grant contains {"id": "readers-read-documents"} if {
	lib.reads
	ON_DOCUMENTS
	lib.in_any_group(data.mcp.grants.TEAM.readers)
}

grant contains {"id": "readers-see-the-catalogue"} if {
	lib.reads_metadata
	ON_NAMES
	lib.in_any_group(data.mcp.grants.TEAM.readers)
}

# METADATA
# title: What the team denies; a deny beats every grant
# scope: document
deny contains "frozen" if input.access.collection in data.mcp.grants.TEAM.frozen

# A deny that reads data says what happens when the data is not there.
deny contains "frozen-unknown" if not data.mcp.grants.TEAM.frozen
"""

_TESTS: Final = """\
# METADATA
# title: Tests of the TEAM team's policy
package mcp.teams.TEAM.policy_test

import data.mcp.teams.TEAM

# METADATA
# title: A question to the team
question(groups, kind, database, collection) := {
	"subject": {"groups": groups},
	"access": {"kind": kind, "database": database, "collection": collection},
}

# METADATA
# title: The groups of the readers
readers := data.mcp.grants.TEAM.readers

# METADATA
# title: The identifiers of the grants that match
ids(asked) := {grant.id | some grant in TEAM.grant with input as asked}

test_readers_read_documents_and_see_the_catalogue if {
	every database in {OURS} {
		ids(question(readers, "read", database, "COLLECTION")) == {"readers-read-documents"}
		ids(question(readers, "metadata", database, "")) == {"readers-see-the-catalogue"}
	}
}

test_nobody_else_and_nothing_else if {
	ids(question(["not-readers"], "read", "DATABASE", "COLLECTION")) == set()
	ids(question(readers, "read", "ELSEWHERE", "COLLECTION")) == set()
	ids(question(readers, "insert", "DATABASE", "COLLECTION")) == set()
	ids(question(readers, "read", "DATABASE", "")) == set()OUTSIDE
}

test_a_frozen_collection_is_denied if {
	asked := question(readers, "read", "DATABASE", "COLLECTION")
	TEAM.deny == set() with input as asked
	TEAM.deny == {"frozen"} with input as asked with data.mcp.grants.TEAM.frozen as ["COLLECTION"]
	TEAM.deny == {"frozen-unknown"} with input as asked with data.mcp.grants.TEAM as {}
}
"""


def ownership(
    team: str,
    databases: Sequence[str] = (),
    collections: Sequence[str] = (),
    *,
    group: str | None = None,
    deployment: str | None = None,
    server: str | None = None,
) -> Ownership:
    """Return what a team is to own.

    Args:
        team: its folder, its package and its name as an owner.
        databases: names, or beginnings of names followed by ``*``; none is one of the team's own name.
        collections: names, with ``*`` for any characters; none is every collection.
        group: whose members read; None is one of the team's name with ``-readers`` behind it.
        deployment: where the databases are; None is the only one.
        server: the server of the readers' route; None is the only one.

    Raises:
        ConfigurationError: what is named cannot be a team, be owned, be a group or be a server.
    """
    if not _TEAM.fullmatch(team) or team in _TAKEN:
        raise ConfigurationError(
            f"{team!r} cannot be a team's name: use lower-case letters, digits and _, and no word of Rego"
        )
    for name in databases:
        if not _DATABASE.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be owned: use a database's name, or how names begin (invoices_*)"
            )
    for name in collections:
        if not _COLLECTION.fullmatch(name):
            raise ConfigurationError(f"{name!r} cannot be granted here: use names of collections, with * in them")
    if group is not None and (not group.isprintable() or not group.strip() or group == "*"):
        raise ConfigurationError(f"{group!r} cannot be a group's name")
    if server is not None and not _SERVER.fullmatch(server):
        raise ConfigurationError(
            f"{server!r} cannot be a server's name: use lower-case letters, digits and -, 63 at most"
        )
    return Ownership(
        team=team,
        group=group or f"{team}-readers",
        databases=tuple(dict.fromkeys(databases)) or (team,),
        collections=tuple(dict.fromkeys(collections)) or ("*",),
        deployment=deployment,
        server=server,
    )


def scaffold(wanted: Ownership, folder: Path) -> list[Path]:
    """Write a team's folder and return its files.

    Args:
        wanted: the team and what it is to own.
        folder: the policy folder.

    Raises:
        ConfigurationError: the team is there already, or it is no policy folder.
    """
    team = wanted.team
    home = folder / "teams" / team
    if not (folder / "platform" / ".manifest").is_file():
        raise ConfigurationError(f"{folder} is not a policy folder: it has no platform/.manifest")
    filled = _Filled(wanted)
    files = {
        ".manifest": _json({"roots": [f"mcp/teams/{team}", f"mcp/grants/{team}"], "rego_version": 1}),
        "data.json": _json({"mcp": {"grants": {team: {"readers": [wanted.group], "frozen": []}}}}),
        "policy.rego": filled.text(_POLICY),
        "policy_test.rego": filled.text(_TESTS),
    }
    try:
        home.mkdir(parents=True)
        for name, text in files.items():
            (home / name).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise ConfigurationError(f"{home} exists already: choose another team name, or remove the folder") from None
    except OSError as error:
        raise ConfigurationError(f"{home} cannot be written: {error.strerror}") from error
    return [home / name for name in files]


class _Filled:
    """The templates with what one team owns."""

    def __init__(self, wanted: Ownership) -> None:
        self._wanted = wanted
        self.databases = [example_of(name) for name in wanted.databases]
        self.collection = example_of(wanted.collections[0])

    def text(self, template: str) -> str:
        """Return a template with its words in capitals replaced."""
        wanted = self._wanted
        elsewhere = _outside(wanted.databases)
        outside = ""
        if "*" not in wanted.collections:
            outside = f'\n\tids(question(readers, "read", "DATABASE", "{_outside(wanted.collections)}")) == set()'
        words = {
            "OUTSIDE": outside,
            "ON_DOCUMENTS": self._condition(wanted.collections),
            "ON_NAMES": self._condition(("", *wanted.collections)),
            "DATABASES": f"database{'s' if len(wanted.databases) > 1 else ''}, {', '.join(wanted.databases)}",
            "OURS": _listed(self.databases),
            "DATABASE": self.databases[0],
            "COLLECTION": self.collection,
            "ELSEWHERE": elsewhere,
            "TEAM": wanted.team,
        }
        for word, meaning in words.items():
            template = re.sub(rf"\b{word}\b|(?<=\)){word}\b", meaning.replace("\\", r"\\"), template)
        return template

    def _condition(self, collections: Sequence[str]) -> str:
        databases = self._wanted.databases
        if len(databases) == 1 and not databases[0].endswith("*"):
            return f'lib.on("{databases[0]}", [{_listed(collections)}])'
        return f"lib.on_any([{_listed(databases)}], [{_listed(collections)}])"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def example_of(glob: str) -> str:
    """Return a name that a glob matches."""
    return "anything" if glob == "*" else glob.replace("*", "1")


def _outside(globs: Sequence[str]) -> str:
    """Return a name that none of the globs matches."""
    forms = [re.compile(re.escape(glob).replace(r"\*", ".*")) for glob in globs]
    candidates = ("another", *(f"other-{number}" for number in range(100)), "zzz")
    return next((name for name in candidates if not any(form.fullmatch(name) for form in forms)), "another")


def _json(document: object) -> str:
    return f"{pretty(document)}\n"
