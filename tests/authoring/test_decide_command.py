"""``mcp-sidecar decide``: derived, asked and answered by a real OPA, and explained with file and line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.authoring import wording
from sidecar.model import Trait
from tests import parts
from tests.patience import HANG_S
from tests.policy_sets import quick_copy
from tests.terminal import ACTS, on_a_terminal

POLICIES = parts.ROOT / "policies"
ENVIRONMENT = {"PATH": str(parts.BIN), "PYTHONPATH": str(parts.ROOT), "COLUMNS": "200"}


def asked(
    *groups: str, tool: str = "find", database: str = "sales", collection: str = "orders", **claims: Any
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"connectionId": "preconfigured", "database": database, "collection": collection}
    arguments |= {"documents": [{"a": 1}]} if tool == "insert-many" else {"filter": {}, "limit": 5}
    caller = {
        "sub": "larry",
        "client_id": "claude-desktop",
        "groups": list(groups),
        "scope": "mongodb:read mongodb:write",
    }
    return {"claims": {**caller, **claims}, "call": {"name": tool, "arguments": arguments}}


def run(document: Any, *options: str, policies: Path | None = POLICIES) -> subprocess.CompletedProcess[str]:
    folder = ("--policies", str(policies)) if policies is not None else ()
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "decide", *folder, *options],
        env=ENVIRONMENT,
        cwd=parts.ROOT,
        input=document if isinstance(document, str) else json.dumps(document),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode in {0, 1}, done.stderr
    return msgspec.json.decode(done.stdout)


def line_of(file: str, text: str) -> str:
    """``file:line`` of the first line that holds a text."""
    for number, line in enumerate((POLICIES / file).read_text().splitlines(), 1):
        if text in line:
            return f"{file}:{number}"
    raise AssertionError(text)


def test_an_allowed_call_is_status_zero_and_shows_command_question_and_decision() -> None:
    done = run(asked("analysts"))
    assert done.returncode == 0, done.stderr
    document = answer(done)
    assert document.keys() == {"command", "question", "decision", "enforcement"}
    assert document["enforcement"] == {"allow": True, "reasons": []}
    assert document["decision"]["allow"] is True
    assert document["decision"]["server"] == "demo-ro"
    assert document["decision"]["revision"].startswith("sha256:")
    assert document["question"]["accesses"] == document["command"]["accesses"]


def test_a_denied_call_is_status_one() -> None:
    done = run(asked("loaders"))
    assert done.returncode == 1
    reasons = [{"access": 0, "code": "not_granted", "source": "analytics"}]
    assert answer(done)["decision"]["reasons"] == reasons
    assert answer(done)["enforcement"] == {"allow": False, "reasons": reasons}


def test_an_allow_that_the_sidecar_cannot_carry_out_is_a_refusal() -> None:
    """What ``serve`` makes of it is in tests/integration/test_decide_agrees.py."""
    masked = asked("support", database="support", collection="tickets")
    masked["call"]["arguments"]["filter"] = {"customer.email": "ann@example.com"}
    done = run(masked)
    assert done.returncode == 1
    document = answer(done)
    assert document["decision"]["allow"] is True
    assert document["decision"]["accesses"][0]["mask"]
    reasons = [{"code": "obligation_unsupported", "source": "sidecar", "access": None}]
    assert document["enforcement"].items() >= {"allow": False, "reasons": reasons}.items()
    assert "customer.email" in document["unmet"]
    assert answer(run(masked, "--explain"))["enforcement"] == document["enforcement"]


def test_what_is_sent_under_a_mask_is_shown() -> None:
    done = run(asked("support", database="support", collection="tickets"))
    assert done.returncode == 0, done.stderr
    sent = answer(done)["forwarded"]
    assert sent["projection"] == {"customer.address": 0, "customer.email": 0, "customer.phone": 0}


def test_what_is_taken_out_of_an_answer_is_said(tmp_path: Path) -> None:
    copy = quick_copy(tmp_path / "policies")
    policy = copy / "teams/support/policy.rego"
    grant = '{"id": "support-sees-the-catalogue"'
    policy.write_text(policy.read_text().replace(grant, f'{grant}, "mask": data.mcp.grants.support.personal'))
    indexes = asked("support", tool="collection-indexes", database="support", collection="tickets")
    del indexes["call"]["arguments"]["filter"], indexes["call"]["arguments"]["limit"]
    assert answer(run(indexes, policies=copy))["cut_down"] == "indexes"
    assert "cut_down" not in answer(run(indexes))


def test_the_call_may_stand_beside_the_claims() -> None:
    document = asked("analysts")
    flat = {"claims": document["claims"], **document["call"]}
    assert answer(run(flat))["decision"] == answer(run(document))["decision"]


def test_other_claims_reach_policies_and_that_is_said() -> None:
    document = answer(run(asked("regional-analysts", region="EU")))
    assert document["decision"]["accesses"][0]["filter"] == {"region": "EU"}
    assert "region" in document["notes"][0]


def test_the_moment_can_be_chosen() -> None:
    call = asked("loaders", tool="insert-many", database="staging", client_id="nightly-loader")
    assert run(call, "--at", "2026-01-05T09:00").returncode == 0
    assert run(call, "--at", "2026-01-04T09:00").returncode == 1
    assert run(call, "--at", "yesterday").returncode == 2


@pytest.mark.parametrize(
    ("document", "code", "path"),
    [
        ("", "parse_error", ""),
        ("{", "parse_error", ""),
        ('{"claims": {}, "claims": {}}', "parse_error", ""),
        ({}, "invalid_request", ""),
        ({"claims": {}}, "invalid_request", ""),
        ({"claims": [], "call": {}}, "invalid_request", "/claims"),
        ({"claims": {"sub": "a"}, "call": {"name": "find"}}, "token_rejected", "/claims"),
        ({**asked("x"), "call": {"name": "nothing"}}, "unknown_tool", "/call/name"),
        ({**asked("x"), "call": {"name": "find", "arguments": {}}}, "missing_argument", None),
        ({**asked("x"), "call": []}, "invalid_request", "/call"),
        ({**asked("x"), "extra": 1}, "invalid_request", ""),
    ],
)
def test_what_is_refused_before_policy_is_asked_says_so(document: Any, code: str, path: str | None) -> None:
    done = run(document)
    assert done.returncode == 1, done.stderr
    refused = answer(done)["refused"]
    assert refused["code"] == code
    assert path is None or refused["path"] == path
    assert refused["message"]


def test_without_a_folder_and_without_settings_it_is_a_configuration_error() -> None:
    assert run(asked("analysts"), policies=None).returncode == 78


# --- explained --------------------------------------------------------------------------------------------------------


def explanation(document: Any, *, policies: Path = POLICIES) -> Any:
    return answer(run(document, "--explain", policies=policies))["explanation"]


def test_an_allow_names_the_grant_and_its_place() -> None:
    access = explanation(asked("analysts"))["accesses"][0]
    assert access["owner"] == "analytics"
    place = line_of("teams/analytics/policy.rego", '"analysts-read-orders"')
    assert access["granted"] == [{"grant": "analysts-read-orders", "at": [place]}]


def test_a_deny_names_the_condition_that_failed_and_why() -> None:
    why = explanation(asked("loaders"))
    nearest = why["accesses"][0]["not_granted"][0]
    assert nearest["grant"] == "analysts-read-orders"
    assert nearest["failed"]["at"] == line_of("teams/analytics/policy.rego", 'lib.in_group("analysts")')
    assert nearest["failed"]["text"] == 'lib.in_group("analysts")'
    assert nearest["because"]["at"] == line_of("platform/lib/lib.rego", "in_group(group) if")
    assert nearest["because"]["values"] == {"input.subject.groups": ["loaders"], "group": "analysts"}
    (reason,) = why["reasons"]
    assert reason["at"] == [line_of("platform/verdicts.rego", '"code": "not_granted"')]
    assert reason["remedy"] == "Ask the owner for a grant."


def test_a_claim_that_is_missing_is_named() -> None:
    grants = explanation(asked("regional-analysts"))["accesses"][0]["not_granted"]
    (regional,) = [grant for grant in grants if grant["grant"] == "regional-analysts-read-own-region"]
    assert regional["failed"]["text"] == "region := input.subject.claims.region"
    assert regional["failed"]["missing"] == ["input.subject.claims.region"]


def test_a_teams_deny_is_named() -> None:
    pipeline = [{"$lookup": {"from": "people", "localField": "a", "foreignField": "b", "as": "c"}}]
    call = asked("hr-admins", database="hr", collection="salaries")
    call["call"] = {
        "name": "aggregate",
        "arguments": {
            "connectionId": "preconfigured",
            "database": "hr",
            "collection": "salaries",
            "pipeline": pipeline,
        },
    }
    entry = explanation(call)["accesses"][0]
    assert [deny["code"] for deny in entry["denied"]] == ["salaries-in-a-pipeline"]
    assert entry["denied"][0]["at"] == line_of("teams/people/policy.rego", '"salaries-in-a-pipeline"')


def test_what_nobody_owns_and_what_is_not_delegated_is_said() -> None:
    nobody = explanation(asked("analysts", database="elsewhere"))
    assert (nobody["accesses"][0]["owner"], [one["code"] for one in nobody["reasons"]]) == ("", ["no_owner"])
    beyond = explanation(asked("loaders", tool="insert-many", database="hr", collection="x"))
    entry = beyond["accesses"][0]
    assert (entry["owner"], entry["covered"]) == ("people", False)
    assert entry["delegated"][0]["kinds"] == ["read", "metadata"]


def test_the_route_the_agent_and_the_scopes_are_told() -> None:
    call = explanation(asked("analysts", tool="insert-many"))["call"]
    assert call["route"] is None
    assert call["routes_of_caller"] == ["people-read-where-nothing-can-be-written"]
    assert call["agent"] == {"id": "claude-desktop", "registered": False, "kinds": ["read", "metadata"]}
    assert "insert" in call["kinds_of_scopes"]
    assert explanation(asked("analysts"))["call"]["server"] == "demo-ro"


def test_the_scopes_that_would_be_enough_are_told() -> None:
    place = {"tool": "insert-many", "database": "staging", "client_id": "nightly-loader"}
    moment = ("--at", "2026-01-05T09:00")
    lacking = asked("loaders", **place, scope="mongodb:read openid")
    decision = answer(run(lacking, *moment))["decision"]
    assert decision["step_up"] == {"missing": ["mongodb:write"], "held": ["mongodb:read"]}
    line = "with mongodb:write in the token too, policy would allow it"
    for options in ((), ("--explain",)):
        assert line in shown(lacking, *moment, *options)
        assert line not in shown(
            asked("loaders", **place | {"client_id": "x"}, scope="mongodb:read"), *moment, *options
        )
        assert line not in shown(asked("loaders", **place), *moment, *options)


def test_a_policy_that_ends_in_an_error_is_a_configuration_error_with_its_place(tmp_path: Path) -> None:
    policies = quick_copy(tmp_path / "policies")
    policy = policies / "teams/analytics/policy.rego"
    policy.write_text(policy.read_text() + '\ngrant contains {"id": "x"} if to_number("x") == 1\n')
    done = run(asked("analysts"), policies=policies)
    assert done.returncode == 78
    assert "teams/analytics/policy.rego:" in done.stderr


def test_a_grant_that_is_not_of_the_contract_is_a_deny(tmp_path: Path) -> None:
    policies = quick_copy(tmp_path / "policies")
    policy = policies / "teams/analytics/policy.rego"
    policy.write_text(policy.read_text() + '\ngrant contains {"id": "x", "mask": []} if lib.reads\n')
    done = run(asked("analysts"), "--explain", policies=policies)
    assert done.returncode == 1
    assert [one["code"] for one in answer(done)["explanation"]["reasons"]] == ["team_policy_error"]


LEAD: dict[str, Any] = {"database": "support", "collection": "tickets"}


def test_an_approval_stands_beside_the_other_obligations() -> None:
    (entry,) = explanation(asked("support-leads", **LEAD))["accesses"]
    assert entry["obligations"]["approval"] == ["second_person"]
    assert 'with approval ["second_person"]' in shown(asked("support-leads", **LEAD), "--explain")
    (both,) = explanation(asked("support", "support-leads", **LEAD))["accesses"]
    assert both["obligations"]["approval"] == []


def test_the_approval_of_a_grant_is_said_where_something_else_denies() -> None:
    why = explanation(asked("support-leads", **LEAD, scope="nothing"))
    assert why["accesses"][0]["obligations"]["approval"] == ["second_person"]


@pytest.mark.parametrize(("kind", "who"), [("confirm", "the user, asked"), ("second_person", "a second person")])
def test_a_call_that_waits_is_refused_and_says_for_whom(tmp_path: Path, kind: str, who: str) -> None:
    policies = quick_copy(tmp_path / "policies")
    file = policies / "platform/data.json"
    data: Any = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    obligation = {"id": "waits", "kinds": ["read"], "collections": ["orders"], "approval": kind}
    data["mcp"]["platform"]["deployments"]["demo"]["databases"]["sales"]["obligations"] = [obligation]
    file.write_text(json.dumps(data))
    done = run(asked("analysts"), policies=policies)
    assert (done.returncode, answer(done)["waits"]) == (1, {kind: [0]})
    reasons = [{"access": 0, "code": "approval_required", "source": "sidecar"}]
    assert answer(done)["enforcement"] == {"allow": False, "reasons": reasons}
    assert any(who in line for line, _ in wording._waiting_lines(answer(done)["waits"]))


def test_a_grant_with_data_in_its_head_is_named_by_its_id() -> None:
    place = line_of("teams/support/policy.rego", '"support-reads-tickets"')
    (entry,) = explanation(asked("analysts", **LEAD))["accesses"]
    assert {"support-reads-tickets"} == {one["grant"] for one in entry["not_granted"] if one["at"] == place}
    assert "a computed grant" not in shown(asked("analysts", **LEAD), "--explain")
    (granted,) = explanation(asked("support", **LEAD))["accesses"]
    assert granted["granted"] == [{"grant": "support-reads-tickets", "at": [place]}]


# --- kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [("analysts",), ("loaders",)], ids=["allowed", "denied"])
def test_a_case_is_decided_again_as_it_was_printed(tmp_path: Path, groups: tuple[str, ...]) -> None:
    policies = quick_copy(tmp_path / "policies")
    done = run(asked(*groups), "--as-case", "Orders, read by Ärzte!", policies=policies)
    assert done.returncode == 0, done.stderr
    document = msgspec.json.decode(done.stdout)
    (case,) = document.values()
    assert list(document) == ["orders-read-by-ärzte"]
    assert list(case) == ["title", "input", "data", "decision"]
    assert (case["title"], case["data"], case["decision"]["revision"]) == ("Orders, read by Ärzte!", {}, "")
    (policies / "cases/kept.json").write_text(done.stdout)
    paths = ["platform", "system", *sorted(f"teams/{team.name}" for team in (policies / "teams").iterdir())]
    command = [str(parts.BIN / "opa"), "test", "--timeout", "60s", "--run", "test_case", *paths, "mcp.cases:cases"]
    tested = subprocess.run(command, cwd=policies, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    case["decision"]["allow"] = not case["decision"]["allow"]
    (policies / "cases/kept.json").write_text(json.dumps(document))
    assert subprocess.run(command, cwd=policies, capture_output=True, timeout=HANG_S, check=False).returncode != 0


def test_what_policy_is_not_asked_about_is_no_case() -> None:
    done = run({"claims": {}}, "--as-case", "x")
    assert (done.returncode, done.stdout) == (78, "")
    assert "invalid_request" in done.stderr
    assert run(asked("analysts"), "--as-case", "!").returncode == 78
    assert run(asked("analysts"), "--as-case", "x", "--explain").returncode == 2


def shown(document: Any, *options: str) -> str:
    """What a person sees."""
    stdin = json.dumps(document).encode()
    return on_a_terminal("decide", "--policies", str(POLICIES), *options, stdin=stdin)[1]


def test_on_a_terminal_the_answer_is_in_words() -> None:
    seen = shown(asked("loaders"), "--explain")
    assert "DENY: find by larry via claude-desktop" in seen
    assert "not granted by analysts-read-orders (teams/analytics/policy.rego:" in seen
    assert 'input.subject.groups is ["loaders"]' in seen
    assert shown(asked("loaders"), "--json").lstrip().startswith("{")


def test_a_name_cannot_write_over_the_terminal() -> None:
    seen = shown(asked("loaders", collection="orders\u202e\u0085x"), "--explain")
    assert [sequence for sequence in ACTS if sequence in seen] == []


# --- what decided -----------------------------------------------------------------------------------------------------

SHOWING = """
grant contains {"id": "on-some-days"} if {
	lib.reads
	today := time.weekday(input.context.time_ns)
	today in data.mcp.grants.analytics.days
}

grant contains {"id": "some-day"} if {
	lib.reads
	input.context.time_ns > data.mcp.grants.analytics.begins
}

grant contains {"id": "for-readers"} if {
	lib.reads
	lib.in_any_group(data.mcp.grants.analytics.readers)
}

grant contains {"id": "no-table"} if {
	lib.reads
	lib.in_any_group(data.mcp.grants.analytics.gone)
}
"""


def with_analytics(tmp_path: Path, rules: str, **data: Any) -> Path:
    policies = quick_copy(tmp_path / "policies")
    policy = policies / "teams/analytics/policy.rego"
    policy.write_text(policy.read_text() + rules)
    document = {"mcp": {"grants": {"analytics": {"frozen": [], **data}}}}
    (policies / "teams/analytics/data.json").write_text(json.dumps(document))
    return policies


def test_the_values_that_decided_are_shown(tmp_path: Path) -> None:
    policies = with_analytics(tmp_path, SHOWING, days=["Monday"], readers=["readers", "clerks"], begins=2 * 10**18)
    done = answer(run(asked("loaders"), "--explain", "--at", "2026-01-04T09:00", policies=policies))
    misses = {one["grant"]: one for one in done["explanation"]["accesses"][0]["not_granted"]}
    day = misses["on-some-days"]["failed"]
    assert day["values"] == {"today": "Sunday", "data.mcp.grants.analytics.days": ["Monday"]}
    assert misses["for-readers"]["failed"]["values"] == {"data.mcp.grants.analytics.readers": ["readers", "clerks"]}
    assert misses["no-table"]["failed"]["missing"] == ["data.mcp.grants.analytics.gone"]
    seen = on_a_terminal(
        *("decide", "--policies", str(policies), "--explain", "--at", "2026-01-04T09:00"),
        stdin=json.dumps(asked("loaders")).encode(),
    )[1]
    assert 'today is "Sunday"' in " ".join(seen.split())
    assert "input.context.time_ns is 1767517200000000000 (2026-01-04 09:00 UTC)" in " ".join(seen.split())


ONE_OF_TWO_WAYS = """
grant contains {"id": "in-staging"} if {
	lib.reads
	lib.on("sales", ["archive_*", "orders"])
	input.context.environment == "staging"
}

grant contains {"id": "elsewhere"} if {
	lib.reads
	lib.on("sales", ["archive_*"])
}
"""


def test_what_failed_on_the_way_to_a_condition_that_held_is_no_reason(tmp_path: Path) -> None:
    policies = with_analytics(tmp_path, ONE_OF_TWO_WAYS)
    done = answer(run(asked("loaders"), "--explain", policies=policies))
    misses = {one["grant"]: one for one in done["explanation"]["accesses"][0]["not_granted"]}
    assert misses["in-staging"]["failed"]["values"] == {"input.context.environment": "production"}
    assert misses["in-staging"]["because"] is None
    assert misses["elsewhere"]["because"]["at"].startswith("platform/lib/lib.rego:"), "the near miss"


UNSOUND = """
grant contains {"id": "masked", "mask": []} if lib.in_group("analysts")

grant contains {"id": "Loud", "filter": {"a": 1}, "limit": 3} if lib.in_group("analysts")

grant contains {"id": "platform.mine"} if lib.in_group("analysts")

grant contains "words" if lib.in_group("analysts")

grant contains {"max_documents": 0, "id": 3} if lib.in_group("analysts")
"""


def test_the_part_of_a_grant_that_is_not_of_the_contract_is_named_with_its_line(tmp_path: Path) -> None:
    policies = with_analytics(tmp_path, UNSOUND)
    (access,) = explanation(asked("analysts"), policies=policies)["accesses"]
    text = (policies / "teams/analytics/policy.rego").read_text().splitlines()
    parts = {one["grant"]: one["parts"] for one in access["unsound"] if one["grant"]}
    assert parts == {
        "masked": ["mask is empty or of another type: []"],
        "Loud": ["id is missing, or not of its form", "limit is no part of a grant"],
        "platform.mine": ["id begins with platform."],
    }
    assert sorted(one["parts"] for one in access["unsound"] if not one["grant"]) == [
        ["id is missing, or not of its form", "max_documents is empty or of another type: 0"],
        ["the grant is no object"],
    ]
    for one in access["unsound"]:
        if one["grant"]:
            lines = [text[int(at.rpartition(":")[2]) - 1] for at in one["at"]]
            assert any(f'"{one["grant"]}"' in line for line in lines)
    assert explanation(asked("analysts"))["accesses"][0]["unsound"] == []


def test_an_owner_that_was_not_looked_up_is_not_nobody() -> None:
    assert "owner not looked up" in shown(asked("guests"), "--explain")
    assert "owner nobody" in shown(asked("analysts", database="elsewhere"), "--explain")
    assert explanation(asked("guests"))["accesses"][0]["looked_up"] is False
    assert explanation(asked("analysts"))["accesses"][0]["looked_up"] is True


def test_the_construct_behind_a_closed_trait_is_named_with_its_pointer() -> None:
    call = asked("analysts")
    call["call"]["arguments"]["filter"] = {"$or": [{"a": 1}, {"$where": "true"}]}
    found = [{"construct": "$where", "at": "/arguments/filter/$or/1/$where"}]
    assert explanation(call)["traits"] == [{"trait": "server_side_js", "found": found}]
    assert "the trait server_side_js: $where at /arguments/filter/$or/1/$where" in " ".join(
        shown(call, "--explain").split()
    )
    assert explanation(asked("analysts"))["traits"] == []


EXPORT = {
    "connectionId": "preconfigured",
    "database": "sales",
    "collection": "orders",
    "exportTitle": "all",
    "exportTarget": [{"name": "find", "arguments": {"filter": {}}}],
    "jsonExportFormat": "relaxed",
}


def configured(folder: Path, groups: str) -> dict[str, str]:
    """The variables of a sidecar with two servers, of which the first has these groups of tools on."""
    server = 'command = ["mongodb-mcp-server"]\nconnection_string_file = "/etc/mongodb"'
    (folder / "sidecar.toml").write_text(
        f"""resource_url = "https://mcp.example/mcp"
[[issuers]]
issuer = "https://idp.example"
[[servers]]
name = "demo-ro"
tool_groups = {groups}
{server}
[[servers]]
name = "demo-rw"
{server}
"""
    )
    return {"SIDECAR_CONFIG": str(folder / "sidecar.toml")}


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("[]", ["tool group export is off on server demo-ro", "tool group export is off on server demo-rw"]),
        ('["connect"]', ["tool group export is off on server demo-ro", "tool group export is off on server demo-rw"]),
        ('["export"]', []),
    ],
)
def test_a_tool_whose_group_is_off_is_refused_and_that_is_said(tmp_path, groups: str, said: list[str]) -> None:
    question = asked("analysts", iss="https://idp.example")
    question["call"] = {"name": "export", "arguments": EXPORT}
    asking = ("decide", "--policies", str(POLICIES))
    variables, stdin = configured(tmp_path, groups), json.dumps(question).encode()
    status, shown = on_a_terminal(*asking, stdin=stdin, environment=variables)
    assert status == 1, "no grant of the shipped policies allows an export"
    assert [line for line in said if line not in shown] == []
    assert ("tool group" in shown) is bool(said)
    status, text = on_a_terminal(*asking, "--json", stdin=stdin, environment=variables)
    document = msgspec.json.decode(text)
    assert document.get("tools", []) == said
    codes = [reason["code"] for reason in document["enforcement"]["reasons"]]
    assert (codes == ["tool_group_off"]) is bool(said)
    assert document["decision"]["allow"] is False


def test_without_settings_it_is_said_that_the_tool_is_off_unless_they_turn_it_on() -> None:
    question = asked("analysts")
    question["call"] = {"name": "export", "arguments": EXPORT}
    assert "needs tool_groups export" in answer(run(question))["notes"][-1]
    assert "tool_groups" not in json.dumps(answer(run(asked("analysts"))))


@pytest.mark.parametrize(("confirmed", "said"), [('"find"', True), ('"count"', False)])
def test_it_is_said_of_a_call_that_its_server_asks_for_a_confirmation(tmp_path, confirmed, said) -> None:
    variables = configured(tmp_path, f"[]\nconfirmation_required_tools = [{confirmed}]")
    stdin = json.dumps(asked("analysts", iss="https://idp.example")).encode()
    status, shown = on_a_terminal(
        "decide",
        "--policies",
        str(POLICIES),
        stdin=stdin,
        environment=variables,
    )
    assert status == 0
    assert ("asks for a confirmation of find" in " ".join(shown.split())) is said


@pytest.mark.parametrize(("stage", "said"), [({"$out": "returns"}, True), ({"$match": {}}, False)])
def test_a_stage_that_writes_is_always_asked_about(tmp_path, stage, said) -> None:
    policies = quick_copy(tmp_path / "policies")
    (policies / "teams/loading/more.rego").write_text(
        "package mcp.teams.loading\n\nimport data.mcp.lib\n\n"
        'grant contains {"id": "all"} if {\n\tlib.in_group("loaders")\n\tinput.access.database == "staging"\n}\n'
    )
    path = policies / "platform/data.json"
    document = msgspec.json.decode(path.read_bytes())
    tables = document["mcp"]["platform"]
    kinds = ["read", "insert", "delete", "create", "drop", "update", "metadata", "index"]
    tables["deployments"]["demo"]["databases"]["staging"]["delegated"] = [{"kinds": kinds, "collections": ["*"]}]
    tables["agents"]["default"]["kinds"] = kinds
    tables["traits"] |= {trait.value: {"groups": ["*"]} for trait in Trait}
    path.write_bytes(msgspec.json.encode(document))
    question = asked("loaders", iss="https://idp.example", scope="mongodb:read mongodb:write mongodb:admin")
    place = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
    question["call"] = {"name": "aggregate", "arguments": {**place, "pipeline": [stage]}}
    status, text = on_a_terminal(
        *("decide", "--json", "--policies", str(policies)),
        stdin=json.dumps(question).encode(),
        environment=configured(tmp_path, "[]"),
    )
    decided = msgspec.json.decode(text)
    assert (status, decided["enforcement"]) == (0, {"allow": True, "reasons": []}), decided
    assert any("asks for a confirmation of aggregate" in note for note in decided.get("notes", [])) is said
