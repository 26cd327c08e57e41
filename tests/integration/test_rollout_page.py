"""docs/policy-rollout.md, "Roll out a change, step by step": every command in order, beside a sidecar that serves."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from sidecar.demo import database as demo_database
from tests import parts
from tests.integration.deployment import HR_ADMIN, deployed, wait_until
from tests.signer import ISSUER

PAGE = (parts.ROOT / "docs" / "policy-rollout.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^ *```sh\n(.*?)^ *```$", PAGE.partition("## Roll out a change, step by step")[2], re.MULTILINE | re.DOTALL
)
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}


@pytest.fixture
def serving(tmp_path, database):
    """A sidecar beside its policies, with its questions recorded."""
    policies = shutil.copytree(parts.ROOT / "policies", tmp_path / "policies")
    environment = {"SIDECAR_AUDIT__QUESTION": "true"}
    with deployed(tmp_path, database, environment=environment, policies=policies) as deployment:
        yield deployment


def follow(deployment, command):
    script = "mcp-sidecar() { " + f'"{sys.executable}" -m sidecar "$@"; }}\nset -e\n{command}'
    return subprocess.run(
        ["bash", "-c", script],
        cwd=deployment.folder,
        env={
            "PATH": f"{parts.BIN}:/usr/bin:/bin",
            "PYTHONPATH": str(parts.ROOT),
            "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml"),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


async def allowed(deployment):
    async with deployment.plain(HR_ADMIN) as client:
        await client.initialize()
        answer = await client.call("find", {**SALARIES, "filter": {}})
    return bool(answer.result) and not answer.result.get("isError")


def suspend(folder):
    """What the candidate is about: one person may do nothing any more."""
    data = folder / "platform" / "data.json"
    document = json.JSONDecoder().decode(data.read_text())
    document["mcp"]["platform"]["suspended"]["subjects"] = [{"issuer": ISSUER, "id": HR_ADMIN.user}]
    data.write_text(json.dumps(document))


def restart(deployment, **environment):
    deployment.stop()
    deployment.environment |= environment
    deployment.start()


def last(deployment):
    return next(r for r in reversed(deployment.records()) if r["event"] != "outcome" and r["decision"])


async def test_the_way_can_be_gone_to_its_end_and_back(serving):
    copy, check, replay, look, switch, back = COMMANDS
    await demo_database.seed(serving.uri)
    assert await allowed(serving)
    before = last(serving)["decision"]["revision"]

    assert follow(serving, copy).returncode == 0
    suspend(serving.folder / "policies-next")
    checked = follow(serving, check)
    assert checked.returncode == 0, checked.stdout + checked.stderr

    replayed = follow(serving, replay)
    assert replayed.returncode == 1, replayed.stderr
    assert "would_deny" in replayed.stdout
    assert "suspended" in replayed.stdout
    named = json.JSONDecoder().decode(follow(serving, f"{replay.strip()} --json").stdout)["revision"]

    restart(serving, SIDECAR_POLICIES_CANDIDATE=str(serving.folder / "policies-next"))
    assert await allowed(serving)
    assert last(serving)["shadow"] == {"difference": "would_deny", "revision": named, "reasons": ["suspended"]}
    assert '.shadow.difference == "would_deny"' in look

    times = loaded(serving, named)
    assert follow(serving, switch).returncode == 0
    wait_until(lambda: loaded(serving, named) > times, "the candidate to serve")
    assert not await allowed(serving)
    assert last(serving)["decision"]["revision"] == named
    assert last(serving)["shadow"]["difference"] == "same"
    assert "degraded" not in serving.admin("/readyz")[1]

    times = loaded(serving, before)
    assert follow(serving, back).returncode == 0
    wait_until(lambda: loaded(serving, before) > times, "the former set to serve")
    assert await allowed(serving)
    assert last(serving)["decision"]["revision"] == before


def loaded(deployment, revision):
    """How often an OPA, the serving or the candidate's, has begun to serve a set."""
    return deployment.log_file.read_text().count(f"opa serves policy set {revision}")
