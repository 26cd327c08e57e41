"""Runs the official conformance suite directly and through the sidecar, and compares scenario by scenario.

``python -m tests.conformance.run`` prints the table of both runs and ends with status 1 where the sidecar is worse than
the server behind it and ``differences.DIFFERENCES`` does not say why.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from typing_extensions import override

from tests import parts
from tests.conformance.behind import CALLER, FIXTURE, sidecar
from tests.conformance.differences import DIFFERENCES
from tests.conformance.shim import shim
from tests.integration.deployment import search_path, wait_until

REQUIREMENTS: Final = ("2025-11-25", "2026-07-28")
"""The sets of the suite: the last handshake revision, and the stateless one."""

_CHECKS: Final = "checks.json"
_STAMP: Final = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the suite said of one scenario."""

    passed: int
    failed: int
    complaints: tuple[str, ...] = ()
    succeeded: frozenset[str] = frozenset()
    """The checks that succeeded, by id."""
    optional: frozenset[str] = frozenset()
    """The checks that the suite made and calls optional here (``INFO``)."""

    @property
    def ok(self) -> bool:
        return self.failed == 0 and self.passed > 0

    @override
    def __str__(self) -> str:
        return f"{'ok' if self.ok else 'FAIL'} {self.passed}/{self.passed + self.failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scenario in both runs."""

    requirements: str
    scenario: str
    direct: Outcome
    through: Outcome

    @property
    def reason(self) -> str:
        """Why the sidecar may be worse here; empty where it may not."""
        return DIFFERENCES.get((self.requirements, self.scenario), "")

    @property
    def worse(self) -> bool:
        """Whether a check fails through the sidecar, or is not made; of what the fixture itself passes."""
        made = self.through.succeeded | self.through.optional
        fewer = self.through.passed + len(self.through.optional & self.direct.succeeded) < self.direct.passed
        return self.direct.ok and (self.through.failed > 0 or fewer or not self.direct.succeeded <= made)

    @property
    def verdict(self) -> str:
        """How the two compare, in a word."""
        if self.worse:
            return "differs as documented" if self.reason else "WORSE"
        return "equal" if self.direct.ok else "not in the fixture"


@contextmanager
def fixture() -> Iterator[str]:
    """Run the fixture over HTTP; yields its URL."""
    port = parts.free_port()
    process = subprocess.Popen(
        [sys.executable, str(FIXTURE), "--port", str(port)],
        env={"PATH": search_path()},
        cwd=parts.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _listens(port), "the fixture to listen", process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


async def suite(url: str, requirements: str, folder: Path) -> Mapping[str, Outcome]:
    """Run one set against a server; return what came of each scenario."""
    process = await asyncio.create_subprocess_exec(
        parts.new_node(),
        str(parts.SUITE / "@modelcontextprotocol/conformance/dist/index.js"),
        *("server", "--url", url, "--requirements", requirements, "-o", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder.parent,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found = {name: _read(checks) for name, checks in _results(folder)}
    if not found:
        msg = f"the suite gave no results:\n{output.decode()[-2000:]}"
        raise AssertionError(msg)
    return found


def _results(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield each scenario with its checks; folders are called ``server-SCENARIO-TIME``."""
    for checks in sorted(folder.glob(f"*/{_CHECKS}")):
        yield _STAMP.sub("", checks.parent.name.removeprefix("server-")), checks


def _read(file: Path) -> Outcome:
    checks: list[dict[str, Any]] = json.loads(file.read_bytes())  # noqa: TID251 - the suite's own file
    failed = [one for one in checks if one["status"] == "FAILURE"]
    return Outcome(
        passed=sum(one["status"] == "SUCCESS" for one in checks),
        failed=len(failed),
        complaints=tuple(f"{one['id']}: {one.get('errorMessage', '')}" for one in failed),
        succeeded=frozenset(one["id"] for one in checks if one["status"] == "SUCCESS"),
        optional=frozenset(one["id"] for one in checks if one["status"] == "INFO"),
    )


async def _through(url: str, token: str, host: tuple[str, int], folder: Path) -> dict[str, Mapping[str, Outcome]]:
    async with shim(url, token, host) as front:
        return {one: await suite(front, one, folder / f"through-{one}") for one in REQUIREMENTS}


async def _direct(url: str, folder: Path) -> dict[str, Mapping[str, Outcome]]:
    return {one: await suite(url, one, folder / f"direct-{one}") for one in REQUIREMENTS}


def compare(folder: Path) -> list[Row]:
    """Run both sets both ways; the folder keeps what the suite wrote."""
    with fixture() as url:
        host = ("127.0.0.1", parts.free_port())
        direct = asyncio.run(_direct(url, folder))
        (folder / "sidecar").mkdir()
        with sidecar(folder / "sidecar", url=url, further_hosts=(f"{host[0]}:{host[1]}",)) as running:
            through = asyncio.run(_through(running.url, running.token(CALLER), host, folder))
    nothing = Outcome(passed=0, failed=0, complaints=("it was not run",))
    return [
        Row(
            requirements=one,
            scenario=scenario,
            direct=outcome,
            through=through[one].get(scenario, nothing),
        )
        for one in REQUIREMENTS
        for scenario, outcome in direct[one].items()
    ]


def table(rows: list[Row]) -> Iterator[str]:
    """Yield the lines of the table and, below it, the reasons."""
    width = max(len(row.scenario) for row in rows)
    for one in REQUIREMENTS:
        yield f"requirements {one}: {'scenario':{width}}  direct      through the sidecar"
        for row in (row for row in rows if row.requirements == one):
            yield f"  {row.scenario:{width + 20}}  {row.direct!s:10}  {row.through!s:10}  {row.verdict}"
            if row.worse:
                yield from (f"      {complaint[:300]}" for complaint in row.through.complaints)
                if row.reason:
                    yield f"      because: {row.reason}"
        ours = [row for row in rows if row.requirements == one]
        counts = sum(row.direct.ok for row in ours), sum(row.through.ok for row in ours)
        yield f"  {counts[0]} directly, {counts[1]} through the sidecar, of {len(ours)}"


def main() -> int:
    """Print the table; return 1 where the sidecar is worse without a reason."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-conformance-") as folder:
        rows = compare(Path(folder))
    sys.stdout.write("\n".join([*table(rows), f"{time.monotonic() - began:.0f} s", ""]))
    return int(any(row.worse and not row.reason for row in rows))


if __name__ == "__main__":
    sys.exit(main())
