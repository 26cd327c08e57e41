"""``mcp-sidecar inspect``: what a call would touch, without anything being asked or sent."""

import json
import subprocess
import sys

import pytest

from tests import parts
from tests.patience import HANG_S

FIND = {"name": "find", "arguments": {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}}


def run(text, *options):
    command = [sys.executable, "-m", "sidecar", "inspect", *options]
    return subprocess.run(
        command, input=text.encode(), capture_output=True, cwd=parts.ROOT, timeout=HANG_S, check=False
    )


def read(output):
    return json.loads(output)  # noqa: TID251 - our own output


def test_a_call_becomes_its_command():
    done = run(json.dumps(FIND))
    assert done.returncode == 0
    assert read(done.stdout)["accesses"] == [
        {"kind": "read", "database": "sales", "collection": "orders", "via": "/arguments/collection"}
    ]


def test_a_file_is_read_as_standard_input_is(tmp_path):
    file = tmp_path / "call.json"
    file.write_text(json.dumps(FIND))
    assert run("", str(file)).stdout == run(json.dumps(FIND)).stdout


@pytest.mark.parametrize(
    ("text", "code", "path"),
    [
        (json.dumps({**FIND, "name": "no-such-tool"}), "unknown_tool", "/name"),
        (json.dumps({"name": "find", "arguments": {"connectionId": "preconfigured"}}), "missing_argument", None),
        ("{", "parse_error", ""),
        ('{"name":"find","name":"count"}', "parse_error", ""),
        ('{"name":"find"},"id":7,"x":{}', None, ""),
        ("[]", None, ""),
        ("", None, ""),
    ],
)
def test_a_refusal_has_code_message_and_path_and_status_one(text, code, path):
    done = run(text)
    assert done.returncode == 1
    refused = read(done.stdout)["refused"]
    assert refused.keys() == {"code", "message", "path"}
    assert refused["message"]
    assert code is None or refused["code"] == code
    assert path is None or refused["path"] == path


def test_many_lines_get_one_answer_each():
    done = run(f"{json.dumps(FIND)}\n\n{{}}\n{json.dumps(FIND)}\n", "--lines")
    answers = [read(line) for line in done.stdout.splitlines()]
    assert ["refused" in answer for answer in answers] == [False, True, False]
    assert done.returncode == 1


def test_lines_that_are_all_allowed_are_status_zero():
    assert run(f"{json.dumps(FIND)}\n", "--lines").returncode == 0
