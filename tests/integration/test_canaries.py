"""The search that every deployment of the suite ends with finds what is planted, in each output and of each kind."""

import json
from pathlib import Path

import pytest

from tests.integration.canaries import leaks

TOKEN = "eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJhbGljZSIsImF1ZCI6Im1jcCJ9.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
URI = "mongodb://reader:correct-horse@127.0.0.1:1/"
VALUE = "canary-of-a-filter"
SENT = {
    "method": "tools/call",
    "params": {"name": "find", "arguments": {"database": "sales", "filter": {"a": [{"$eq": VALUE}], "b": "open"}}},
}
OUTPUTS = ("sidecar.log", "metrics", "audit.jsonl", "audit.jsonl.000000000001", "audit.jsonl.checkpoints", "spans")
PLANTED = {
    "a whole token": TOKEN,
    "the claims of a token": TOKEN.split(".")[1],
    "the end of a token": TOKEN[-40:],
    "the password": "correct-horse",
    "a value": VALUE,
}


def found(folder: Path, output: str, text: str, **environment: str) -> list[str]:
    (folder / "demo-ro.stdin").write_text(json.dumps(SENT) + "\n")
    spans = [text.encode()] if output == "spans" else []
    if output != "spans":
        (folder / output).write_text(f"a line\n{{'x': '{text}'}}\n")
    return leaks(folder, [TOKEN], URI, environment, spans)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_is_found(tmp_path: Path, output: str, kind: str) -> None:
    assert found(tmp_path, output, PLANTED[kind]) != []


@pytest.mark.parametrize("text", ["open", "sales", "alice", TOKEN[:20], "mcp-sidecar trace 0123"])
def test_what_may_be_there_is_no_leak(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, "sidecar.log", text) == []


def test_values_may_be_recorded_where_that_is_asked_for_and_tokens_never(tmp_path: Path) -> None:
    full = {"SIDECAR_AUDIT__ARGUMENTS": "full"}
    assert found(tmp_path, "audit.jsonl", VALUE, **full) == []
    assert found(tmp_path, "audit.jsonl", TOKEN, **full) != []
