"""docs/first-team-policy.md: every command on the page, in order, on a clean copy of the policies."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests import parts

PAGE = (parts.ROOT / "docs" / "first-team-policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Desk:
    """A folder in which somebody follows the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policies = Path(shutil.copytree(parts.ROOT / "policies", folder / "policies"))
        self.shells = iter([text for language, text in BLOCKS if language == "sh"])
        self.rego = iter([text for language, text in BLOCKS if language == "rego"])

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run the next block of commands as it stands."""
        command = "set -e\nmcp-sidecar() { " + f'"{sys.executable}" -m sidecar "$@"; }}\n' + next(self.shells)
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={"PATH": f"{parts.BIN}:/usr/bin:/bin", "PYTHONPATH": str(parts.ROOT), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def add(self, file: str) -> None:
        with (self.policies / "teams/shop" / file).open("a", encoding="utf-8") as policy:
            policy.write("\n" + next(self.rego))

    def platform(self, group: str, *, owner: bool) -> None:
        path = self.policies / "platform/data.json"
        data = msgspec.json.decode(path.read_bytes())
        platform = data["mcp"]["platform"]
        platform["routes"][0]["groups"].append(group)
        if owner:
            delegated = [{"kinds": ["read", "metadata"], "collections": ["", "*"]}]
            holding = {"owner": "shop", "delegated": delegated, "obligations": []}
            platform["deployments"]["demo"]["databases"]["shop"] = holding
        path.write_bytes(msgspec.json.encode(data))


def explained(done: subprocess.CompletedProcess[str]) -> Any:
    return msgspec.json.decode(done.stdout)


def test_the_page_can_be_followed_to_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    started = desk.run()
    assert started.returncode == 0, started.stderr
    desk.platform("shop-readers", owner=True)
    assert desk.run().returncode == 0

    allowed = desk.run()
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    granted = explained(allowed)["explanation"]["accesses"][0]["granted"]
    assert granted == [{"grant": "readers-read-documents", "at": ["teams/shop/policy.rego:13"]}]
    assert "granted by readers-read-documents of shop (teams/shop/policy.rego:13)" in PAGE
    guest = desk.run()
    assert guest.returncode == 1
    assert {reason["code"] for reason in explained(guest)["decision"]["reasons"]} == {"no_route"}
    support = desk.run()
    assert support.returncode == 1
    nearest = explained(support)["explanation"]["accesses"][0]["not_granted"][0]
    assert nearest["grant"] == "readers-read-documents"
    assert nearest["failed"]["text"] == "lib.in_any_group(data.mcp.grants.shop.readers)"

    desk.add("policy.rego")
    desk.add("policy_test.rego")
    tested = desk.run()
    assert tested.returncode == 0, tested.stdout + tested.stderr
    fmt = [str(parts.BIN / "opa"), "fmt", "--list", "teams/shop"]
    assert subprocess.run(fmt, cwd=desk.policies, capture_output=True, text=True, check=True).stdout == ""

    desk.platform("shop-clerks", owner=False)
    shown = desk.run()
    assert shown.returncode == 0, shown.stderr
    assert 'filter {"branch": "Jena"}' in shown.stdout
    assert "clerks-read-own-branch" in shown.stdout

    desk.add("policy.rego")
    assert subprocess.run(fmt, cwd=desk.policies, capture_output=True, text=True, check=True).stdout == ""
    kept = desk.run()
    assert kept.returncode == 0, kept.stdout + kept.stderr
    cases = len(msgspec.json.decode((desk.policies / "cases/shop.json").read_bytes()))
    shipped = sum(
        len(msgspec.json.decode(path.read_bytes())) for path in (parts.ROOT / "policies/cases").glob("*.json")
    )
    assert (cases, f"({shipped + 1} golden cases), 0 failed" in kept.stdout) == (1, True), kept.stdout
    assert next(desk.shells, None) is None
    assert next(desk.rego, None) is None
