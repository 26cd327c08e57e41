"""One trace on a terminal: from the evidence alone, and with the spans of Jaeger's query API."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from sidecar.asking.jaeger import JaegerFailed, JaegerSpan, read_trace
from sidecar.command_line import cli
from tests.examples import examples

SPANS = [
    ("a", "tools/call find", "", 1_000, 900, "p1"),
    ("c", "authorize", "a", 1_200, 300, "p1"),
    ("b", "authenticate", "a", 1_010, 50, "p1"),
    ("d", "POST /v1/data/{path...}", "c", 1_250, 200, "p2"),
    ("e", "forward", "a", 1_600, 200, "p1"),
]


def told(*spans: tuple[str, str, str, int, int, str]) -> bytes:
    """What Jaeger answers, in its own words."""
    return json.dumps({
        "data": [{
            "traceID": "0" * 32,
            "spans": [
                {
                    "traceID": "0" * 32, "spanID": name, "operationName": what, "startTime": start, "duration": took,
                    "references": [{"refType": "CHILD_OF", "traceID": "0" * 32, "spanID": parent}] if parent else [],
                    "tags": [{"key": "error.type", "type": "string", "value": "late\x1b"}] if name == "e" else [],
                    "processID": process, "logs": [], "warnings": None,
                }
                for name, what, parent, start, took, process in spans
            ],
            "processes": {"p1": {"serviceName": "mcp-sidecar", "tags": []}, "p2": {"serviceName": "opa"}},
        }],
        "total": 0, "limit": 0, "offset": 0, "errors": None,
    }).encode()  # fmt: skip


class Staged(BaseHTTPRequestHandler):
    """Answers as a Jaeger that is asked for one trace, or that is ill."""

    status = 200
    body = b""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Location", self.path + "x")
        self.end_headers()
        self.wfile.write(self.body)

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def jaeger() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Staged)
    server.asked = []
    Staged.status, Staged.body = 200, told(*SPANS)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def traced(path: object, *words: str) -> Result:
    return CliRunner().invoke(cli, ["trace", "--file", str(path), *words])


def address(server: Any) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_the_evidence_alone_tells_who_what_why_and_how_it_ended(evidence):
    done = traced(evidence, f"{4:032x}")
    assert done.exit_code == 0
    for words in ("tools/call find", "ann (https://idp.example) through desk", "read hr.salaries", "allow: hr/readers"):
        assert words in done.stdout
    assert "ok, 4 documents" in done.stdout
    assert "9 and 10" not in done.stdout


def test_a_refused_call_tells_why(evidence):
    [call] = json.loads(traced(evidence, "--json", f"{5:032x}").stdout)["calls"]  # noqa: TID251 - our own output
    assert (call["user"], call["decision"], call["reasons"]) == ("bob", "deny", ["not_granted"])


def test_last_is_the_newest_call_however_old(evidence):
    done = traced(evidence, "--last", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)  # noqa: TID251 - our own output
    assert [call["reasons"] for call in found["calls"]] == [["token_missing"]]
    assert found["spans"] is None


@pytest.mark.parametrize("words", [[], ["--last", "0" * 32], ["0" * 31], ["g" * 32], ["../" + "0" * 29], ["0" * 33]])
def test_what_is_no_id_is_wrong_usage(evidence, words):
    assert traced(evidence, *words).exit_code == 2


def test_a_trace_that_nothing_knows_is_status_1(evidence):
    done = traced(evidence, "f" * 32)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no such trace" in done.stderr


def test_jaegers_spans_are_drawn_as_a_tree(evidence, jaeger):
    done = traced(evidence, f"{4:032X}", "--jaeger", address(jaeger))
    assert done.exit_code == 0
    lines = [line for line in done.stdout.splitlines() if " ms " in line and ("━" in line)]
    assert [re.split(r"\s+[0-9.]+ ms", line)[0] for line in lines] == [
        "tools/call find",
        "├─ authenticate",
        "├─ authorize",
        "│  └─ POST /v1/data/{path...}",
        "└─ forward",
    ]
    assert lines[3].rstrip().endswith("opa")
    assert "late\\u001b" in lines[4]
    assert jaeger.asked == [f"/api/traces/{4:032x}"]


def test_spans_without_a_record_are_found_too(evidence, jaeger):
    found = json.loads(traced(evidence, "e" * 32, "--json", "--jaeger", address(jaeger)).stdout)  # noqa: TID251
    assert (found["calls"], len(found["spans"])) == ([], 5)


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (404, b'{"errors":[{"code":404,"msg":"trace not found"}]}', "does not have it"),
        (500, b"", "status 500"),
        (302, b"", "status 302"),
        (200, b"<html>", "not a trace"),
        (200, b" " * (16 << 20) + b"{}", "too long"),
    ],
    ids=["unknown", "failing", "elsewhere", "page", "endless"],
)
def test_a_jaeger_that_does_not_tell_leaves_the_evidence(evidence, jaeger, status, body, what):
    Staged.status, Staged.body = status, body
    done = traced(evidence, f"{4:032x}", "--jaeger", address(jaeger))
    assert done.exit_code == 0
    assert "ann (https://idp.example)" in done.stdout
    assert what in done.stderr
    assert len(jaeger.asked) == 1


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://u:p@h", "http://h?x=1", "h:16686"])
def test_an_address_that_is_none_is_wrong_usage(evidence, url):
    assert traced(evidence, "--last", "--jaeger", url).exit_code == 2


def test_spans_in_a_circle_or_of_an_absent_parent_are_told_once():
    circle = read_trace(told(("a", "x", "b", 1, 1, "p1"), ("b", "y", "a", 2, 1, "p1"), ("c", "z", "gone", 3, 1, "p9")))
    assert [(span.name, span.depth) for span in circle] == [("z", 0), ("x", 0), ("y", 1)]
    alone = read_trace(told(("a", "x", "a", 1, 1, "p1")))
    assert [span.name for span in alone] == ["x"]


def test_an_answer_has_no_more_spans_than_are_drawn():
    chain = [(f"{number}", "x", f"{number - 1}", number, 1, "p1") for number in range(5_000)]
    spans = read_trace(told(*chain))
    assert len(spans) == 2_000
    assert max(span.depth for span in spans) == 40


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "spans", "processes", "spanID", "x"]), inner, max_size=3)
    ),
)


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=examples(200))
def test_any_answer_is_a_trace_or_none(body):
    spans: tuple[JaegerSpan, ...] = ()
    with suppress(JaegerFailed):
        spans = read_trace(body)
    assert len(spans) <= 2_000
