"""Writes docs/reference/tools.md from the catalog: what each tool takes, touches and can carry.

``python tools/command_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date
(exit status 1 if it is not). Everything on the page comes from the rows of ``sidecar.commands.catalog``.
"""

import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sidecar.commands.amplifiers import ORDINARY, WORDS
from sidecar.commands.catalog import CATALOG
from sidecar.commands.names import SYSTEM_COLLECTIONS, SYSTEM_DATABASES, SYSTEM_PREFIXES
from sidecar.commands.stages import STAGES
from sidecar.commands.tool import Category, Tool
from sidecar.commands.tool_groups import groups_of
from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "tools.md"

WIDTH: Final = 120
"""Characters of a line of prose."""

TITLES: Final = {
    Category.MONGODB: "MongoDB",
    Category.ATLAS: "Atlas",
    Category.ATLAS_LOCAL: "Atlas Local",
    Category.ASSISTANT: "Assistant",
}

INTRODUCTION: Final = """\
# Tools, and what each would touch

*Generated from `sidecar/commands` by `tools/command_reference.py`; do not edit.*

The sidecar knows {count} tools of MongoDB MCP server 3.0.4; any other name is answered as an unknown tool. Every call
becomes a list of accesses (a kind and a namespace, or a kind and a target outside the database), and a call is allowed
only if each of them is. **Always** lists the kinds that every call of the tool needs; **also** lists those that depend
on the arguments. Traits are facts that a policy may judge.

- A system namespace adds the kind `admin` and the trait `system_namespace` to any access: the databases {databases};
  collections that start with {prefixes}; and {collections}.
- A namespace in a database other than the one the call names carries `cross_database`.
- Writes that create a missing collection (`insert-many`, `create-index`, an upsert) need no `create`, as in MongoDB's
  own privileges.
- `$out` is `delete`, `create` and `insert` on its target, `$merge` is `insert` and `update`, at any depth; sinks
  outside the deployment are `external`.
- Only `connectionId: "preconfigured"` is accepted: what a namespace means depends on the connection.

Pipelines may use these stages; any other is refused: {stages}.

## What a command may ask for

Some constructs make or do as much as a number says, and not as much as they read. Above the ordinary number, or where
the number is computed, the command has the trait `amplifying`. What is allowed is the platform's table `amplifiers`,
whose defaults are these:

| construct | ordinary | what is counted |
|---|---|---|
{amplifiers}
"""


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/command_reference.py")


def render() -> str:
    """Return the whole page."""
    parts = [
        INTRODUCTION.format(
            count=len(CATALOG),
            databases=_codes(sorted(SYSTEM_DATABASES)),
            prefixes=_codes(SYSTEM_PREFIXES),
            collections=_codes(sorted(SYSTEM_COLLECTIONS)),
            amplifiers="\n".join(f"| `{name}` | {most:,} | {WORDS[name]} |" for name, most in ORDINARY.items()),
            stages=_codes(sorted(name for name, rule in STAGES.items() if rule.__name__ != "_refuse")),
        )
    ]
    for category, title in TITLES.items():
        parts.append(f"## {title}\n")
        parts.extend("\n".join(_section(tool)) for tool in CATALOG.values() if tool.category is category)
    return "\n".join(map(_folded, "\n".join(parts).split("\n")))


def _folded(line: str) -> str:
    """Fold a line that is too long for an editor, unless it is a row of a table."""
    if len(line) <= WIDTH or line.startswith("|"):
        return line
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _section(tool: Tool) -> Iterator[str]:
    yield f"### `{tool.name}`\n"
    yield f"{tool.effect}\n"
    yield f"- Always: {_codes(sorted(tool.needs)) or 'depends on the arguments'}"
    if tool.may_need - tool.needs:
        yield f"- Also: {_codes(sorted(tool.may_need - tool.needs))}"
    if groups := groups_of(tool):
        yield f"- Tool groups: {_codes(sorted(groups))} (off unless `tool_groups` of the server names each)"
    if tool.traits:
        yield f"- Traits: {_codes(sorted(tool.traits))}"
    yield ""
    if tool.arguments.fields:
        yield "| argument | form |"
        yield "|---|---|"
        for name, form in tool.arguments.fields.items():
            mark = "" if name in tool.arguments.required else " (optional)"
            yield f"| `{name}`{mark} | {form.describe()} |"
        yield ""


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    sys.exit(main())
