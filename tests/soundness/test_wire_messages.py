"""The recorder's own reading: no message is lost, none is guessed at, and every command has a rule or fails."""

import asyncio
import struct
from itertools import pairwise
from typing import Any

import bson
import pytest
from bson.dbref import DBRef
from hypothesis import given
from hypothesis import strategies as st

from tests.soundness.wire import (
    Kind,
    Message,
    Recorder,
    Splitter,
    Touch,
    UnknownCommand,
    Unreadable,
    read_answer,
    read_request,
    touched,
)

OP_QUERY, OP_COMPRESSED, OP_MSG = 2004, 2012, 2013


def framed(payload: bytes, code: int = OP_MSG, request: int = 7) -> bytes:
    return struct.pack("<iiii", 16 + len(payload), request, 0, code) + payload


def op_msg(body: dict[str, Any], flags: int = 0, **sequences: list[dict[str, Any]]) -> bytes:
    payload = struct.pack("<I", flags) + b"\0" + bson.encode(body)
    for name, documents in sequences.items():
        content = name.encode() + b"\0" + b"".join(map(bson.encode, documents))
        payload += b"\1" + struct.pack("<i", 4 + len(content)) + content
    return framed(payload + (b"\0" * 4 if flags & 1 else b""))


def op_query(name: str, body: dict[str, Any]) -> bytes:
    return framed(b"\0" * 4 + name.encode() + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(body), OP_QUERY)


def read(data: bytes) -> list[Message]:
    return list(Splitter(read_request).feed(data))


def test_document_sequences_become_arrays_of_the_body():
    [message] = read(op_msg({"insert": "c", "$db": "d"}, documents=[{"n": 1}, {"n": 2}]))
    assert message.body == {"insert": "c", "$db": "d", "documents": [{"n": 1}, {"n": 2}]}
    assert message.last


def test_the_legacy_hello_names_its_database_before_the_dollar():
    [message] = read(op_query("admin.$cmd", {"ismaster": 1}))
    assert message.body == {"ismaster": 1, "$db": "admin"}


def test_a_checksum_is_no_section_and_an_unacknowledged_command_wants_no_answer():
    [checked] = read(op_msg({"ping": 1, "$db": "d"}, flags=1))
    [alone] = read(op_msg({"insert": "c", "$db": "d"}, flags=2, documents=[{}]))
    assert (checked.body, checked.last, alone.last) == ({"ping": 1, "$db": "d"}, True, False)


@given(
    bodies=st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), st.integers(0, 9)),
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 400), max_size=8),
)
def test_messages_are_the_same_however_the_bytes_arrive(bodies, cuts):
    data = b"".join(op_msg({"ping": 1, "$db": "d", **body}) for body in bodies)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    splitter = Splitter(read_request)
    chunks = [data[start:end] for start, end in pairwise(edges)]
    assert [message.body for chunk in chunks for message in splitter.feed(chunk)] == [
        {"ping": 1, "$db": "d", **body} for body in bodies
    ]


PING = bson.encode({"ping": 1, "$db": "d"})

UNREADABLE = {
    "compressed": framed(struct.pack("<iiB", OP_MSG, 100, 2) + b"x" * 20, OP_COMPRESSED),
    "legacy insert": framed(b"\0" * 40, 2002),
    "query of a collection": op_query("d.orders", {"n": 1}),
    "query of a collection that ends in $cmd.x": op_query("d.$cmd.aggregate", {"n": 1}),
    "no body": framed(b"\0" * 4),
    "two bodies": framed(b"\0" * 4 + (b"\0" + PING) * 2),
    "section of kind 2": framed(b"\0" * 4 + b"\2" + PING),
    "unknown required flag": op_msg({"ping": 1, "$db": "d"}, flags=4),
    "sequence beside the same key": op_msg({"insert": "c", "documents": [], "$db": "d"}, documents=[{}]),
    "section longer than the message": framed(b"\0" * 5 + struct.pack("<i", 500) + b"x" * 20),
    "negative section": framed(b"\0" * 5 + struct.pack("<i", -1) + b"x" * 20),
    "key twice": framed(b"\0" * 5 + struct.pack("<i", 19) + b"\x10a\0\1\0\0\0\x10a\0\2\0\0\0\0"),
    "shorter than its header": struct.pack("<iiii", 8, 1, 0, OP_MSG),
    "longer than any message": struct.pack("<iiii", 1 << 30, 1, 0, OP_MSG),
    "no command": op_msg({}),
    "no database": op_msg({"ping": 1}),
    "a name that is not UTF-8": op_query("d.$cmd", {"ping": 1}).replace(b"d.$cmd", b"\xff.$cmd"),
    "not BSON": framed(b"\0" * 5 + struct.pack("<i", 9) + b"\xff" * 5),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_for_certain_is_refused(data):
    with pytest.raises(Unreadable):
        read(data)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused_and_nothing_else(data):
    for message in (framed(data), framed(data, OP_QUERY), framed(b"\0" * 5 + data)):
        try:
            read(message)
        except Unreadable:
            continue


async def test_a_message_that_cannot_be_read_does_not_reach_the_database():
    arrived = bytearray()

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.extend(await reader.read())
        writer.close()

    database = await asyncio.start_server(sink, "127.0.0.1", 0)
    host, port = database.sockets[0].getsockname()
    async with Recorder(host, port) as recorder:
        good = op_msg({"ping": 1, "$db": "admin"})
        proxy_host, _, proxy_port = recorder.address.partition(":")
        reader, writer = await asyncio.open_connection(proxy_host, int(proxy_port))
        writer.write(good)
        await recorder.until(lambda: recorder.commands)
        writer.write(UNREADABLE["compressed"])
        assert await reader.read() == b""
        writer.close()
    database.close()
    await database.wait_closed()
    assert recorder.faults == ["the operation 2012 (compressed)"]
    assert [command.name for command in recorder.commands] == ["ping"]
    assert bytes(arrived) in (b"", good)


def test_an_answer_that_announces_more_is_not_the_last():
    assert not read_answer(op_msg({"ok": 1}, flags=2)).last
    assert read_answer(op_msg({"ok": 1})).last


R, M, A, X = Kind.READ, Kind.METADATA, Kind.ADMIN, Kind.EXTERNAL
INSERT, UPDATE, DELETE, CREATE, DROP, INDEX = (
    Kind.INSERT,
    Kind.UPDATE,
    Kind.DELETE,
    Kind.CREATE,
    Kind.DROP,
    Kind.INDEX,
)


def aggregate(*stages: Any, on: Any = "c") -> dict[str, Any]:
    return {"aggregate": on, "pipeline": list(stages), "cursor": {}, "$db": "d"}


TOUCHES: list[tuple[dict[str, Any], set[tuple[str, str, Kind]]]] = [
    ({"find": "c", "$db": "d"}, {("d", "c", R)}),
    ({"find": "a.b", "$db": "d"}, {("d", "a.b", R)}),
    ({"find": "system.users", "$db": "admin"}, {("admin", "system.users", R), ("admin", "system.users", A)}),
    ({"find": "system.profile", "$db": "d"}, {("d", "system.profile", R), ("d", "system.profile", A)}),
    ({"count": "c", "$db": "d"}, {("d", "c", R)}),
    ({"getMore": 1, "collection": "c", "$db": "d"}, {("d", "c", R)}),
    ({"getMore": 1, "collection": "$cmd.aggregate", "$db": "d"}, set()),
    ({"explain": {"find": "c"}, "$db": "d"}, {("d", "c", R)}),
    ({"explain": {"find": "c", "$db": "e"}, "$db": "d"}, {("e", "c", R)}),
    (
        {"explain": aggregate({"$out": "o"}), "$db": "d"},
        {("d", "c", R)} | {("d", "o", k) for k in (DELETE, CREATE, INSERT)},
    ),
    ({"insert": "c", "documents": [{"$out": "x"}], "$db": "d"}, {("d", "c", INSERT)}),
    ({"update": "c", "updates": [{"q": {}, "u": {}}], "$db": "d"}, {("d", "c", UPDATE)}),
    (
        {"update": "c", "updates": [{"q": {}, "u": {}}, {"q": {}, "u": {}, "upsert": True}], "$db": "d"},
        {("d", "c", UPDATE), ("d", "c", INSERT)},
    ),
    ({"delete": "c", "deletes": [{"q": {}, "limit": 0}], "$db": "d"}, {("d", "c", DELETE)}),
    ({"create": "c", "$db": "d"}, {("d", "c", CREATE)}),
    ({"drop": "c", "$db": "d"}, {("d", "c", DROP)}),
    ({"dropDatabase": 1, "$db": "d"}, {("d", "", DROP)}),
    (
        {"renameCollection": "d.a.b", "to": "d.x.y", "$db": "admin"},
        {("d", "a.b", R), ("d", "a.b", DROP), ("d", "x.y", CREATE)},
    ),
    (
        {"renameCollection": "d.a", "to": "e.b", "dropTarget": True, "$db": "admin"},
        {("d", "a", R), ("d", "a", DROP), ("e", "b", CREATE), ("e", "b", DROP)},
    ),
    ({"createIndexes": "c", "indexes": [], "$db": "d"}, {("d", "c", INDEX)}),
    ({"dropIndexes": "c", "index": "*", "$db": "d"}, {("d", "c", INDEX)}),
    (
        {
            "createSearchIndexes": "c",
            "indexes": [{"definition": {"synonyms": [{"source": {"collection": "s"}}]}}],
            "$db": "d",
        },
        {("d", "c", INDEX), ("d", "s", R)},
    ),
    (
        {"createSearchIndexes": "c", "indexes": [{"definition": {"fields": [{"type": "autoEmbed"}]}}], "$db": "d"},
        {("d", "c", INDEX), ("", "", X)},
    ),
    ({"listCollections": 1, "$db": "d"}, {("d", "", M)}),
    ({"listIndexes": "c", "$db": "d"}, {("d", "c", M)}),
    ({"dbStats": 1, "$db": "d"}, {("d", "", M)}),
    ({"listDatabases": 1, "$db": "admin"}, {("", "", M)}),
    ({"getLog": "global", "$db": "admin"}, {("", "", A)}),
    (aggregate(), {("d", "c", R)}),
    (aggregate(on=1), set()),
    (aggregate({"$currentOp": {}}, on=1), {("", "", A)}),
    (aggregate({"$documents": []}, {"$unionWith": "e"}, on=1), {("d", "e", R)}),
    (aggregate({"$changeStream": {}}, on=1), {("d", "", R)}),
    (aggregate({"$changeStream": {"allChangesForCluster": True}}, on=1), {("", "", R)}),
    (aggregate({"$collStats": {}}, {"$group": {"_id": None}}), {("d", "c", M)}),
    (aggregate({"$match": {}}, {"$indexStats": {}}), {("d", "c", R), ("d", "c", M)}),
    (aggregate({"$lookup": {"from": "e", "as": "x"}}), {("d", "c", R), ("d", "e", R)}),
    (
        aggregate({"$lookup": {"from": {"db": "q", "coll": "e"}, "pipeline": [{"$unionWith": "f"}], "as": "x"}}),
        {("d", "c", R), ("q", "e", R), ("q", "f", R)},
    ),
    (aggregate({"$lookup": {"pipeline": [{"$documents": []}], "as": "x"}}), {("d", "c", R)}),
    (aggregate({"$graphLookup": {"from": "e", "as": "x"}}), {("d", "c", R), ("d", "e", R)}),
    (aggregate({"$unionWith": {"db": "q", "coll": "e"}}), {("d", "c", R), ("q", "e", R)}),
    (
        aggregate({"$facet": {"a": [{"$facet": {"b": [{"$merge": "m"}]}}]}}),
        {("d", "c", R), ("d", "m", INSERT), ("d", "m", UPDATE)},
    ),
    (
        aggregate({"$rankFusion": {"input": {"pipelines": {"p": [{"$unionWith": "e"}]}}}}),
        {("d", "c", R), ("d", "e", R)},
    ),
    (
        aggregate({"$out": {"db": "q", "coll": "o"}}),
        {("d", "c", R)} | {("q", "o", k) for k in (DELETE, CREATE, INSERT)},
    ),
    (
        aggregate({"$merge": {"into": {"db": "q", "coll": "o"}, "whenMatched": "keepExisting"}}),
        {("d", "c", R), ("q", "o", INSERT)},
    ),
    (aggregate({"$merge": {"into": "o", "whenNotMatched": "discard"}}), {("d", "c", R), ("d", "o", UPDATE)}),
    (
        aggregate({"$merge": {"into": "o", "whenMatched": [{"$unionWith": "e"}]}}),
        {("d", "c", R), ("d", "o", INSERT), ("d", "o", UPDATE), ("d", "e", R)},
    ),
    (aggregate({"$match": {"x": {"$out": "o"}}}), {("d", "c", R)}),
    (aggregate({"$search": {"compound": {"must": [{"vectorSearch": {"query": "x"}}]}}}), {("d", "c", R), ("", "", X)}),
    (aggregate({"$search": {"vectorSearch": {"queryVector": [1]}}}), {("d", "c", R)}),
    (aggregate({"$out": {"s3": {"bucket": "b"}}}), {("d", "c", R), ("", "", X)}),
    (
        aggregate({"$set": {"x": DBRef("p", 1, None, {"$out": "o"})}}),
        {("d", "c", R)} | {("d", "o", k) for k in (DELETE, CREATE, INSERT)},
    ),
]


@pytest.mark.parametrize(
    ("command", "expected"), TOUCHES, ids=[f"{n}-{next(iter(row[0]))}" for n, row in enumerate(TOUCHES)]
)
def test_what_a_command_touches(command, expected):
    assert touched(command) == {Touch(*row) for row in expected}


UNKNOWN: list[dict[str, Any]] = [
    {"mapReduce": "c", "$db": "d"},
    {"eval": "x", "$db": "d"},
    {"find": "", "$db": "d"},
    {"find": 1, "$db": "d"},
    {"find": "c"},
    {"find": "c", "$db": ""},
    {"explain": {"mapReduce": "c"}, "$db": "d"},
    aggregate(on=""),
    aggregate({"$lookup": {"from": 1}}),
    aggregate({"$lookup": "e"}),
    aggregate({"$merge": []}),
    aggregate({"$unionWith": {"db": "q"}}),
    aggregate({"$merge": {"into": {"db": "q"}}}),
    aggregate({"$out": ""}),
]


@pytest.mark.parametrize("command", UNKNOWN, ids=[f"{n}-{next(iter(row))}" for n, row in enumerate(UNKNOWN)])
def test_a_command_without_a_rule_is_no_command_without_touches(command):
    with pytest.raises(UnknownCommand):
        touched(command)
