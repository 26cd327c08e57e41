"""``mcp-sidecar policy new``: a team's folder that passes check and tests from the first moment on."""

import json
import re
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError

_TEAM: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""The folder, the package and the owner are one name; in a package it stands without quotes."""

_TAKEN: Final = frozenset(
    {"platform", "system", "default", "not", "some", "every", "with", "as", "import", "package", "else", "if", "in"}
    | {"contains", "true", "false", "null", "input", "data"}
)
"""The platform's own owner, and words of Rego."""

_POLICY: Final = """\
# METADATA
# title: The TEAM team's database, TEAM
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
	lib.on("TEAM", ["*"])
	lib.in_any_group(data.mcp.grants.TEAM.readers)
}

grant contains {"id": "readers-see-the-catalogue"} if {
	lib.reads_metadata
	lib.on("TEAM", ["", "*"])
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
# title: The identifiers of the grants that match
ids(asked) := {grant.id | some grant in TEAM.grant with input as asked}

test_readers_read_documents_and_see_the_catalogue if {
	ids(question(["TEAM-readers"], "read", "TEAM", "anything")) == {"readers-read-documents"}
	ids(question(["TEAM-readers"], "metadata", "TEAM", "")) == {"readers-see-the-catalogue"}
}

test_nobody_else_and_nothing_else if {
	ids(question(["others"], "read", "TEAM", "anything")) == set()
	ids(question(["TEAM-readers"], "read", "another", "anything")) == set()
	ids(question(["TEAM-readers"], "insert", "TEAM", "anything")) == set()
	ids(question(["TEAM-readers"], "read", "TEAM", "")) == set()
}

test_a_frozen_collection_is_denied if {
	asked := question(["TEAM-readers"], "read", "TEAM", "anything")
	TEAM.deny == set() with input as asked
	TEAM.deny == {"frozen"} with input as asked with data.mcp.grants.TEAM.frozen as ["anything"]
	TEAM.deny == {"frozen-unknown"} with input as asked with data.mcp.grants.TEAM as {}
}
"""


def scaffold(team: str, folder: Path) -> list[Path]:
    """Write a team's folder and return its files.

    Args:
        team: the name of the team, its folder, its package and its first database.
        folder: the policy folder.

    Raises:
        ConfigurationError: the name cannot be a team's, the team is there already, or it is no policy folder.
    """
    if not _TEAM.fullmatch(team) or team in _TAKEN:
        raise ConfigurationError(
            f"{team!r} cannot be a team's name: use lower-case letters, digits and _, and no word of Rego"
        )
    home = folder / "teams" / team
    if not (folder / "platform" / ".manifest").is_file():
        raise ConfigurationError(f"{folder} is not a policy folder: it has no platform/.manifest")
    files = {
        ".manifest": _json({"roots": [f"mcp/teams/{team}", f"mcp/grants/{team}"], "rego_version": 1}),
        "data.json": _json({"mcp": {"grants": {team: {"readers": [f"{team}-readers"], "frozen": []}}}}),
        "policy.rego": _POLICY.replace("TEAM", team),
        "policy_test.rego": _TESTS.replace("TEAM", team),
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


def platform_data(team: str) -> str:
    """Return what the platform team adds to its data so that calls reach the new team, as two pieces of JSON."""
    holding = {
        team: {
            "owner": team,
            "delegated": [{"kinds": ["read", "metadata"], "collections": ["", "*"]}],
            "obligations": [],
        }
    }
    route = {
        "id": f"{team}-readers",
        "groups": [f"{team}-readers"],
        "agents": ["*"],
        "scopes": ["*"],
        "kinds": ["read", "metadata"],
        "server": "<a server of that deployment>",
    }
    return (
        f"under deployments.<deployment>.databases:\n{_json(holding)}\n"
        f"in routes, unless one covers the group already:\n{_json(route)}"
    )


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
