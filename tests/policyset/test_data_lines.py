"""Where a value of the platform's data stands in its files."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policyset.data_lines import has_data, pointer, where
from sidecar.policyset.folder import PolicySet

Step = str | int


def a_set(**files: str) -> PolicySet:
    return PolicySet(bundles=("platform",), files=tuple((name, text.encode()) for name, text in files.items()))


def every(document: Any, place: tuple[Step, ...] = ()) -> list[tuple[Step, ...]]:
    below = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place, *(found for name, value in below for found in every(value, (*place, name)))]


def replaced(document: Any, place: tuple[Step, ...], value: Any) -> Any:
    if not place:
        return value
    first, rest = place[0], place[1:]
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[first] = replaced(document[first], rest, value)  # type: ignore[index]  # a list's steps are numbers
    return copy


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just('"[{,:}]\\'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(DOCUMENTS, st.data(), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_every_value_is_found_on_the_line_on_which_it_begins(
    document: Any, data: st.DataObject, indent: Any, ascii_only: bool
) -> None:
    place = data.draw(st.sampled_from(every(document)))
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    marked = json.dumps(replaced(document, place, "\ue000 here"), indent=indent, ensure_ascii=False)
    expected = marked[: marked.index("\ue000")].count("\n") + 1 if marked.count("\ue000") == 1 else None
    file, line = where(place, a_set(**{"platform/data.json": text}))
    assert file == "platform/data.json"
    assert expected in {None, line}


DATA = '{"mcp": {\n "platform": {\n  "routes": [\n   {"agents": [\n    "*",\n    "["]}],\n  "a.b": 1}}}'


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("mcp", "platform", "routes", 0, "agents", 1), 6),
        (("mcp", "platform", "routes", "0", "agents", "1"), 6),
        (("mcp", "platform", "routes", 0, "agents"), 4),
        (("mcp", "platform", "routes", 0, "agents", 2), 4),
        (("mcp", "platform", "routes", 0, "idd"), 4),
        (("mcp", "platform", "a.b"), 7),
        (("mcp", "platform", "a.b", "more"), 7),
        (("mcp", "platform", "(root)"), 2),
        (("elsewhere",), 1),
        ((), 1),
    ],
)
def test_what_is_not_there_is_told_at_the_nearest_above_it(place: tuple[Step, ...], line: int) -> None:
    assert where(place, a_set(**{"platform/data.json": DATA})) == ("platform/data.json", line)


def test_of_two_members_of_a_name_it_is_the_one_that_opa_takes() -> None:
    text = '{"a": {"b": 1},\n "a": {\n "b": 2}}'
    assert where(("a", "b"), a_set(**{"platform/data.json": text})) == ("platform/data.json", 3)


def test_a_file_below_is_data_at_its_folder() -> None:
    files = {
        "platform/data.json": '{"mcp": {"platform": {"routes": []}}}',
        "platform/mcp/platform/windows/data.json": '{\n"x": 1}',
        "teams/red/mcp/platform/data.json": '{"windows": {"x": {"y": 1}}}',
        "platform/mcp/platform/other.json": '{"windows": {"x": {"y": 1}}}',
    }
    assert where(("mcp", "platform", "windows", "x", "y"), a_set(**files)) == (
        "platform/mcp/platform/windows/data.json",
        2,
    )
    assert where(("mcp", "platform", "routes"), a_set(**files)) == ("platform/data.json", 1)


@pytest.mark.parametrize(
    "text", ["", "{", "a: [b]\n", "\ufeff{}", "[" * 100_000, "1", '"mcp"'], ids=lambda text: text[:5]
)
def test_what_is_no_json_is_told_as_a_whole(text: str) -> None:
    assert where(("mcp", "platform"), a_set(**{"platform/data.json": text})) == ("platform/data.json", 1)


def test_without_any_data_there_is_nothing_to_look_at() -> None:
    assert not has_data(a_set(**{"capabilities.json": "{}", "platform/main.rego": "", "teams/red/data.json": "{}"}))
    assert has_data(a_set(**{"platform/data.json": "{}"}))
    assert not has_data(a_set(**{"platform/data.yml": ""}))
    assert where(("mcp",), a_set()) == ("platform/data.json", 1)


def test_a_pointer_is_that_of_rfc_6901() -> None:
    assert pointer(("a/b", "m~n", 0, "", "~1")) == "/a~1b/m~0n/0//~01"
