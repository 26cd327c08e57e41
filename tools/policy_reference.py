"""Writes docs/reference/policy.md from policies/schema/*.json and the library's METADATA: what is asked and answered.

``python tools/policy_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date
(exit status 1 if it is not). A part without a description is an error.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tools.generated_page import write_or_check

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reference" / "policy.md"
POLICIES: Final = ROOT / "policies"

INTRODUCTION: Final = """\
# Policy: questions, answers, data, reasons

*Generated from `policies/schema/` and `policies/platform/lib/` by `tools/policy_reference.py`; do not edit.*

How a call is decided: [policies/README.md](../../policies/README.md#how-a-call-is-decided). How to begin:
[your first team policy](../first-team-policy.md).

A *kind* of access is one of `read`, `metadata`, `insert`, `update`, `delete`, `create`, `drop`, `index`, `admin`,
`connect`, `export`, `external`, `execute`.
"""

KINDS: Final = frozenset(
    {"read", "metadata", "insert", "update", "delete", "create", "drop", "index"}
    | {"admin", "connect", "export", "external", "execute"}
)
"""The closed set of kinds, which is spelled out once; a schema that names another set shows it."""

GRANTS: Final = """\
## What a team adds to `grant`, `deny` and `approver`

`grant` is a set of whole objects. One that matches is enough; several form a union. `deny` is a set of codes. One is
enough to refuse, and callers never see them. A part that is empty, unknown or of another type makes the team's whole
answer an error, so that an intended obligation never vanishes. `approver` is a set of names too, asked with the person
who wants to approve as `input.subject` and without `input.command`; one is enough, together with an entry of the
platform's `approvers` ([approvals](../approvals.md)).

| part | meaning |
|---|---|
| `id` | required; lower-case letters, digits, `.`, `_`, `-`; shown in decisions and evidence |
| `filter` | only rows that match this filter; see [row filters](../row-filters.md) |
| `mask` | the fields that must not be seen, or no more of than a part; see [field masks](../field-masks.md) |
| `max_documents` | at most so many documents come back, from 1; see [limits of one call](../call-limits.md) |
| `max_time_ms` | a read is ended after so many milliseconds, from 1 |
| `max_affected` | a change or a deletion of at most so many documents, from 1 |
| `max_bytes` | an answer of at most so many bytes, from 1 |
| `no_collection_scan` | `true`: only where an index finds the documents |
| `approval` | `"confirm"`: the user confirms the call through the client; `"second_person"`: another person does |
| `names` | `"reachable"`: lists of databases and collections show only names that a grant of the caller reaches |
"""


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/policy_reference.py")


def render() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    parts += _section("What a team is asked: `input`", "question")
    parts.append(
        "The whole question, which only the platform sees, has an array `accesses` in the place of `access`.\n"
    )
    parts.append(GRANTS)
    parts += _library()
    parts += _section("What the sidecar is answered: `data.mcp.main.decision`", "decision")
    parts += _reasons()
    parts += _section("What the platform tunes: `data.mcp.platform`", "platform")
    for name, part in reversed(_load("platform")["$defs"].items()):
        parts += [f"### A {name}\n", "| part | type | meaning |", "|---|---|---|", *_rows(part, name, ""), ""]
    return "\n".join(parts)


def _section(title: str, name: str) -> Iterator[str]:
    schema = _load(name)
    yield f"## {title}\n"
    yield f"`policies/schema/{name}.json`.\n"
    yield "| part | type | meaning |"
    yield "|---|---|---|"
    yield from dict.fromkeys(_rows(schema, name, ""))
    yield ""


def _rows(schema: dict[str, Any], name: str, path: str) -> Iterator[str]:
    """Yield one line per part, in the order of the schema; alternatives are taken together."""
    for alternative in schema.get("anyOf", [schema]):
        for key, part in alternative.get("properties", {}).items():
            here = f"{path}.{key}" if path else key
            if "description" not in part:
                raise SystemExit(f"{name}: {here} has no description")
            text = part["description"].replace("|", "\\|")
            if part.get("enum") != [""]:
                yield f"| `{here}` | {_type(part)} | {text} |"
            yield from _inner(part, name, here)


def _inner(part: dict[str, Any], name: str, path: str) -> Iterator[str]:
    """Yield the lines below a part; what is a definition of its own has its own table."""
    more = part.get("additionalProperties")
    if isinstance(more, dict):
        yield from _rows(more, name, f"{path}.<name>")
        yield from _inner({key: value for key, value in more.items() if key != "properties"}, name, f"{path}.<name>")
    if "items" in part:
        yield from _rows(part["items"], name, f"{path}[]")
    yield from _rows(part, name, path)


def _type(part: dict[str, Any]) -> str:
    """Word a type."""
    match part:
        case {"$ref": str(reference)}:
            return f"*{reference.rpartition('/')[2]}*"
        case {"enum": values} if set(values) == KINDS:
            return "kind"
        case {"enum": values}:
            return ", ".join(f"`{json.dumps(value) if value in ('', None) else value}`" for value in values)
        case {"oneOf": alternatives} | {"anyOf": alternatives}:
            return " or ".join(dict.fromkeys(_type(one) for one in alternatives))
        case {"type": "array", "items": dict(item)} if item:
            return f"array of {_type(item)}"
        case {"type": "object", "additionalProperties": dict(item)}:
            return f"{_type(item)} by name"
        case _:
            names = part.get("type", "any")
            return names if isinstance(names, str) else " or ".join(names)


def _library() -> Iterator[str]:
    """Yield the table of ``data.mcp.lib``: every rule with the title that stands above it."""
    yield "## For conditions: `import data.mcp.lib`\n"
    yield "Each is true or undefined, so that an unknown fact never grants anything.\n"
    yield "| rule | true where |"
    yield "|---|---|"
    text = (POLICIES / "platform/lib/lib.rego").read_text(encoding="utf-8")
    for title, head in re.findall(r"^# title: (.*)\n(?:#.*\n)*^([a-z_]+(?:\([^)]*\))?) (?:if|:=)", text, re.MULTILINE):
        yield f"| `lib.{head}` | {title} |"
    yield ""


def _reasons() -> Iterator[str]:
    yield "## Reason codes\n"
    yield "| code | source | about | meaning | what helps |"
    yield "|---|---|---|---|---|"
    for code, reason in _load("reasons")["reasons"].items():
        about = {"call": "the call", "access": "one access", "any": "either"}[reason["about"]]
        yield f"| `{code}` | {reason['source']} | {about} | {reason['title']} | {reason['remedy']} |"
    yield ""


def _load(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((POLICIES / "schema" / f"{name}.json").read_text(encoding="utf-8"))  # noqa: TID251 - our own file
    return schema


if __name__ == "__main__":
    sys.exit(main())
