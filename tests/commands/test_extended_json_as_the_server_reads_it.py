"""What the server's own reader makes of a typed value, compared with what passes here.

Each value has a meaning that is known here, from Python's and PyMongo's own types, or none. The server's
reader (js-bson as it is installed) is run once over all of them.
What it would change must be refused; what it keeps must pass.
"""

import json
import random
import shutil
import string
import subprocess
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import bson
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp, json_util
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable
from sidecar.model import ToolCall
from tests import parts
from tests.patience import HANG_S

COLL: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
READER: Final = Path(__file__).with_name("read_ejson.mjs")
SEED: Final = 11
HONEST: Final = 900
SPOILT: Final = 1600
LEAST_CHANGED: Final = 400
"""Of the spoilt values, those of which the server would make another one and say nothing."""
INT32, INT64, DATE = 2**31, 2**63, 8_640_000_000_000_000


class Case(NamedTuple):
    """A value as it is written, and the BSON value that it is."""

    written: Any
    meaning: Any


def around(rng: random.Random, edge: int) -> int:
    return rng.choice([-edge, edge - 1, 0, -1, 1, rng.randrange(-edge, edge), rng.randrange(-1000, 1000)])


def signed(rng: random.Random, number: int) -> str:
    return f"+{number}" if number >= 0 and rng.random() < 0.1 else str(number)


def honest_int(rng: random.Random) -> Case:
    number = around(rng, INT32)
    return Case({"$numberInt": signed(rng, number)}, number)


def honest_long(rng: random.Random) -> Case:
    number = around(rng, INT64)
    return Case({"$numberLong": signed(rng, number)}, Int64(number))


def honest_double(rng: random.Random) -> Case:
    number = rng.choice(
        [rng.uniform(-1e6, 1e6), 10 ** rng.uniform(-300, 300), -0.0, float(rng.randrange(10**6)), 5e-324]
    )
    text = rng.choice([repr(number), f"{number:.17g}", f"{number:.17E}", f"{number:+.17e}"])
    word = rng.choice([None] * 9 + ["Infinity", "-Infinity", "NaN"])
    return Case({"$numberDouble": word or text}, float(word or text))


def honest_decimal(rng: random.Random) -> Case:
    digits = "".join(rng.choices(string.digits, k=rng.randint(1, 34)))
    point = rng.choice([None, rng.randint(0, len(digits))])
    text = digits if point is None else f"{digits[:point]}.{digits[point:]}"
    exponent = rng.choice(
        ["", "", f"E{rng.randint(-6000, 6000)}", f"e+{rng.randint(0, 40)}", f"E-{rng.randint(0, 40)}"]
    )
    text = rng.choice(["", "-", "+"]) + rng.choice(["", "", "000"]) + text + exponent
    text = rng.choice([text] * 9 + ["Infinity", "-inf", "NaN", "+Infinity"])
    return Case({"$numberDecimal": text}, Decimal128(Decimal(text)))


def honest_oid(rng: random.Random) -> Case:
    text = "".join(rng.choices(string.hexdigits, k=24))
    return Case({"$oid": text}, ObjectId(text))


def honest_uuid(rng: random.Random) -> Case:
    value = UUID(bytes=rng.randbytes(16))
    text = rng.choice([str(value), value.hex])
    return Case({"$uuid": rng.choice([text, text.upper()])}, Binary(value.bytes, 4))


def honest_binary(rng: random.Random) -> Case:
    kind = rng.choice([0, 1, 3, 4, 5, 6, 7, 8, 0x80, 0xFF, rng.randrange(0x81, 0xFF)])
    data = rng.randbytes(16 if kind in (3, 4) else rng.randint(0, 60))
    spelt = rng.choice([f"{kind:02x}", f"{kind:x}", f"{kind:02X}"])
    members = [("base64", b64encode(data).decode()), ("subType", spelt)]
    rng.shuffle(members)
    return Case({"$binary": dict(members)}, Binary(data, kind))


def honest_date(rng: random.Random) -> Case:
    if rng.random() < 0.3:
        number = rng.choice([-DATE, DATE, 0, -1, rng.randrange(-DATE, DATE)])
        written = number if abs(number) > INT32 and rng.random() < 0.4 else {"$numberLong": str(number)}
        return Case({"$date": written}, DatetimeMS(number))
    zone = rng.choice([UTC, timezone(timedelta(minutes=rng.randint(-1439, 1439)))])
    moment = datetime(1, 1, 3, tzinfo=UTC) + timedelta(milliseconds=rng.randrange(315_537_000_000_000))
    form = rng.randrange(4)
    if form == 0:
        moment = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        return Case({"$date": f"{moment:%Y-%m-%d}".zfill(10)}, milliseconds(moment))
    moment = moment.astimezone(zone)
    if form == 1:
        moment = moment.replace(second=0, microsecond=0)
    text = moment.isoformat(timespec={1: "minutes", 2: "milliseconds", 3: "microseconds"}[form])
    if zone is UTC:
        text = text.replace("+00:00", rng.choice(["Z", "z", "+00:00", "-00:00", "+0000"]))
    return Case({"$date": text.replace("T", rng.choice("Tt"))}, milliseconds(moment))


def milliseconds(moment: datetime) -> DatetimeMS:
    return DatetimeMS((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


def honest_timestamp(rng: random.Random) -> Case:
    t, i = (rng.choice([0, 1, 2**32 - 1, rng.randrange(2**32)]) for _ in range(2))
    members = [("t", t), ("i", float(i) if rng.random() < 0.1 else i)]
    rng.shuffle(members)
    return Case({"$timestamp": dict(members)}, Timestamp(t, i))


def honest_pattern(rng: random.Random) -> Case:
    pattern = rng.choice(["", "^a/b", "smith|jones", "\\d{3}", "é☆", "a\\\\b"])
    flags = rng.sample("imxsu", rng.randint(0, 4))
    meaning = bson.decode(cstring_pattern(pattern, "".join(sorted(flags))))["v"]
    typed = {"$regularExpression": {"pattern": pattern, "options": "".join(flags)}}
    legacy = {"$regex": pattern, "$options": "".join(flags)}
    return Case(rng.choice([typed, legacy]), meaning)


def cstring_pattern(pattern: str, flags: str) -> bytes:
    body = b"\x0bv\0" + pattern.encode() + b"\0" + flags.encode() + b"\0"
    return (len(body) + 5).to_bytes(4, "little") + body + b"\0"


def honest_code(rng: random.Random) -> Case:
    text = rng.choice(["", "return 1", "a\0b", "é"])
    scope = rng.choice([None, {}, {"x": 1}])
    return Case({"$code": text} if scope is None else {"$code": text, "$scope": scope}, Code(text, scope))


def honest_key(rng: random.Random) -> Case:
    return rng.choice(
        [Case({"$minKey": 1}, MinKey()), Case({"$maxKey": 1}, MaxKey()), Case({"$maxKey": 1.0}, MaxKey())]
    )


def honest_reference(rng: random.Random) -> Case:
    oid = "".join(rng.choices("0123456789abcdef", k=24))
    members: dict[str, Any] = {"$ref": rng.choice(["people", "a.b.c", "é"]), "$id": ObjectId(oid)}
    if rng.random() < 0.5:
        members["$db"] = "hr"
    if rng.random() < 0.3:
        members["note"] = 1
    return Case({**members, "$id": {"$oid": oid}}, members)


KINDS: Final[tuple[Callable[[random.Random], Case], ...]] = (
    *(honest_int, honest_long, honest_double, honest_decimal, honest_oid, honest_uuid, honest_binary, honest_date),
    *(honest_timestamp, honest_pattern, honest_code, honest_key),
)

OTHER_TYPES: Final[tuple[Any, ...]] = (None, True, False, 5, -1.5, "", "x", [], ["5"], {}, {"a": 1}, {"$oid": "0" * 24})
OTHER_TYPES_NESTED = ({"$numberLong": "5"}, {"$numberInt": "5"}, [{"$date": "2024-01-01"}], {"$undefined": True})
WORDS: Final = (
    *("next year", "20240101", "2024-02-30", "2023-02-29T00:00:00Z", "10000-01-01", "2024-01-01T00:00:00", "now"),
    *("2024-1-1", "2024-01-01T25:00:00Z", "2024-13-01", "2024-01-01T10:00:00.123456Z", "01/02/2024", "1704067200"),
    *("2024-W01-1", "2024-001", "+002024-01-01T00:00:00Z", "2024-01-01T10:00:00+1:00", "2024-01-01T10:00+24:00"),
    *(
        "5000000000",
        "99999999999999999999",
        "0x10",
        "1e3",
        "5.5",
        "1_000",
        " 5",
        "5 ",
        "--5",
        "\u0665",
        "5n",
        "NaN5",
        "1,5",
    ),
    *("1e400", "-1e400", "1e-400", "nan", "inf", "infinity", "+", "-", ".", "e5", "1e", "1E-20000", "1E7000", "1" * 40),
    *("zz" * 12, "0" * 23, "0" * 25, "g" * 32, "73ffd264-44b3-4c69-90e8", "{73ffd264-44b3-4c69-90e8-e7d1dfc035d4}"),
)
FITTING: Final = ("5", "-5", "2024-01-01", "2024-01-01T10:00:00Z", "0" * 24, "73ffd264-44b3-4c69-90e8-e7d1dfc035d4")


def spoilt(rng: random.Random, case: Case) -> Any:
    """Return the value with one change; most changes make it no value of its type, some do not."""
    written = case.written
    key = next(key for key in written if key.startswith("$"))
    value = written[key]
    match rng.randrange(7):
        case 0:
            return {**written, key: rng.choice(OTHER_TYPES + OTHER_TYPES_NESTED)}
        case 1:
            return {**written, key: rng.choice(WORDS)}
        case 2:
            return {**written, rng.choice(["note", "$ne", "$oid", "$date", "$minKey", "$type", "$scope", "$db"]): 1}
        case 3 if isinstance(value, dict):
            inner = rng.choice([*value])
            return {**written, key: {**value, inner: rng.choice(OTHER_TYPES + WORDS + (2**32, 2**53, -1, "g", "100"))}}
        case 4 if isinstance(value, dict):
            return (
                {**written, key: {**value, "more": 1}}
                if rng.random() < 0.5
                else {**written, key: dict([*value.items()][1:])}
            )
        case 5 if isinstance(value, str):
            return {
                **written,
                key: rng.choice([value + value, value[1:], f" {value}", f"{value}\n", value + "\0", [value]]),
            }
        case _ if isinstance(value, str) and value:
            at = rng.randrange(len(value))
            return {**written, key: value[:at] + rng.choice("0 9zZ.-+e_é\0/=T:") + value[at + rng.randint(0, 1) :]}
        case _:
            return {**written, key: str(value)}


def in_filter(value: Any) -> tuple[str, dict[str, Any]]:
    return "delete-many", {**COLL, "filter": {"a": {"$gt": value}}}


def in_pipeline(value: Any) -> tuple[str, dict[str, Any]]:
    return "aggregate", {**COLL, "pipeline": [{"$match": {"a": {"$in": [value]}}}]}


def in_document(value: Any) -> tuple[str, dict[str, Any]]:
    return "insert-many", {**COLL, "documents": [{"b": [{"c": value}]}]}


def passes(value: Any) -> bool:
    """Whether a value passes; in all three places alike."""
    found = set()
    for place in (in_filter, in_pipeline, in_document):
        name, arguments = place(value)
        try:
            derive(ToolCall(name=name, arguments=arguments))
        except CommandNotDerivable:
            found.add(False)
        else:
            found.add(True)
    assert len(found) == 1, f"{value} passes in one place and not in another"
    return found.pop()


def meaning(written: Any) -> str:
    """Return the BSON of a spoilt value as PyMongo reads it, or Python a date; empty where they do not."""
    try:
        if isinstance(text := written.get("$date"), str) and len(written) == 1:
            moment = datetime.fromisoformat(text.upper())
            return encoded(milliseconds(moment if len(text) > len("2024-01-01") else moment.replace(tzinfo=UTC)))
        if written == {"$numberDecimal": "-NaN"}:
            return encoded(Decimal128("NaN"))  # the sign of what is no number means nothing
        return encoded(json_util.loads(json.dumps(written), json_options=OPTIONS))
    except Exception:  # noqa: BLE001 - PyMongo raises what it meets
        return ""


OPTIONS: Final = json_util.CANONICAL_JSON_OPTIONS.with_options(
    tz_aware=False,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
)


def read_by_server(values: list[Any]) -> list[dict[str, str]]:
    node = shutil.which("node")
    assert node is not None
    lines = "".join(json.dumps(value) + "\n" for value in values)
    done = subprocess.run(
        [node, str(READER), str(parts.ROOT / ".parts")],
        input=lines,
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]  # noqa: TID251


def encoded(value: Any) -> str:
    return bson.encode({"v": value}).hex()


def test_what_the_server_keeps_passes_in_all_three_places() -> None:
    rng = random.Random(SEED)  # noqa: S311 - the same values each time
    cases = [rng.choice((*KINDS, honest_reference))(rng) for _ in range(HONEST)]
    answers = read_by_server([case.written for case in cases])
    assert [case.written for case in cases if not passes(case.written)] == []
    changed = [
        case.written
        for case, answer in zip(cases, answers, strict=True)
        if answer.get("bytes") != encoded(case.meaning)
    ]
    assert changed == [], "the server does not keep a value that passes"


def test_what_the_server_would_change_is_refused_in_all_three_places() -> None:
    rng = random.Random(SEED)  # noqa: S311 - the same values each time
    values = [spoilt(rng, rng.choice(KINDS)(rng)) for _ in range(SPOILT)]
    changed, slipped = 0, []
    for value, answer in zip(values, read_by_server(values), strict=True):
        kept = answer.get("bytes") is not None and answer["bytes"] == meaning(value)
        changed += not kept and "error" not in answer
        if not kept and passes(value):
            slipped.append(value)
    assert slipped == []
    assert changed > LEAST_CHANGED, "too few of the values show what the server would do"


def test_a_text_that_passes_under_a_type_is_read_alike_by_the_server_and_another_reader() -> None:
    keys = ("$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$oid", "$uuid")
    values: list[Any] = [{key: word} for key in keys for word in (*WORDS, *FITTING)]
    passing = [value for value in values if passes(value)]
    assert len(passing) >= len(FITTING)
    answers = read_by_server(passing)
    assert [
        value for value, answer in zip(passing, answers, strict=True) if answer.get("bytes") != meaning(value)
    ] == []
