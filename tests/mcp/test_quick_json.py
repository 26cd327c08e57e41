"""What the compiled decoder reads is what the strict one reads, and what that one refuses it does not read."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.errors import SidecarError
from sidecar.mcp import jsonrpc, quick_json
from sidecar.mcp.jsonrpc import MAX_DEPTH, MAX_VALUES

SPACE = st.sampled_from(["", "", "", " ", "\n", "\t", "\r", "\x0b", "\ufeff", "\x00", "\u00a0"])
ESCAPES = [
    r"\"",
    r"\\",
    r"\/",
    r"\n",
    r"\u0022",
    r"\u003a",
    r"\ud83d\ude00",
    r"\ud800",
    r"\x",
    r"\":",
    r"\u005c",
    r'":',
]
PIECES = st.sampled_from([*ESCAPES, *'abx:,[]{}"\\\x00\x1f\x7f\u2028é\U0001f600\ufeff'])
TEXTS = st.lists(PIECES, max_size=5).map(lambda pieces: '"' + "".join(pieces) + '"')
NAMES = st.one_of(st.sampled_from(['"a"', '"b"', '"\\u0061"', '":"', '"a\\":"', '""']), TEXTS)
NUMBERS = st.sampled_from([
    "0", "-0", "-0.0", "1", "01", "1.", ".5", "+1", "1e5", "1E+5", "1e-400", "1e400", "NaN", "-Infinity",
    "--1", "1_0", "123456789012345",
    "0.1", "1.0", "1e22", "1234567890123456789", "5e-324", "true", "false", "null", "nul", "0x1",
])  # fmt: skip


@st.composite
def spaced(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    return f"{draw(SPACE)}{draw(inner)}{draw(SPACE)}"


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(spaced(inner), max_size=3).map(lambda found: "[" + ",".join(found) + "]")


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(spaced(NAMES), spaced(inner)).map(":".join)
    return st.lists(member, max_size=3).map(lambda found: "{" + ",".join(found) + "}")


BODIES = st.one_of(
    spaced(st.recursive(NUMBERS | TEXTS, lambda inner: arrays(inner) | objects(inner), max_leaves=8)),
    st.lists(st.one_of(PIECES, NUMBERS), max_size=12).map("".join),
)


def strictly(body: bytes) -> Any:
    """What the strict decoder alone says; a refusal is its class."""
    try:
        jsonrpc._check_complexity(body, MAX_DEPTH)
        value, hold = jsonrpc._parse(body, suspect=True)
    except SidecarError as error:
        return type(error)
    return value if hold else jsonrpc.NumberRefused


@given(BODIES.map(lambda text: text.encode()))
@example(b'{"a":1,"a":2}')
@example(b'{"a" :1,"a":2}')
@example(b'{"a":1,"a":2,"b":"\\u0022:"}')
@example(b'{"a":":x","a":1}')
@example(b'{"a":{"b":1,"c":":"},"a":{"d":1,"e":":"}}')
@example(b'{"a":1,"\\u0061":2}')
@example(b'["a\\\\":1]')
@example(b'{"a\\\\":1,"b\\"":2}')
@example(b'\xff"a"')
@example(b'["\xed\xa0\x80"]')
@example(b'["\xff"]')
@example(b"[1]x")
@example(b"")
def test_what_is_read_quickly_is_what_is_read_strictly(body: bytes):
    suspect = jsonrpc._has_suspect_numbers(body)
    value = None if suspect else quick_json.read(body, MAX_DEPTH, MAX_VALUES)
    assert value is None or repr(value) == repr(strictly(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find","arguments":{"filter":{"a":[1,2.5]}}}}',
        b'{ "a": 1,\n  "b": "it\\"s at 10:30\\n" }',
        b'{"a":"C:\\\\data","b":"\xc3\xa9 [1]"}',
    ],
)
def test_ordinary_bodies_are_read_quickly(body: bytes):
    assert quick_json.read(body, MAX_DEPTH, MAX_VALUES) == json.loads(body)  # noqa: TID251 - our own text


def test_a_large_insert_is_read_quickly():
    documents = [{"name": f"{number} at 10:30", "tags": ["a", "b"], "lines": [{"sum": 1.5}]} for number in range(3000)]
    body = json.dumps({"documents": documents}).encode()
    assert quick_json.read(body, MAX_DEPTH, MAX_VALUES) == {"documents": documents}


@pytest.mark.parametrize("inner", ["[]", "{}", '{"a":[]}', '[{"a":1}]', '"["', "1"])
def test_what_nests_too_deep_is_not_read_quickly(inner: str):
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 40, 5 * MAX_DEPTH, 20_000):
        for around in (("[", "]"), ('{"x":', "}"), ('[{"x":', "}]")):
            body = (around[0] * depth + inner + around[1] * depth).encode()
            read = quick_json.read(body, MAX_DEPTH, MAX_VALUES)
            assert read is None or strictly(body) is not jsonrpc.MessageTooComplex


def test_what_has_too_many_values_is_not_read_quickly():
    assert quick_json.read(b"[1,2,3]", MAX_DEPTH, 4) == [1, 2, 3]
    assert quick_json.read(b"[1,2,3]", MAX_DEPTH, 3) is None
