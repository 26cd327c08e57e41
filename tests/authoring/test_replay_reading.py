"""What ``replay`` believes of an audit file: what is proven and of its form, to the first line that is not."""

import io
import json
import sys
import tempfile
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from sidecar.audit.chain import GENESIS, link
from sidecar.audit.record import rfc3339
from sidecar.authoring.records import (
    MAX_ACCESSES,
    MAX_NAMED,
    MAX_PARTS,
    DecisionOutcome,
    UnreadableRecord,
    read_question,
    read_record,
)
from sidecar.authoring.replay_sums import FURTHER, MOST_NAMES, ReplaySums
from sidecar.authoring.replaying import KEPT_BYTES, ReplayReport, ReplayVerdict, ReplayWanted, replay
from sidecar.authoring.taped import BATCH, BATCH_BYTES, LONGEST_LINE
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import AccessVerdict, Decision, JsonObject, JsonValue, Reason
from sidecar.ports import PdpAnswer, Question
from tests.authoring.traffic import ANALYST, CANARY, HR, SECOND, STRANGER, Book, text

DENY = Decision(
    allow=False,
    reasons=(Reason(code="not_granted", source="analytics", access=0),),
    server="demo-ro",
    accesses=(),
    revision="r",
)


@dataclass
class Refusing:
    """A candidate that answers everything with the recorded deny, and counts; or fails as staged."""

    asked: list[JsonObject] = field(default_factory=list)
    faults: list[PdpFault] = field(default_factory=list)
    down: int = 0
    revision: str = "candidate"

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        assert question is Question.DECISION
        self.asked.append(document)
        if self.faults:
            raise DecisionUnavailable("staged", fault=self.faults.pop())
        return PdpAnswer(
            result={
                "v": 1,
                "allow": False,
                "reasons": [{"code": "not_granted", "source": "analytics", "access": 0}],
                "server": "demo-ro",
                "accesses": [],
                "approval": None,
                "revision": "",
            },
            revision="candidate",
        )

    async def healthy(self) -> bool:
        self.down -= 1
        return self.down < 0


async def replayed(content: bytes, candidate: Refusing | None = None, limit: int = 100) -> ReplayReport:
    return await replay(
        io.BytesIO(content),
        candidate or Refusing(),
        servers=["demo-ro"],
        titles={"not_granted": "Nobody."},
        wanted=ReplayWanted(limit=limit),
    )


def book(*calls: Any) -> Book:
    written = Book()
    for call in calls or (STRANGER, ANALYST, STRANGER):
        written.call(call, DENY)
    return written


def broken(found: ReplayReport) -> tuple[int, str]:
    assert found.proof.fault is not None
    assert not found.ok
    return found.proof.fault.line, found.proof.fault.what


async def test_a_whole_chain_without_differences_is_fine() -> None:
    found = await replayed(book().content)
    assert found.ok
    assert found.counts == {ReplayVerdict.SAME: 3}
    assert (found.proof.records, found.questions, found.revision) == (3, 2, "candidate")


# --- the chain --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "line", "what"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"alice", b"Alice"), lines[2]], 2, "hash"),
        (lambda lines: [lines[0], lines[2]], 2, "sequence gap"),
        (lambda lines: lines[1:], 1, "sequence gap"),
        (lambda lines: [lines[0], lines[0], lines[2]], 2, "sequence gap"),
        (lambda lines: [lines[0], b"\n", *lines[1:]], 2, "not JSON"),
        (lambda lines: [lines[0], b"\xff\xfe\n", *lines[1:]], 2, "not JSON"),
        (lambda lines: [*lines, b"no record"], 4, "truncated"),
        (lambda lines: [b"#!/bin/sh"], 1, "truncated"),
        (lambda lines: [b"[" * 200_000 + b"\n"], 1, "not JSON"),
        (lambda lines: [b'{"accesses":' + b"9" * 10_000 + b"}\n"], 1, "not JSON"),
    ],
    ids=[
        "edited",
        "removed",
        "beginning-cut",
        "repeated",
        "empty-line",
        "bytes",
        "foreign-end",
        "script",
        "deep",
        "digits",
    ],
)
async def test_reading_ends_at_the_first_line_that_does_not_hold(edit: Any, line: int, what: str) -> None:
    found = await replayed(b"".join(edit(book().lines)))
    at, said = broken(found)
    assert at == line
    assert what in said
    assert found.compared == line - 1, "what holds before is compared, what follows is not"


async def test_the_unfinished_end_of_a_file_that_is_being_written_is_no_error() -> None:
    whole = book()
    for cut in (1, 12, 13, len(whole.lines[2]) - 1):
        found = await replayed(b"".join(whole.lines[:2]) + whole.lines[2][:cut])
        assert found.ok
        assert found.unfinished_line
        assert found.compared == 2


async def test_a_line_longer_than_any_record_is_not_read_to_its_end() -> None:
    class Endless(io.BytesIO):
        @override
        def readline(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= LONGEST_LINE
            return b'{"accesses":' + b"x" * (size - 12)

    found = await replay(Endless(), Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))
    assert broken(found) == (1, "the line is longer than a record can be")


async def test_an_empty_file_shows_nothing_and_is_not_fine() -> None:
    found = await replayed(b"")
    assert found.proof.holds
    assert not found.ok


async def test_a_file_that_cannot_be_read_is_a_configuration_error() -> None:
    class Failing(io.BytesIO):
        @override
        def readline(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(ConfigurationError, match="Input/output"):
        await replay(Failing(), Refusing(), servers=[], titles={}, wanted=ReplayWanted(limit=1))


# --- what a record says -----------------------------------------------------------------------------------------------


async def test_only_what_has_question_and_decision_is_compared() -> None:
    written = book(STRANGER)
    written.call(STRANGER, DENY, question=False)
    written.refusal(STRANGER, "decision_unavailable", question=True)
    written.refusal(STRANGER, "not_derivable", question=False)
    candidate = Refusing()
    found = await replayed(written.content, candidate)
    assert found.ok
    assert found.counts == {
        ReplayVerdict.SAME: 1,
        ReplayVerdict.NOT_RECORDED: 1,
        ReplayVerdict.UNDECIDED: 1,
        ReplayVerdict.NOT_ASKED: 1,
    }
    assert len(candidate.asked) == 1
    assert "SIDECAR_AUDIT__QUESTION" in str(found.document()["notes"])


async def test_a_file_without_any_question_is_not_fine() -> None:
    written = Book()
    written.call(STRANGER, DENY, question=False)
    assert not (await replayed(written.content)).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"question": 1},
        {"question": {"v": 1}},
        {"question": ""},
        {"question": "{}"},
        {"question": "null"},
        {"question": "[" * 100_000},
        {"question": text(STRANGER).replace("{", "{ ", 1)},
        {"question": text(STRANGER).replace('"v":1', '"v":1,"v":1', 1)},
        {"question": text(STRANGER).replace('"limit":5', '"limit":NaN', 1)},
        {"question": text(STRANGER).replace('"mallory"', '"\\ud800"', 1)},
        {"question": text(STRANGER).replace('"limit":5', f'"limit":{"9" * 5000}', 1)},
        {"question": json.dumps({**STRANGER.question, "accesses": []}, separators=(",", ":"))},
        {"question": json.dumps({**STRANGER.question, "accesses": [1]}, separators=(",", ":"))},
        {"question": json.dumps({**STRANGER.question, "subject": None}, separators=(",", ":"))},
        {"decision": []},
        {"decision": {"allow": "yes", "reasons": [], "grants": []}},
        {"decision": {"allow": 1, "reasons": [], "grants": []}},
        {"decision": {"allow": True, "reasons": [{}], "grants": []}},
        {"obligations": {}},
        {"obligations": [1]},
        {"obligations": [{}]},
        {"obligations": [{"access": True}]},
        {"outcome": "refused"},
        {"server": 1},
        {"time": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_record_of_another_form_ends_the_reading_as_a_broken_chain_does(changes: JsonObject) -> None:
    written = book(STRANGER)
    written.call(STRANGER, DENY, edit=changes)
    candidate = Refusing()
    found = await replayed(written.content, candidate)
    line, what = broken(found)
    assert line == 2
    assert "form" in what or "written" in what or "access" in what
    assert candidate.asked == [STRANGER.question]


def nested(depth: int, leaf: JsonValue) -> JsonValue:
    value = leaf
    for _ in range(depth):
        value = {"a": value}
    return value


DEPTHS = range(1, 1200)


@pytest.mark.parametrize("leaf", [1, 1.5, "\U0001f600", 10**15], ids=["integer", "fraction", "beyond", "digits"])
def test_an_obligation_however_deep_is_read_or_refused(leaf: JsonValue) -> None:
    """Numbers and some characters are written by an encoder that goes less deep (``sidecar.audit.canonical``)."""
    entry = json.JSONDecoder().decode(book(STRANGER).lines[0].decode())

    def refused(depth: int) -> bool:
        try:
            read_record({**entry, "obligations": [{"access": 0, "filter": nested(depth, leaf)}]})
        except UnreadableRecord:
            return True
        return False

    first = DEPTHS[bisect_left(DEPTHS, 1, key=refused)]
    assert first > 100, "no filter that a person writes"
    # Every depth around it is one or the other; a frame more or less on the stack moves the edge itself.
    around = [refused(depth) for depth in range(first - 20, first + 20)]
    assert not any(around[:16])
    assert all(around[24:])


async def test_a_record_too_deep_to_be_compared_ends_the_reading() -> None:
    """Whoever writes the file has as much stack as they like; some depths prove well and cannot be compared."""
    entry = json.JSONDecoder().decode(book(STRANGER).lines[0].decode())
    body = {key: value for key, value in entry.items() if key not in {"seq", "prev", "hash"}}

    async def said(depth: int) -> str:
        usual = sys.getrecursionlimit()
        sys.setrecursionlimit(20_000)
        try:
            line, _ = link({**body, "obligations": [{"access": 0, "filter": nested(depth, 1.5)}]}, 1, GENESIS)
        finally:
            sys.setrecursionlimit(usual)
        fault = (await replayed(line + b"\n")).proof.fault
        return "" if fault is None else fault.what

    low, high = DEPTHS[0], DEPTHS[-1]
    assert not await said(low)
    assert await said(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if await said(middle) else (middle, high)
    around = {await said(depth) for depth in range(high - 10, high + 10)}
    assert {"", "the record does not have the form of an audit record"} <= around


async def test_a_candidate_whose_obligation_is_too_deep_gives_no_answer_that_counts() -> None:
    class Deep(Refusing):
        depth = 1

        @override
        async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
            access: JsonObject = {"owner": "o", "grants": ["g"], "mask": [], "max_documents": None, "max_time_ms": None}
            return PdpAnswer(
                result={
                    "v": 1,
                    "allow": True,
                    "reasons": [],
                    "server": "demo-ro",
                    "accesses": [{**access, "filter": nested(self.depth, 1.5)}],
                    "approval": None,
                    "revision": "",
                },
                revision="candidate",
            )

    candidate = Deep()
    assert (await replayed(book(STRANGER).content, candidate)).counts == {ReplayVerdict.WOULD_ALLOW: 1}
    candidate.depth = 2000
    assert (await replayed(book(STRANGER).content, candidate)).counts == {ReplayVerdict.UNAVAILABLE: 1}


REASON: JsonValue = {"code": "c", "source": "s", "access": 0}


def decision(reasons: int, grants: int) -> JsonObject:
    return {"allow": False, "reasons": [REASON] * reasons, "grants": [str(number) for number in range(grants)]}


@pytest.mark.parametrize(
    ("most", "beyond"),
    [
        ({"decision": decision(MAX_NAMED, 0)}, {"decision": decision(MAX_NAMED + 1, 0)}),
        ({"decision": decision(0, MAX_NAMED)}, {"decision": decision(0, MAX_NAMED + 1)}),
        (
            {"obligations": [{"access": index, "owner": "o"} for index in range(MAX_ACCESSES)]},
            {"obligations": [{"access": index, "owner": "o"} for index in range(MAX_ACCESSES + 1)]},
        ),
        (
            {"obligations": [{"access": 0, **{str(number): 1 for number in range(MAX_PARTS - 1)}}]},
            {"obligations": [{"access": 0, **{str(number): 1 for number in range(MAX_PARTS)}}]},
        ),
    ],
    ids=["reasons", "grants", "obligations", "parts"],
)
def test_a_record_has_as_much_as_a_decision_can_have_and_no_more(most: JsonObject, beyond: JsonObject) -> None:
    entry = json.JSONDecoder().decode(book(STRANGER).lines[0].decode())
    assert read_record(entry | most) is not None
    with pytest.raises(UnreadableRecord, match="form"):
        read_record(entry | beyond)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()), max_size=4))
async def test_arbitrary_lines_never_raise(lines: list[bytes]) -> None:
    await replayed(b"".join(line + b"\n" for line in lines))


MEMBERS = ("question", "decision", "obligations", "outcome", "server", "time", "accesses", "subject", "v", "tool")


@given(st.dictionaries(st.sampled_from(MEMBERS), json_values, max_size=4))
async def test_a_chain_of_arbitrary_members_never_raises(changes: JsonObject) -> None:
    written = book(STRANGER)
    entry = json.JSONDecoder().decode(written.lines[0].decode())
    body = {key: value for key, value in entry.items() if key not in {"seq", "prev", "hash"}} | changes
    try:
        line, _ = link(body, 1, GENESIS)
    except ValueError:
        return
    await replayed(line + b"\n")


@given(json_values)
def test_an_arbitrary_record_is_read_or_refused(value: Any) -> None:
    entries: list[Any] = [{"event": value}, {"event": "intent", "question": json.dumps(value)}, value]
    for entry in entries:
        try:
            read_record(entry)
        except UnreadableRecord:
            continue


@given(st.text() | json_values.map(json.dumps))
def test_an_arbitrary_question_is_read_as_it_stands_or_refused(said: str) -> None:
    try:
        asked = read_question(said)
    except UnreadableRecord:
        return
    assert asked.text == said


# --- how often the candidate is asked ---------------------------------------------------------------------------------


async def test_each_distinct_question_is_asked_once() -> None:
    calls = [replace(STRANGER, second=STRANGER.second + number // 40) for number in range(400)]
    candidate = Refusing()
    found = await replayed(book(*calls).content, candidate)
    assert found.counts == {ReplayVerdict.SAME: 400}
    assert len(candidate.asked) == found.questions == 10


async def test_the_file_is_read_as_far_as_is_decided() -> None:
    written = book(*(replace(STRANGER, second=STRANGER.second + number) for number in range(10 * BATCH)))
    file, positions = io.BytesIO(written.content), []

    class Watching(Refusing):
        @override
        async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
            positions.append(file.tell())
            return await super().ask(question, document)

    await replay(file, Watching(), servers=["demo-ro"], titles={}, wanted=ReplayWanted(limit=1))
    assert positions[0] <= BATCH * len(max(written.lines, key=len))
    assert len(positions) == 10 * BATCH


@pytest.mark.parametrize(("characters", "ahead"), [(10, BATCH), (BATCH_BYTES // 4, 4)], ids=["short", "long"])
async def test_long_lines_make_a_batch_of_fewer_records_whatever_they_are_long_of(characters: int, ahead: int) -> None:
    written = Book()
    for number in range(2 * BATCH if characters < BATCH_BYTES // BATCH else 8):
        call = replace(STRANGER, second=STRANGER.second + number)
        written.call(call, DENY, edit={"request_id": f"{number}{'x' * characters}"})
    file, positions = io.BytesIO(written.content), []

    class Watching(Refusing):
        @override
        async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
            positions.append(file.tell())
            return await super().ask(question, document)

    found = await replay(file, Watching(), servers=["demo-ro"], titles={}, wanted=ReplayWanted(limit=1))
    assert found.compared == len(written.lines)
    assert positions[0] == sum(map(len, written.lines[:ahead]))


# --- when the candidate does not answer -------------------------------------------------------------------------------


async def test_no_answer_is_a_difference_of_its_own() -> None:
    found = await replayed(book(STRANGER).content, Refusing(faults=[PdpFault.STATUS]))
    assert found.counts == {ReplayVerdict.UNAVAILABLE: 1}
    assert not found.ok
    assert found.rows[0].document["after"] == {"unavailable": "staged"}


async def test_an_opa_that_went_away_is_waited_for_and_asked_again() -> None:
    candidate = Refusing(faults=[PdpFault.UNREACHABLE], down=2)
    found = await replayed(book(STRANGER).content, candidate)
    assert found.ok
    assert len(candidate.asked) == 2


# --- whom it concerns -------------------------------------------------------------------------------------------------

ALLOW = replace(
    DENY, allow=True, reasons=(), accesses=(AccessVerdict(owner="analytics", grants=("readers",)),), revision="r"
)


async def test_who_would_newly_be_denied_is_told_by_team_user_agent_and_collection() -> None:
    written = Book()
    for call, decision in ((ANALYST, ALLOW), (ANALYST, ALLOW), (HR, ALLOW), (STRANGER, DENY)):
        written.call(call, decision)
    by: Any = (await replayed(written.content)).document()["by"]
    denied = {table: {row["name"]: row["newly_denied"] for row in rows} for table, rows in by.items()}
    assert denied == {
        "teams": {"analytics": 3},
        "users": {"alice": 2, "hanna": 1},
        "agents": {"claude-desktop": 3},
        "collections": {"sales.orders": 2, "hr.salaries": 1},
    }
    assert {row["newly_allowed"] for rows in by.values() for row in rows} == {0}
    assert [row["name"] for row in by["users"]] == ["alice", "hanna"], "whom it concerns most comes first"


async def test_the_names_of_a_table_are_bounded() -> None:
    sums = ReplaySums()
    outcome = DecisionOutcome.of(ALLOW, "find")
    for number in range(MOST_NAMES + 2):
        sums.add(read_question(text(replace(ANALYST, subject=f"user-{number}"))), outcome, newly_allowed=True)
    users: Any = sums.document()["users"]
    assert len(users) == MOST_NAMES + 1
    assert next(row for row in users if row["name"] == FURTHER)["newly_allowed"] == 2


async def test_a_period_is_compared_and_the_whole_chain_is_proven() -> None:
    written = Book()
    for second in range(4):
        written.call(ANALYST, ALLOW, edit={"time": rfc3339((SECOND + second) * 10**9)})
    since, until = (rfc3339((SECOND + second) * 10**9) for second in (1, 3))
    told: list[tuple[int, int]] = []
    with tempfile.TemporaryFile() as file:
        file.write(written.content)
        file.seek(0)
        wanted = ReplayWanted(limit=9, since=since, until=until, progress=lambda *how_far: told.append(how_far))
        found = await replay(file, Refusing(), servers=["demo-ro"], titles={}, wanted=wanted)
    assert found.counts == {ReplayVerdict.WOULD_DENY: 2}
    assert found.proof.records == 8
    assert told[-1] == (len(written.content), len(written.content))


# --- what is shown ----------------------------------------------------------------------------------------------------


async def test_differences_are_gathered_counted_and_limited() -> None:
    allowed = replace(DENY, reasons=(Reason(code="no_route", source="platform"),))
    written = Book()
    for number in range(6):
        written.call(replace(STRANGER, subject=f"user-{number % 3}"), allowed)
    written.call(replace(STRANGER, subject="user-2"), allowed)
    found = await replayed(written.content, limit=2)
    assert found.counts == {ReplayVerdict.CHANGED: 7}
    assert [(row.calls, row.document["subject"]) for row in found.rows] == [
        (3, {"id": "user-2", "issuer": "https://idp.example"}),
        (2, {"id": "user-0", "issuer": "https://idp.example"}),
    ]
    assert found.not_listed == 2
    assert found.rows[0].first["line"] == 3
    assert found.rows[0].document["differs"] == ["reasons"]
    assert (await replayed(written.content, limit=0)).not_listed == 7


async def test_a_file_of_nothing_but_differences_is_counted_and_not_kept() -> None:
    before = replace(DENY, server="x" * 256)
    written = book()
    for number in range(6000):
        written.call(replace(STRANGER, subject=f"{number}{'x' * 400}"), before)
    found = await replayed(written.content, limit=10**6)
    assert found.counts[ReplayVerdict.CHANGED] == 6000
    assert sum(len(str(row.document)) for row in found.rows) < 2 * KEPT_BYTES
    assert found.not_listed == 6000 - len(found.rows) > 0


async def test_long_names_are_cut_and_claims_are_not_there() -> None:
    written = Book()
    written.call(replace(STRANGER, subject="x" * 5000), replace(DENY, server=""))
    document = str((await replayed(written.content)).document())
    assert "x" * 256 + "…" in document
    assert "x" * 257 not in document
    assert CANARY not in document
    assert "canary" not in document
    assert "nobodies" not in document
