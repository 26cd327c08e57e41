"""docs/first-team-policy.md: every command on the page, in order, on a clean copy of the policies."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from tests import parts
from tests.policy_sets import quick_copy

PAGE = (parts.ROOT / "docs" / "first-team-policy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Desk:
    """A folder in which somebody follows the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policies = quick_copy(folder / "policies")
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
            timeout=600,
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


READING: int = 200
"""Words a minute, slowly."""

DOING: float = 1 / 3
"""Minutes for each block that is pasted, and its answer looked at."""

MINUTES: int = 10
"""What the page's title promises."""


def test_reading_and_doing_fit_into_the_minutes_that_the_page_promises() -> None:
    followed = PAGE.partition("## If your need is another one")[0]
    prose = re.sub(r"^```.*?^```$", "", followed, flags=re.MULTILINE | re.DOTALL)
    blocks = len(re.findall(r"^```\w+$", followed, re.MULTILINE))
    assert "in ten minutes" in PAGE.splitlines()[0]
    assert len(prose.split()) / READING + blocks * DOING < MINUTES
    assert (
        sum(map(int, map(_NUMBERS.index, re.findall(r"^## \d\. .*\((\w+) minutes?\)$", PAGE, re.MULTILINE)))) < MINUTES
    )


_NUMBERS = ["none", "one", "two", "three", "four", "five"]


def test_the_page_begins_with_commands_that_exist() -> None:
    first = BLOCKS[0][1].splitlines()
    assert first == ["make setup", 'export PATH="$PWD/.venv/bin:$PWD/.parts/bin:$PATH"']
    assert re.search(r"^setup:", (parts.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    scripts = tomllib.loads((parts.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert "mcp-sidecar" in scripts


NEEDS = re.findall(r"^\| (?:[^|]+) \| `(lib\.[^`]+|input\.[^`]+)`(?: and `(lib\.[^`]+)`)? \|$", PAGE, re.MULTILINE)


def test_what_the_page_offers_for_other_needs_passes_the_check(tmp_path: Path) -> None:
    policies = quick_copy(tmp_path / "policies")
    (policies / "teams/people/policy_test.rego").unlink()  # says that nobody else reads
    assert len(NEEDS) == 9
    rules = "".join(
        f'\ngrant contains {{"id": "need-{number}"}} if {{\n\t' + "\n\t".join(filter(None, need)) + "\n}\n"
        for number, need in enumerate(NEEDS)
    )
    with (policies / "teams/people/policy.rego").open("a", encoding="utf-8") as policy:
        policy.write(rules)
    checked = subprocess.run(
        [sys.executable, "-m", "sidecar", "policy", "check", str(policies)],
        env={"PATH": f"{parts.BIN}:/usr/bin:/bin", "PYTHONPATH": str(parts.ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_page_can_be_followed_to_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    next(desk.shells)
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
    counted = desk.run()
    assert counted.returncode == 0, counted.stdout + counted.stderr
    assert explained(counted)["enforcement"] == {"allow": True, "reasons": []}
    shown = desk.run()
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("shop/clerks-count-orders") >= 2
    assert "nothing of a document comes back" in shown.stdout
    assert "teams/shop/policy.rego:" in shown.stdout
    assert "REFUSED" not in shown.stdout

    desk.add("policy.rego")
    assert subprocess.run(fmt, cwd=desk.policies, capture_output=True, text=True, check=True).stdout == ""
    kept = desk.run()
    assert kept.returncode == 0, kept.stdout + kept.stderr
    cases = {
        path.name: len(msgspec.json.decode(path.read_bytes())) for path in (desk.policies / "cases").glob("*.json")
    }
    assert (cases["shop.json"], len(cases)) == (1, 2)
    assert f"({sum(cases.values())} golden cases), 0 failed" in kept.stdout, kept.stdout
    assert next(desk.shells, None) is None
    assert next(desk.rego, None) is None
