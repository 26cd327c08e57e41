"""A policy edit under a running sidecar: taken, or refused and said at /readyz and /metrics."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.demo.identities import ANALYST
from sidecar.opa.policies import PolicySet
from tests import parts
from tests.integration.deployment import deployed, search_path, wait_until

pytestmark = pytest.mark.real

COUNT = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts.ROOT / "policies", tmp_path / "policies"))


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
            timeout=60,
            check=False,
        )
    assert done.returncode == 78
    assert "teams/people/more.rego:1: package mcp.teams.analytics is not this team's" in done.stderr
