"""The search that every deployment of the suite ends with finds what is planted, in each output and of each kind."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from tests.integration.canaries import leaks
from tests.integration.deployment import deployed

TOKEN = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=")
    for part in (b'{"alg":"ES256","typ":"at+jwt"}', b'{"sub":"alice","aud":"mcp"}', b"signature-of-a-token" * 2)
)
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


@pytest.mark.parametrize("collection", ["evidence", "evidence.checkpoints"])
def test_what_is_planted_in_a_store_of_evidence_is_found(tmp_path: Path, database: str, collection: str) -> None:
    own = f"canaries_{tmp_path.name}"[:60]
    (tmp_path / "sidecar.toml").write_text(f'[mongodb]\ndatabase = "{own}"\n')
    given = {"SIDECAR_AUDIT__STORE": "mongodb:evidence"}
    with MongoClient[dict[str, Any]](database) as client:
        try:
            with pytest.raises(AssertionError, match="not searched"):
                leaks(tmp_path, [TOKEN], database, given)
            client[own].evidence.insert_one({"event": "intent"})
            assert leaks(tmp_path, [TOKEN], database, given) == []
            client[own][collection].insert_one({"outcome": {"error": f"bearer {TOKEN}"}})
            assert leaks(tmp_path, [TOKEN], database, given) != []
        finally:
            client.drop_database(own)


def test_a_deployment_that_exports_spans_says_where_they_arrive(tmp_path: Path) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with pytest.raises(AssertionError, match="searched"), deployed(tmp_path, URI, environment=given):
        pass
