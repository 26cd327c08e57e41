"""OPA's own decision log names the request that each question is about."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.opa.client import OpaClient
from sidecar.opa.wire import about_request, encode_question
from sidecar.ports import Question
from sidecar.telemetry.tracing import OtelTracer
from tests import parts
from tests.patience import HANG_S

RULES = """package mcp.main

decision := {"allow": false, "seen": object.keys(input)}
"""


@pytest.fixture
def logging_opa(opa_binary: str, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An OPA with its decision log on the console; its address, and the file of the log."""
    (tmp_path / "main.rego").write_text(RULES)
    port, log = parts.free_port(), tmp_path / "opa.log"
    command = [
        *(opa_binary, "run", "--server", f"--addr=127.0.0.1:{port}", "--skip-version-check", "--log-level=info"),
        *("--set=decision_logs.console=true", str(tmp_path / "main.rego")),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    yield f"http://127.0.0.1:{port}", log
    parts.stop(process)


def entries(log: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]  # noqa: TID251
    found = [row for row in rows if row.get("type") == "openpolicyagent.org/decision_logs"]
    return [row for row in found if row.get("path") == Question.DECISION.value]


async def decisions(log: Path, count: int) -> list[dict[str, Any]]:
    """The decision log, once it has so many entries of our questions."""
    async with asyncio.timeout(HANG_S):
        while True:
            found = await asyncio.to_thread(entries, log)
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_the_decision_log_names_the_request_and_no_rule_sees_it(logging_opa: tuple[str, Path]) -> None:
    url, log = logging_opa
    tracer = OtelTracer(None)
    async with OpaClient(url, timeout_s=HANG_S) as client:
        async with asyncio.timeout(HANG_S):
            while not await client.healthy():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        with (
            tracer.server("message", traceparent=None, link=None, request_id='r-1"\u202e'),
            tracer.step("authorize", client=True),
        ):
            answer = await client.ask(Question.DECISION, {"a": 1})
            await client.ask(Question.RESIDUAL, {"a": 1})
        await client.ask(Question.DECISION, {"a": 2})
    assert answer.result == {"allow": False, "seen": ["a"]}
    first, last = await decisions(log, 2)
    assert first["custom"]["request_metadata"]["mcp-sidecar"] == {"request_id": 'r-1"\u202e'}
    assert first["decision_id"] == answer.decision_id
    assert first["input"] == {"a": 1}
    assert "custom" not in last


def test_without_a_request_a_question_is_as_it_was() -> None:
    body = encode_question({"a": 1})
    assert about_request(body, "") is body
    assert json.loads(about_request(body, "r")) == {"input": {"a": 1}, "mcp-sidecar": {"request_id": "r"}}  # noqa: TID251
