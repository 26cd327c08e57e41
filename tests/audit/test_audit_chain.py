"""Any change to a chain is noticed; what cannot be noticed is said."""

import io
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.audit import quick
from sidecar.audit.canonical import canonical
from sidecar.audit.chain import BEGINNING, GENESIS, BrokenRecord, link, read, verify
from sidecar.audit.record import Facts, control, refusal
from sidecar.model import JsonObject
from tests.examples import examples

TEMPLATE = refusal(Facts(request_id="r"), "e", record_id="x", time_ns=0)


def a_record(kind: str, request: str, **more: Any) -> JsonObject:
    return {**TEMPLATE, "event": kind, "request_id": request, "id": f"{kind}-{request}", **more}


def chained(*records: JsonObject) -> list[bytes]:
    lines, prev = [], GENESIS
    for seq, record in enumerate(records, start=1):
        line, prev = link(record, seq, prev)
        lines.append(line + b"\n")
    return lines


def a_day(count: int = 3) -> list[bytes]:
    records = []
    for number in range(count):
        records += [
            a_record("intent", f"r{number}"),
            a_record("refusal", f"x{number}"),
            a_record("outcome", f"r{number}", tool="fïnd"),
        ]
    return chained(*records)


def resealed(line: bytes, **changes: Any) -> bytes:
    """The line as a forger writes it who changes a field and recomputes the record's own hash."""
    record = json.JSONDecoder().decode(line.decode())
    del record["hash"]
    seq, prev = record.pop("seq"), record.pop("prev")
    return link({**record, **changes}, seq, prev)[0] + b"\n"


def test_an_untouched_chain_holds():
    lines = a_day()
    verdict = verify(lines)
    assert verdict.holds
    assert verdict.records == len(lines) == 9
    assert verdict.head == read(lines[-1][:-1]).hash
    assert verdict.unfinished == ()


def test_every_line_begins_alike():
    assert all(line.startswith(BEGINNING) for line in a_day())
    assert sealed(arguments={}, approval={}).startswith(BEGINNING)


def test_an_empty_file_holds_and_proves_nothing():
    assert verify([]).holds
    assert verify([]).records == 0
    assert verify([]).head == GENESIS


@given(st.data())
@settings(max_examples=examples(400))
def test_any_change_of_one_byte_is_noticed_at_its_line(data):
    lines = a_day(2)
    number = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[number]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != lines[number][place]))
    changed = lines[number][:place] + bytes([byte]) + lines[number][place + 1 :]
    text = b"".join([*lines[:number], changed, *lines[number + 1 :]])
    verdict = verify(io.BytesIO(text))
    assert verdict.fault is not None
    assert verdict.fault.line == number + 1
    assert verdict.records == number


def test_every_single_bit_of_a_line_is_noticed():
    *before, line = a_day(1)
    for bit in range(len(line) * 8):
        changed = bytearray(line)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify([*before, bytes(changed)]).holds, bit


@given(st.data())
def test_a_line_left_out_is_noticed(data):
    lines = a_day()
    number = data.draw(st.integers(0, len(lines) - 2))
    verdict = verify(lines[:number] + lines[number + 1 :])
    assert verdict.fault is not None
    assert verdict.fault.line == number + 1


@given(st.permutations(range(9)))
def test_any_other_order_is_noticed(order):
    lines = a_day()
    assert verify([lines[number] for number in order]).holds == (list(order) == list(range(9)))


@given(st.integers(0, 8), st.integers(0, 9))
def test_a_line_repeated_anywhere_is_noticed(which, where):
    lines = a_day()
    assert not verify([*lines[:where], lines[which], *lines[where:]]).holds


@given(st.binary(max_size=80))
def test_a_foreign_line_is_noticed_and_never_raises(junk):
    lines = a_day()
    assert not verify([*lines, junk.replace(b"\n", b"") + b"\n"]).holds


@given(st.integers(1, 3000))
def test_a_file_cut_within_a_line_is_reported_as_truncated(cut):
    text = b"".join(a_day())
    text = text[: -1 - cut % (len(text) - 1)]
    verdict = verify(io.BytesIO(text))
    if text.endswith(b"\n"):
        assert verdict.holds, "a cut between lines shows only against a remembered head"
    else:
        assert verdict.fault is not None
        assert "truncated" in verdict.fault.what


def test_records_cut_off_the_end_show_against_a_remembered_head():
    lines = a_day()
    head = verify(lines).head
    assert verify(lines[:-3]).holds, "on its own the shorter file is a valid chain"
    cut = verify(lines[:-3], head=head)
    assert cut.fault is not None
    assert cut.fault.line == 7
    assert verify(lines, head=head).holds
    assert verify(lines, head=read(lines[2][:-1]).hash).holds, "the chain went on since"


def test_an_end_rewritten_with_fresh_hashes_shows_against_a_remembered_head():
    lines = a_day()
    head = verify(lines).head
    forged = chained(a_record("intent", "r0"), a_record("refusal", "nobody"), a_record("outcome", "r0"))
    assert verify(forged).holds, "a chain proves order, not authorship"
    assert not verify(forged, head=head).holds


def test_a_forger_who_reseals_one_record_breaks_the_next():
    lines = a_day()
    lines[1] = resealed(lines[1], tool="find")
    verdict = verify(lines)
    assert verdict.fault is not None
    assert (verdict.fault.line, verdict.records) == (3, 2)
    assert "prev" in verdict.fault.what


def sealed(**changes: Any) -> bytes:
    """One first line with a valid hash over whatever it holds."""
    record = a_record("refusal", "r", **changes)
    return link(record, 1, GENESIS)[0]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b"null", "not an object"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff", "not JSON"),
        (b"\xef\xbb\xbf" + sealed(), "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b"{}", "missing fields"),
        (sealed().replace(b'"outcome":', b'"outcom":'), "missing fields: outcome"),
        (sealed() + b" ", "not the canonical spelling"),
        (b" " + sealed(), "not the canonical spelling"),
        (sealed() + b"\r", "not the canonical spelling"),
        (sealed().replace(b":null", b": null", 1), "not the canonical spelling"),
        (sealed().replace(b'"v":1', b'"v":1.0'), "not the canonical spelling"),
        (sealed(tool="f").replace(b'"tool":"f"', b'"tool":"\\u0066"'), "not the canonical spelling"),
        (sealed(tool="f").replace(b'"tool":"f"', b'"tool":"x","tool":"f"'), "a key occurs twice"),
        (sealed(tool="f").replace(b'"tool":"f"', b'"tool":"f","tool":"x"'), "the hash does not match the record"),
        (sealed().replace(b'"seq":1', b'"seq":9007199254740993'), "the hash does not match the record"),
        (sealed().replace(b'"seq":1', b'"seq":' + b"9" * 400), "no canonical form"),
        (sealed(v=2), "unknown version"),
        (sealed(v=True), "unknown version"),
        (sealed(event="permit"), "unknown event"),
        (sealed(event=["intent"]), "unknown event"),
        (sealed(request_id=""), "request_id"),
        (sealed(request_id=None), "request_id"),
    ],
)
def test_a_line_that_is_no_record_is_refused_and_the_reason_said(line, why):
    with pytest.raises(BrokenRecord, match=re.escape(why)):
        read(line)


@pytest.mark.parametrize("seq", [0, -1, True, "1", 1.5])
def test_a_seq_that_is_no_positive_integer_is_refused(seq):
    with pytest.raises(BrokenRecord, match="seq"):
        read(link(a_record("refusal", "r"), seq, GENESIS)[0])


@pytest.mark.parametrize("prev", ["", "0" * 63, "A" * 64, 0, None])
def test_a_prev_that_is_no_hash_is_refused(prev):
    with pytest.raises(BrokenRecord, match="prev"):
        read(link(a_record("refusal", "r"), 1, prev)[0])


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8")),
        st.recursive(
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(1 - 2**53, 2**53 - 1),
                st.text(st.characters(codec="utf-8")),
                st.floats(allow_nan=False, allow_infinity=False),
            ),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
            ),
            max_leaves=8,
        ),
        max_size=3,
    )
)
@example({"a": 7.119541550154001e16})  # written as an integer beyond 2**53
@example({"a": [1e20, -1e20, 1e21, 2.0**53, float(2**53 - 1)]})
def test_whatever_a_caller_sends_as_full_arguments_can_be_proved_later(arguments):
    assert verify(chained(a_record("refusal", "r", arguments=arguments))).holds


@given(st.data())
@settings(max_examples=examples(300))
def test_what_the_quick_check_takes_the_slow_one_takes_too(data):
    values = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8"), max_size=4),
    )
    names = st.text(st.characters(codec="utf-8"), max_size=3)
    inside = data.draw(st.dictionaries(names, st.one_of(values, st.lists(values, max_size=3)), max_size=4))
    body = json.dumps(
        {**TEMPLATE, "arguments": inside, "seq": 1, "prev": GENESIS},
        ensure_ascii=data.draw(st.booleans()),
        sort_keys=data.draw(st.booleans()),
        separators=(",", data.draw(st.sampled_from([":", ": "]))),
    ).encode()
    line = body[:-1] + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}'
    taken = quick.opened(line)
    assert taken is None or (canonical(taken[0]), taken[1]) == (body, sha256(body).hexdigest())


def test_nearly_every_line_is_checked_quickly():
    assert all(quick.opened(line[:-1]) for line in a_day())


def test_fields_of_later_versions_are_covered_by_the_hash_and_accepted():
    assert verify([sealed(approval={"by": "bob"}) + b"\n"]).holds


def test_a_record_is_linked_once():
    for key in ("seq", "prev", "hash"):
        with pytest.raises(ValueError, match="linked"):
            link({**a_record("refusal", "r"), key: "x"}, 1, GENESIS)


def test_an_intent_without_its_outcome_is_listed_as_unfinished():
    verdict = verify(chained(a_record("intent", "a"), a_record("intent", "b"), a_record("outcome", "a")))
    assert verdict.holds
    assert verdict.unfinished == ("b",)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([a_record("outcome", "a")], "without its intent"),
        ([a_record("refusal", "a"), a_record("outcome", "a")], "without its intent"),
        ([a_record("intent", "a"), a_record("outcome", "b")], "without its intent"),
        ([a_record("intent", "a"), a_record("outcome", "a"), a_record("outcome", "a")], "without its intent"),
        ([a_record("intent", "a"), a_record("intent", "a")], "second intent"),
    ],
)
def test_events_out_of_turn_are_errors(records, why):
    verdict = verify(chained(*records))
    assert verdict.fault is not None
    assert why in verdict.fault.what


def test_verifying_is_one_pass_that_reads_each_line_once():
    handed = 0

    def lines() -> Iterator[bytes]:
        nonlocal handed
        for line in a_day(3334):
            handed += 1
            yield line

    verdict = verify(lines())
    assert verdict.holds
    assert verdict.records == handed == 10_002


def test_an_operators_command_stands_anywhere_in_the_chain():
    suspension = control(
        "suspend",
        {"kind": "user", "subject": "ann\u202e"},
        operator="uid 0 (root)",
        record_id="c",
        request_id="r",
        time_ns=1,
    )
    begun = chained(a_record("intent", "r1"), suspension, a_record("outcome", "r1"))
    assert verify(begun).holds
    assert "\u202e".encode() not in begun[1]
