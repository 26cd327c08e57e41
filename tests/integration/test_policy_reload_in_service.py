"""A policy edit under a running sidecar: taken, or refused and said at /readyz and /metrics."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from sidecar.demo.identities import ANALYST
from sidecar.policyset.folder import PolicySet
from tests import parts
from tests.integration.deployment import deployed, search_path, wait_until
from tests.patience import HANG_S
from tests.policy_sets import quick_copy
from tests.terminal import ACTS, on_a_terminal

pytestmark = pytest.mark.real

COUNT = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return quick_copy(tmp_path / "policies")


async def test_an_edit_takes_effect_and_a_bad_one_is_said_without_leaving_the_rotation(
    policies: Path, tmp_path: Path, database: str
) -> None:
    folder = tmp_path / "deployment"
    folder.mkdir()
    policy = policies / "teams" / "analytics" / "policy.rego"
    data = policies / "teams" / "analytics" / "data.json"
    environment = {"SIDECAR_OPA__RELOAD_MS": "100", "SIDECAR_OPA__TIMEOUT_MS": "5000", "SIDECAR_OPA__MEMO_MS": "0"}
    with deployed(folder, database, policies=policies, environment=environment, record=False) as running:

        def body() -> dict[str, object]:
            found: dict[str, object] = json.loads(running.admin("/readyz")[1])  # noqa: TID251 - our own answer
            return found

        assert body() == {"ready": True, "failing": []}
        good = policy.read_text()
        policy.write_text("package mcp.main\n\nallow := true\n")
        wait_until(lambda: body().get("degraded") == ["policies"], "the refusal to be said")
        assert running.admin("/readyz")[0] == 200
        metrics = running.admin("/metrics")[1]
        assert 'mcp_sidecar_policy_load{result="refused"} 1.0' in metrics
        assert 'mcp_sidecar_policy_load{result="loaded"} 0.0' in metrics
        assert "teams/analytics/policy.rego:1: package mcp.main" in running.log_file.read_text()
        async with running.client(ANALYST) as client:
            assert not (await client.call_tool("count", COUNT)).is_error, "the last good set serves"
            policy.write_text(good)
            wait_until(lambda: body() == {"ready": True, "failing": []}, "the good set to be taken again")
            assert 'mcp_sidecar_policy_load{result="loaded"} 1.0' in running.admin("/metrics")[1]
            # The team's own tests say that nothing is frozen, and would keep this set from being served.
            (data.parent / "policy_test.rego").unlink()
            data.write_text(data.read_text().replace('"frozen": []', '"frozen": ["sales"]'))
            revision = PolicySet.read(policies).revision
            wait_until(lambda: f"opa serves policy set {revision}" in running.log_file.read_text(), "the edit")
            assert (await client.call_tool("count", COUNT)).is_error
        assert running.records()[-1]["decision"]["revision"] == revision


BAD_GLOB = ('"agents": ["*"]', '"agents": ["claude-*", "{claude"]')
EVIL = "x\x1b[2J\u202e\x9b31m\nowned"
HOSTILE = {
    "the name of a file": lambda team: (team / f"{EVIL}.rego").write_text("package mcp.teams.people\n"),
    "no text": lambda team: (team / os.fsdecode(b"\xffowned.rego")).write_text("package mcp.teams.people\n"),
    "a package": lambda team: (team / "more.rego").write_text(f"package mcp.teams[{json.dumps(EVIL)}]\n"),
    "a link": lambda team: (team / EVIL).symlink_to("/"),
}


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (BAD_GLOB, 'platform/data.json:12: /mcp/platform/routes/0/agents/1: OPA cannot read \\"{claude\\" as a glob'),
        (('"id": "writers"', '"idd": "writers"'), "routes.1: id is required"),
    ],
    ids=["a glob that OPA cannot read", "what is not of the schema"],
)
async def test_platform_data_that_is_not_of_its_form_is_not_taken_and_everybody_is_decided_as_before(
    policies: Path, tmp_path: Path, database: str, bad: tuple[str, str], where: str
) -> None:
    folder = tmp_path / "deployment"
    folder.mkdir()
    data = policies / "platform" / "data.json"
    good = data.read_text()
    environment = {"SIDECAR_OPA__RELOAD_MS": "100", "SIDECAR_OPA__TIMEOUT_MS": "5000", "SIDECAR_OPA__MEMO_MS": "0"}
    with deployed(folder, database, policies=policies, environment=environment, record=False) as running:
        before = PolicySet.read(policies).revision
        data.write_text(good.replace(*bad, 1))
        wait_until(lambda: where in running.log_file.read_text(), "the refusal to be said")
        async with running.client(ANALYST) as client:
            assert not (await client.call_tool("count", COUNT)).is_error, "the last good set serves"
            assert running.records()[-1]["decision"]["revision"] == before
            data.write_text(good.replace(BAD_GLOB[0], BAD_GLOB[1].replace("{claude", r"\\{claude"), 1))
            after = PolicySet.read(policies).revision
            wait_until(lambda: f"opa serves policy set {after}" in running.log_file.read_text(), "the near miss")
            assert not (await client.call_tool("count", COUNT)).is_error
        assert running.records()[-1]["decision"]["revision"] == after != before


def test_names_in_a_teams_folder_write_nothing_into_the_log_and_stop_no_reload(
    policies: Path, tmp_path: Path, database: str
) -> None:
    folder = tmp_path / "deployment"
    folder.mkdir()
    team, kept = policies / "teams" / "people", tmp_path / "kept"
    shutil.copytree(team, kept)
    with deployed(
        folder, database, policies=policies, environment={"SIDECAR_OPA__RELOAD_MS": "100"}, record=False
    ) as running:
        for spoil in [spoil for name, spoil in HOSTILE.items() if name != "a link"]:  # is no change that a look sees
            told = running.log_file.stat().st_size
            spoil(team)
            wait_until(lambda told=told: b"owned" in running.log_file.read_bytes()[told:], "the refusal to be said")
            status, body = running.admin("/readyz")
            assert (status, json.JSONDecoder().decode(body)) == (
                200,
                {"ready": True, "failing": [], "degraded": ["policies"]},
            )
            shutil.rmtree(team)
            shutil.copytree(kept, team)
            wait_until(lambda: "degraded" not in running.admin("/readyz")[1], "the good set to be taken again")
        shown = running.log_file.read_text("utf-8", "strict")
        assert shown.replace("\n", "").isprintable()
        for line in shown.splitlines():
            assert "keeps serving" not in line or msgspec.json.decode(line)["level"] == "error", "a line of our own"
        running.stop()
        for spoil in HOSTILE.values():
            spoil(team)
            status, shown = on_a_terminal(
                "serve", environment={"PATH": search_path(), "SIDECAR_CONFIG": str(folder / "sidecar.toml")}
            )
            assert (status, "owned" in shown) == (78, True), shown
            assert [sequence for sequence in ACTS if sequence in shown] == []
            shutil.rmtree(team)
            shutil.copytree(kept, team)


def test_a_bad_set_at_the_start_is_status_78_with_file_and_line(policies: Path, tmp_path: Path, database: str) -> None:
    (tmp_path / "deployment").mkdir()
    with deployed(tmp_path / "deployment", database, policies=policies, record=False) as running:
        running.stop()
        (policies / "teams" / "people" / "more.rego").write_text('package mcp.teams.analytics\n\ndeny contains "x"\n')
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "serve"],
            cwd=parts.ROOT,
            env={"PATH": search_path(), "SIDECAR_CONFIG": str(running.folder / "sidecar.toml")},
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
    assert done.returncode == 78
    assert "teams/people/more.rego:1: package mcp.teams.analytics is not this team's" in done.stderr
