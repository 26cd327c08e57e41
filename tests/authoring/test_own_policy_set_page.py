"""docs/own-policy-set.md: every command on the page, in order, and calls through the real MCP server under its set."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.demo.identities import Person
from tests import parts
from tests.integration.deployment import deployed
from tests.patience import HANG_S

pytestmark = pytest.mark.real

PAGE = (parts.ROOT / "docs" / "own-policy-set.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELLS = [text for language, text in BLOCKS if language == "sh"]
REGO = [text for language, text in BLOCKS if language == "rego"]


def followed(folder: Path, commands: str) -> str:
    """Run a block of commands as it stands."""
    done = subprocess.run(
        ["bash", "-c", "set -e\nmcp-sidecar() { " + f'"{sys.executable}" -m sidecar "$@"; }}\n' + commands],
        cwd=folder,
        env={"PATH": f"{parts.BIN}:/usr/bin:/bin", "PYTHONPATH": str(parts.ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def person(group: str) -> Person:
    return Person(user=group, agent="claude-desktop", groups=(group,), scopes=("mongodb:read",))


def place(database: str, collection: str) -> dict[str, Any]:
    return {"connectionId": "preconfigured", "database": database, "collection": collection}


COUNT = [{"$group": {"_id": "$diagnosis", "patients": {"$sum": 1}}}]
PATIENTS = place("patients", "patients")
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("researchers", "aggregate", {**PATIENTS, "pipeline": COUNT}, ""),
    ("researchers", "count", {**PATIENTS, "query": {"ward": "north"}}, ""),
    ("researchers", "count", {**PATIENTS, "query": {"name": "Ann"}}, "not_granted"),
    ("researchers", "find", {**PATIENTS, "filter": {}}, "not_granted"),
    ("researchers", "aggregate", {**PATIENTS, "pipeline": [{"$group": {"_id": "$name"}}]}, "not_granted"),
    (
        "researchers",
        "aggregate",
        {**PATIENTS, "pipeline": [{"$group": {"_id": "$diagnosis", "x": {"$push": "$$ROOT"}}}]},
        "not_granted",
    ),
    ("researchers", "find", {**place("ward_north", "beds"), "filter": {}}, "not_granted"),
    ("nurses", "find", {**place("ward_north", "beds"), "filter": {}}, ""),
    ("nurses", "find", {**PATIENTS, "filter": {}}, "not_granted"),
    ("clerks", "find", {**place("billing_surgery", "invoices_2026"), "filter": {}}, ""),
    ("clerks", "find", {**place("billing_surgery", "salaries"), "filter": {}}, "not_delegated"),
]


async def test_the_set_of_another_world_is_made_from_the_page_and_serves(tmp_path: Path, database: str) -> None:
    followed(tmp_path, SHELLS[0])
    hospital = tmp_path / "hospital"
    for name, text in zip(("policy.rego", "policy_test.rego"), REGO, strict=True):
        with (hospital / "teams/patients" / name).open("a", encoding="utf-8") as module:
            module.write("\n" + text)
    path = hospital / "platform/data.json"
    document = msgspec.json.decode(path.read_bytes())
    tables = document["mcp"]["platform"]
    (route,) = [one for one in tables["routes"] if one["id"] == "patients-readers"]
    route["groups"].append("researchers")
    path.write_bytes(msgspec.json.encode(document))
    said = followed(tmp_path, SHELLS[1])
    assert re.search(r"^fine$", said, re.MULTILINE)
    assert "0 failed" in said
    assert followed(hospital, "opa fmt --list teams") == ""
    asked = followed(tmp_path, SHELLS[2])
    assert "patients/researchers-count-patients" in asked
    assert "group registrars" in asked
    assert len(SHELLS) == 3

    tables["servers"]["demo-rw"] = {"deployment": "main"}  # the test's deployment has a second server
    path.write_bytes(msgspec.json.encode(document))
    (runtime := tmp_path / "deployment").mkdir()
    with deployed(runtime, database, policies=hospital, record=False) as running, running.database() as mongodb:
        mongodb["patients"]["patients"].insert_many(
            [{"name": name, "diagnosis": "flu", "ward": "north"} for name in ("Ann", "Ben")]
        )
        mongodb["ward_north"]["beds"].insert_one({"number": 1})
        mongodb["billing_surgery"]["invoices_2026"].insert_one({"sum": 12})
        for group, tool, arguments, code in CALLS:
            async with running.plain(person(group)) as client:
                await client.initialize()
                result = (await client.call(tool, arguments)).result
            codes = {one["code"] for one in result.get("_meta", {}).get("mcp-sidecar/decision", {}).get("reasons", [])}
            assert codes == ({code} if code else set()), (group, tool, arguments, result)
            assert bool(result.get("isError")) is bool(code), (group, tool, arguments, result)
            assert "Ann" not in str(result) or group != "researchers"


def test_the_settings_of_the_page_are_settings() -> None:
    (text,) = [text for language, text in BLOCKS if language == "toml"]
    settings = tomllib.loads(text)
    assert settings["policies"] == "hospital"
    assert [server["name"] for server in settings["servers"]] == ["demo-ro"]
    assert "--server demo-ro" in SHELLS[0]
