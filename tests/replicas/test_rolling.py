"""Rolling everything under load, and that what its bench counts as a fault is one."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench.rolling import Fleet, lacks_records, wrongly_allowed
from bench.rolling_calls import Became, Call, Kind, became
from bench.rolling_keys import TokenKeys
from sidecar.demo.identities import LOADER
from tests import parts

CLOSED = (10.0, 20.0)


def call(kind: Kind, result: Became, *, sent: float = 12.0, answered: float = 13.0) -> Call:
    return Call(kind=kind, person=LOADER, tool="t", arguments={}, mark="m", sent=sent, answered=answered, became=result)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(folder=tmp_path, url="", uri="", store_uri="", keys=TokenKeys(tmp_path / "jwks.json"), closed=[CLOSED])


@pytest.mark.parametrize(
    ("made", "written", "wrong"),
    [
        (call(Kind.NEVER, Became.ALLOWED), 0, True),
        (call(Kind.NEVER, Became.DENIED), 0, False),
        (call(Kind.WRITE, Became.ALLOWED), 1, True),
        (call(Kind.WRITE, Became.UNKNOWN), 1, True),
        (call(Kind.WRITE, Became.UNKNOWN), 0, False),
        (call(Kind.WRITE, Became.DENIED), 0, False),
        (call(Kind.WRITE, Became.ALLOWED, sent=9.0), 1, False),
        (call(Kind.WRITE, Became.ALLOWED, answered=21.0), 1, False),
        (call(Kind.READ, Became.ALLOWED), 0, False),
    ],
    ids=str,
)
def test_an_allow_is_wrong_where_policy_denied_it_all_the_while(
    fleet: Fleet, made: Call, written: int, wrong: bool
) -> None:
    assert wrongly_allowed(made, fleet, Counter(m=written)) is wrong


@pytest.mark.parametrize(
    ("result", "records", "times", "lacks"),
    [
        (Became.ALLOWED, {"intent": 1, "outcome": 1}, 0, False),
        (Became.ALLOWED, {"intent": 1}, 0, True),
        (Became.ALLOWED, {}, 0, True),
        (Became.UNKNOWN, {}, 0, False),
        (Became.UNKNOWN, {"intent": 1}, 1, False),
        (Became.UNKNOWN, {}, 1, True),
    ],
)
def test_a_record_is_missing_where_something_happened_without_it(
    result: Became, records: dict[str, int], times: int, lacks: bool
) -> None:
    assert lacks_records(call(Kind.WRITE, result), {"m": Counter(records)}, times) is lacks


def test_every_refusal_that_a_caller_read_is_recorded() -> None:
    refused = call(Kind.NEVER, Became.DENIED)
    refused.refusals.append("r1")
    assert not lacks_records(refused, {"r1": Counter(refusal=1)}, 0)
    assert not lacks_records(refused, {"r1": Counter(intent=1, outcome=1)}, 0)
    assert lacks_records(refused, {"r1": Counter(intent=1)}, 0)
    assert lacks_records(refused, {"r2": Counter(refusal=1)}, 0)


def test_an_answer_is_a_result_a_denial_or_neither() -> None:
    def refused(source: str) -> bytes:
        decision = {"request_id": "r1", "reasons": [{"code": "c", "source": source}]}
        return msgspec.json.encode({"result": {"isError": True, "_meta": {"mcp-sidecar/decision": decision}}})

    assert became(200, msgspec.json.encode({"result": {"content": []}}))[0] is Became.ALLOWED
    assert became(200, msgspec.json.encode({"result": {"isError": True, "content": []}}))[0] is Became.UNKNOWN
    assert became(200, refused("platform"))[::2] == (Became.DENIED, "r1")
    assert became(200, refused("sidecar"))[::2] == (Became.UNKNOWN, "r1")
    assert [became(status, b"")[0] for status in (0, 200, 502)] == [Became.UNKNOWN] * 3


@pytest.mark.nightly
@pytest.mark.real
@pytest.mark.needs("nginx")
@pytest.mark.timeout(3600)
def test_everything_is_rolled_under_load_and_callers_do_not_notice() -> None:
    done = subprocess.run(
        [sys.executable, "bench/rolling.py", "--json"],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    rows = msgspec.json.decode(done.stdout)
    assert [row for row in rows if not row["met"]] == [], done.stderr
    assert len(rows) == 24
