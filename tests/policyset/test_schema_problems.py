"""Findings of the validator in words: what is meant instead, and what is needed where nothing of a choice is given."""

from typing import Any

import pytest

from sidecar.policyset.schema_problems import SchemaProblems

SCHEMA: dict[str, Any] = {
    "properties": {
        "limits": {"type": "array", "items": {"$ref": "#/$defs/limit"}},
        "agents": {"additionalProperties": {"properties": {"kinds": {"items": {"enum": ["read", "insert"]}}}}},
    },
    "$defs": {"limit": {"required": ["id"], "properties": {"id": {}, "calls": {}, "bytes": {}}}},
}
DATA = {"limits": [{"cals": 1}, {"id": "x"}], "agents": {"a": {"kinds": ["read", "isnert", 1]}}}
TOO_FEW = "Must have at least 2 properties"


@pytest.mark.parametrize(
    ("field", "said", "told"),
    [
        ("limits.0", "Additional property cals is not allowed", 'there is no "cals" here: did you mean calls?'),
        ("limits.0", "Additional property zz is not allowed", 'there is no "zz" here: there are id, calls, bytes'),
        ("limits.1", TOO_FEW, "one of these is needed: calls, bytes"),
        (
            "agents.a.kinds.1",
            'agents.a.kinds.1 must be one of the following: "read", "insert"',
            '"isnert" is none of read, insert: did you mean insert?',
        ),
        (
            "agents.a.kinds.2",
            'agents.a.kinds.2 must be one of the following: "read", "insert"',
            "this is none of read, insert",
        ),
        ("limits.0", "id is required", "id is required"),
        ("nowhere.7", "Additional property a is not allowed", 'there is no "a" here'),
        ("limits.9.x", TOO_FEW, TOO_FEW),
    ],
    ids=["nearly", "like none", "a choice", "a value", "no text", "as it is", "no schema", "no choice"],
)
def test_a_problem_is_told_in_words(field: str, said: str, told: str) -> None:
    assert list(SchemaProblems(SCHEMA, DATA).told([(field, said)])) == [(field, told)]


def test_what_follows_from_a_part_that_is_missing_is_not_told_twice() -> None:
    problems = [("limits.0", TOO_FEW), ("limits.0", "id is required")]
    assert list(SchemaProblems(SCHEMA, DATA).told(problems)) == [("limits.0", "id is required")]


@pytest.mark.parametrize("schema", [None, [], {"properties": []}, {"properties": {"limits": 1}}])
def test_a_schema_of_another_form_changes_nothing(schema: Any) -> None:
    problems = [("limits.0", TOO_FEW)]
    assert list(SchemaProblems(schema, DATA).told(problems)) == problems
