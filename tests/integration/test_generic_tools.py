"""Tools outside of the catalog in a real deployment: nobody has them until a team grants them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mcp
import msgspec
import pytest

from sidecar.commands import pinning
from sidecar.demo.identities import Person
from sidecar.upstream.process import StdioUpstream
from tests import parts
from tests.integration.deployment import PIPE, Deployment, deployed, search_path
from tests.patience import HANG_S
from tests.policy_sets import quick_copy
from tests.signer import ISSUER

SERVER = Path(__file__).with_name("own_tools_server.py")
REPORTER = Person(user="rita", agent="claude-desktop", groups=("reporters",), scopes=("mongodb:admin",))
READER = Person(user="rob", agent="claude-desktop", groups=("readers",), scopes=("mongodb:admin",))
SECRET = "s3cret-in-an-argument"
GRANTS = """package mcp.teams.reports

import data.mcp.lib

grant contains {"id": "reporters-report-the-eu"} if {
	lib.runs({"report"})
	lib.in_group("reporters")
	input.command.arguments["/region"] == "EU"
}

grant contains {"id": "reporters-read-the-eu"} if {
	input.access.kind == "execute"
	input.access.target.kind in {"prompt", "resource"}
	lib.in_group("reporters")
	input.command.arguments["/region"] == "EU"
}

grant contains {"id": "reporters-see-the-index"} if {
	input.access.kind == "execute"
	input.access.target == {"kind": "resource", "id": "reports://index"}
	lib.in_group("reporters")
}

grant contains {"id": "reporters-read-minutes"} if {
	input.access.kind == "execute"
	input.access.target == {"kind": "resource", "id": "minutes://{board}/summary"}
	lib.in_group("reporters")
}

grant contains {"id": "reporters-complete"} if {
	input.access.kind == "execute"
	input.access.target == {"kind": "prompt", "id": "summary"}
	lib.in_group("reporters")
	input.action.method == "completion/complete"
}
"""


def with_policies(folder: Path) -> Path:
    """The shipped policies, where a team owns one tool and a route leads to it."""
    copy = quick_copy(folder / "policies")
    team = copy / "teams/reports"
    team.mkdir()
    (team / "policy.rego").write_text(GRANTS)
    (team / "data.json").write_text('{"mcp": {"grants": {"reports": {}}}}')
    manifest = (copy / "teams/analytics/.manifest").read_text()
    (team / ".manifest").write_text(manifest.replace("analytics", "reports"))
    file = copy / "platform/data.json"
    tables = msgspec.json.decode(file.read_bytes())
    platform = tables["mcp"]["platform"]
    held = {"owner": "reports", "delegated": [{"kinds": ["execute"], "collections": [""]}], "obligations": []}
    platform["refused_kinds"].remove("execute")
    targets = dict.fromkeys(("tool/report", "prompt/summary", "prompt/secret", "resource"), held)
    platform["deployments"]["demo"]["targets"] = targets
    platform["agents"]["registered"]["claude-desktop"] = {"kinds": ["execute"], "servers": ["*"], "deployments": ["*"]}
    platform["routes"].insert(
        0,
        {
            "id": "own-tools",
            "groups": ["reporters", "readers"],
            "agents": ["*"],
            "scopes": ["*"],
            "kinds": ["execute"],
            "server": "demo-ro",
        },
    )
    file.write_bytes(msgspec.json.encode(tables))
    return copy


async def _digests() -> dict[str, str]:
    server = StdioUpstream("own", [sys.executable, str(SERVER)], {"PATH": search_path()}, timeout_s=30)
    await server.start()
    try:
        offered = (*await server.tools(), *await server.prompts())
        return {str(one["name"]): pinning.fingerprint(one) for one in offered}
    finally:
        await server.stop()


def settings_of(folder: Path, *arguments: str) -> str:
    """The server as settings name it, with the recording pipe before it."""
    digests = asyncio.run(_digests())
    command = [sys.executable, str(PIPE), str(folder / "demo-ro.stdin"), sys.executable, str(SERVER), *arguments]
    tools = "".join(
        f"""
[[servers.generic_tools]]
name = "{name}"
sha256 = "{digests[name]}"
policy_arguments = ["/region", "/page/size"]
"""
        for name in ("report", "other")
    )
    return f"""
[[servers]]
name = "demo-ro"
command = {json.dumps(command)}
connection_string = "mongodb://127.0.0.1:1/"
timeout_ms = 20000
{tools}
[[servers.generic_prompts]]
name = "summary"
sha256 = "{digests["summary"]}"
policy_arguments = ["/region"]

[[servers.generic_prompts]]
name = "secret"
sha256 = "{"0" * 64}"

[[servers.generic_resources]]
uri = "reports://{{region}}/latest"
name = "latest report"
policy_arguments = ["/region"]

[[servers.generic_resources]]
uri = "reports://index"
name = "index"
mime_type = "text/plain"

[[servers.generic_resources]]
uri = "minutes://{{board}}/summary"
name = "minutes"

[[servers.generic_resources]]
uri = "minutes://directors/{{part}}"
name = "minutes of the directors"

[[servers.generic_resources]]
uri = "minutes://owners/summary"
name = "minutes of the owners"
"""


def deployment_of(folder: Path, *arguments: str) -> Iterator[Deployment]:
    with deployed(
        folder,
        "mongodb://127.0.0.1:1/",
        policies=with_policies(folder),
        servers=settings_of(folder, *arguments),
        environment={"SIDECAR_AUDIT__ARGUMENTS": "full", "SIDECAR_AUDIT__QUESTION": "true"},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployment_of(tmp_path_factory.mktemp("own-tools"))


@pytest.fixture(scope="module")
def drifted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    yield from deployment_of(tmp_path_factory.mktemp("drifted"), "--drifted")


async def names(deployment: Deployment, person: Person) -> set[str]:
    async with deployment.client(person) as client:
        return {tool.name for tool in (await client.list_tools()).tools}


async def test_who_may_run_a_tool_sees_it_and_nobody_else(own):
    assert await names(own, REPORTER) == {"report"}
    assert await names(own, READER) == set()


async def test_a_granted_call_arrives_as_it_was_decided(own):
    async with own.client(REPORTER) as client:
        result = await client.call_tool("report", {"region": "EU", "note": SECRET, "page": {"size": 5}})
    assert result.content[0].text.startswith(f"report of EU, {len(SECRET)} characters")
    assert own.reached("demo-ro")[-1]["arguments"] == {"region": "EU", "note": SECRET, "page": {"size": 5}}


@pytest.mark.parametrize(
    "arguments",
    [
        {"region": "US"},
        {"region": "eu"},
        {},
        {"Region": "EU"},
        {"region": ["EU"]},
        {"region": "US", "__proto__": {"region": "EU"}},
        {"region": "EU", "note": {"__proto__": {}}},
        {"region": "EU", "page": "size"},
        {"region": "E" * 2000},
        {"region": "US", "note": "EU" * 200_000},
        {"region": "EU", "Region": "US"},
        {"region": "EU", "region\0": "US"},
    ],
    ids=[
        *("other", "case", "none", "key-case", "list", "prototype", "prototype-below", "no-object", "long", "huge"),
        *("another-in-another-case", "another-with-a-nul"),
    ],
)
async def test_what_is_nearly_granted_does_not_arrive(own, arguments):
    before = len(own.reached("demo-ro"))
    async with own.client(REPORTER) as client:
        result = await client.call_tool("report", arguments)
    assert result.is_error
    assert result.meta["mcp-sidecar/decision"]["allow"] is False
    assert len(own.reached("demo-ro")) == before


@pytest.mark.parametrize("name", ["Report", "report ", "other", "find", "rep\u043ert", "tool/report", "nothing"])
async def test_a_tool_that_a_caller_may_not_run_is_unknown_to_it(own, name):
    before = len(own.reached("demo-ro"))
    async with own.client(REPORTER) as client:
        with pytest.raises(mcp.MCPError, match="Unknown tool"):
            await client.call_tool(name, {"region": "EU"})
    assert len(own.reached("demo-ro")) == before


async def test_another_caller_gets_the_answer_of_a_tool_that_is_not_there(own):
    answers = []
    for name in ("report", "reports"):
        async with own.client(READER) as client:
            with pytest.raises(mcp.MCPError) as caught:
                await client.call_tool(name, {"region": "EU"})
            answers.append((caught.value.error.code, caught.value.error.message))
    assert answers[0] == answers[1]


async def test_evidence_names_the_tool_and_holds_no_argument(own):
    async with own.client(REPORTER) as client:
        await client.call_tool("report", {"region": "EU", "note": SECRET, "page": {"size": 77_777}})
        await client.call_tool("report", {"region": "US-of-evidence", "note": SECRET})
    intents = [one for one in own.records() if one["tool"] == "report" and one["event"] == "intent"]
    assert intents[-1]["accesses"][0] | {"via": ""} == {
        "kind": "execute",
        "database": "",
        "collection": "",
        "via": "",
        "target": {"kind": "tool", "id": "report"},
    }
    assert intents[-1]["decision"]["grants"] == ["reports/reporters-report-the-eu"]
    assert len(intents[-1]["arguments_sha256"]) == 64
    for written in (own.audit_file.read_text(), own.log_file.read_text()):
        for value in (SECRET, "US-of-evidence", "77777"):
            assert value not in written
    metrics = own.admin("/metrics")[1]
    assert 'gen_ai_tool_name="report"' in metrics


async def test_a_tool_that_is_not_the_pinned_one_is_refused_and_hidden(drifted):
    assert await names(drifted, REPORTER) == set()
    async with drifted.client(REPORTER) as client:
        result = await client.call_tool("report", {"region": "EU"})
    assert result.meta["mcp-sidecar/decision"]["reasons"][0]["code"] == "tool_changed"
    assert drifted.reached("demo-ro") == []


def run(deployment: Deployment, *arguments: str, given: str = "") -> tuple[int, Any]:
    """Run a command with the deployment's settings; return its status and its JSON."""
    environment = {"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", *arguments],
        input=given.encode(),
        capture_output=True,
        check=False,
        env=environment,
        cwd=parts.ROOT,
        timeout=HANG_S,
    )
    return done.returncode, json.loads(done.stdout or "{}")  # noqa: TID251 - our own output


CLAIMS = {
    "iss": ISSUER,
    "sub": "rita",
    "client_id": "claude-desktop",
    "groups": ["reporters"],
    "scope": "mongodb:admin",
}


@pytest.mark.parametrize(("region", "status"), [("EU", 0), ("US", 1), (["EU"], 1)])
def test_decide_knows_the_tool_and_decides_as_the_sidecar_does(own, region, status):
    question = {"claims": CLAIMS, "call": {"name": "report", "arguments": {"region": region, "note": SECRET}}}
    code, document = run(own, "decide", "-", given=json.dumps(question))
    assert code == status, document
    if status == 0:
        assert document["question"]["command"]["arguments"] == {"/region": "EU"}
        assert document["enforcement"]["allow"] is True


def test_policy_show_and_policy_who_name_the_tool(own):
    policies = str(own.folder / "policies")
    code, shown = run(own, "policy", "show", policies, "--claims", "-", "--json", given=json.dumps(CLAIMS))
    assert code == 0
    assert "reporters-report-the-eu" in json.dumps(shown["permissions"])
    code, who = run(own, "policy", "who", "tool/report", policies, "--json")
    assert code == 0
    (row,) = who["reach"]
    assert (row["grant"], row["kinds"], row["groups"]) == ("reporters-report-the-eu", ["execute"], [["reporters"]])
    assert run(own, "policy", "who", "tool/reports", policies, "--json")[1]["held"] == []
    assert run(own, "policy", "who", "tools/report", policies, "--json")[0] == 78


async def test_prompts_that_are_named_pinned_and_granted_are_offered_and_got(own):
    async with own.client(REPORTER) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["summary"]
        got = await client.get_prompt("summary", {"region": "EU"})
        assert got.messages[0].content.text == "Sum up EU."
        for name, arguments in (
            ("summary", {"region": "US"}),
            ("summary", {"region": "EU", "REGION": "US"}),
            ("summary", {}),
            ("secret", {}),
            ("Summary", {}),
        ):
            with pytest.raises(mcp.MCPError):
                await client.get_prompt(name, arguments)
    async with own.client(READER) as client:
        assert (await client.list_prompts()).prompts == []
        refused = []
        for name in ("summary", "nothing"):
            with pytest.raises(mcp.MCPError) as caught:
                await client.get_prompt(name, {"region": "EU"})
            refused.append((caught.value.error.code, caught.value.error.message))
        assert refused[0] == refused[1]


async def test_resources_that_are_named_and_granted_are_listed_and_read(own):
    async with own.client(REPORTER) as client:
        listed = (await client.list_resources()).resources
        assert {(str(one.uri), one.name) for one in listed} >= {("reports://index", "index")}
        templates = (await client.list_resource_templates()).resource_templates
        assert {one.uri_template for one in templates} >= {"reports://{region}/latest", "minutes://{board}/summary"}
        assert (await client.read_resource("reports://index")).contents[0].text == "index"
        assert (await client.read_resource("reports://EU/latest")).contents[0].text == "latest of EU"
        for uri in ("reports://US/latest", "reports://%45U/latest", "reports://EU%2Flatest", "reports://eu/latest"):
            with pytest.raises(mcp.MCPError):
                await client.read_resource(uri)
        for uri in ("reports://hidden", "REPORTS://index", "reports://../latest", "file:///etc/passwd"):
            with pytest.raises(mcp.MCPError, match="not found"):
                await client.read_resource(uri)
    async with own.client(READER) as client:
        assert (await client.list_resources()).resources == []
        assert (await client.list_resource_templates()).resource_templates == []
        with pytest.raises(mcp.MCPError, match="not found"):
            await client.read_resource("reports://index")


def read_at_the_server(deployment: Deployment) -> list[str]:
    """The URIs that were sent to it."""
    lines = (deployment.folder / "demo-ro.stdin").read_bytes().splitlines()
    messages = [msgspec.json.decode(line) for line in lines]
    return [message["params"]["uri"] for message in messages if message.get("method") == "resources/read"]


@pytest.mark.parametrize("uri", ["directors/summary", "DIRECTORS/summary", "Directors/summary", "OWNERS/summary"])
async def test_a_uri_that_two_resources_could_mean_reaches_no_server(own, uri):
    """The caller may read the first template; of what else the server could take it for, policy was not asked."""
    async with own.client(REPORTER) as client:
        minutes = (await client.read_resource("minutes://works-council/summary")).contents[0].text
        assert minutes == "minutes of works-council"
        before = len(read_at_the_server(own))
        with pytest.raises(mcp.MCPError, match="not found"):
            await client.read_resource(f"minutes://{uri}")
        assert len(read_at_the_server(own)) == before


async def test_a_completion_is_a_use_of_what_it_completes(own):
    reference = mcp.types.PromptReference(type="ref/prompt", name="summary")
    async with own.client(REPORTER) as client:
        completed = await client.complete(reference, {"name": "region", "value": "E"})
        assert completed.completion.values == ["EU"]
        template = mcp.types.ResourceTemplateReference(type="ref/resource", uri="reports://{region}/latest")
        with pytest.raises(mcp.MCPError):
            await client.complete(template, {"name": "region", "value": "E"})
    async with own.client(READER) as client:
        with pytest.raises(mcp.MCPError, match="Unknown prompt"):
            await client.complete(reference, {"name": "region", "value": "E"})


async def test_a_prompt_or_resource_is_no_tool(own):
    async with own.client(REPORTER) as client:
        for name in ("prompt/summary", "resource/reports://index"):
            with pytest.raises(mcp.MCPError, match="Unknown tool"):
                await client.call_tool(name, {"region": "EU"})


async def test_evidence_of_a_read_names_the_resource_and_no_variable(own):
    async with own.client(REPORTER) as client:
        await client.read_resource("reports://EU/latest")
    intent = [one for one in own.records() if one["method"] == "resources/read" and one["event"] == "intent"][-1]
    assert intent["accesses"][0]["target"] == {"kind": "resource", "id": "reports://{region}/latest"}
    assert "reports://EU/latest" not in own.audit_file.read_text() + own.log_file.read_text()
