"""Where rules are said to stand, as OPA's own parser has it."""

import json
import subprocess
from typing import Any

import pytest

from sidecar.policyset import PolicySet, places_of_grant, places_of_reason
from tests import parts

SHIPPED = PolicySet.read(parts.ROOT / "policies")

TEAM = """package mcp.teams.t

import data.mcp.lib

# grant contains {"id": "in-a-comment"} if true
grant contains {"id": "one"} if lib.reads

grant contains {
	"id": "two",
	"filter": {"region": "if"},
} if {
	lib.reads
}

grant contains {"id": name} if some name in ["three", "four"]

deny contains "frozen" if input.access.database == "x"
"""


def of_team(text: str) -> PolicySet:
    return PolicySet(bundles=("teams/t",), files=(("teams/t/policy.rego", text.encode()),))


@pytest.mark.parametrize(
    ("grant", "lines"), [("one", [6]), ("two", [8]), ("three", [15]), ("in-a-comment", [15]), ("on", [15])]
)
def test_a_grant_is_where_its_id_is_and_else_where_an_id_is_made_up(grant: str, lines: list[int]) -> None:
    assert places_of_grant(of_team(TEAM), "t", grant) == tuple(f"teams/t/policy.rego:{line}" for line in lines)


@pytest.mark.parametrize(("owner", "grant"), [("other", "one"), ("", "one"), ("t/policy.rego", "one")])
def test_another_team_has_no_rule_for_it(owner: str, grant: str) -> None:
    assert places_of_grant(of_team(TEAM), owner, grant) == ()


def test_a_teams_own_deny_is_named_before_the_platforms_rule() -> None:
    deny, *platform = places_of_reason(SHIPPED, "team_denied", "analytics")
    assert deny.startswith("teams/analytics/policy.rego:")
    assert [place.partition(":")[0] for place in platform[-1:]] == ["platform/verdicts.rego"]
    assert places_of_reason(SHIPPED, "team_denied", "nobody") == (platform[-1],)


@pytest.mark.real
def test_every_reason_and_every_grant_of_the_shipped_set_is_found_on_its_line(opa_binary: str) -> None:
    """OPA's parser says where each rule's head begins."""
    found = set()
    for path, content in SHIPPED.files:
        if path.endswith(".rego") and path.startswith(("platform/", "teams/")):
            found |= {(path, *rule) for rule in _parsed(opa_binary, content)}
    assert {rule for _, rule, *_ in found} >= {"grant", "reasons"}
    for path, rule, name, line in found:
        owner = path.split("/")[1]
        places = places_of_grant(SHIPPED, owner, name) if rule == "grant" else places_of_reason(SHIPPED, name, "")
        assert f"{path}:{line}" in places, (rule, name)


def _parsed(opa: str, content: bytes) -> list[tuple[str, str, int]]:
    done = subprocess.run(
        [opa, "parse", "--format", "json", "--json-include", "locations", "/dev/stdin"],
        input=content,
        capture_output=True,
        check=True,
    )
    module: Any = json.loads(done.stdout)  # noqa: TID251 - OPA's own output
    rows: list[tuple[str, str, int]] = []
    for rule in module["rules"]:
        wanted = {"grant": "id", "reasons": "code"}.get(rule["head"].get("name", ""))
        members = rule["head"].get("key", {}).get("value", [])
        rows += [
            (rule["head"]["name"], pair[1]["value"], rule["location"]["row"])
            for pair in (members if wanted and isinstance(members, list) else ())
            if pair[0]["value"] == wanted and pair[1]["type"] == "string"
        ]
    return rows
