"""Answers about the evidence as tables for people."""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.asking.calls import RecordedCall
from sidecar.model import JsonObject
from sidecar.printing import escaped

_WIDTH: Final = 200
"""Characters of a table that no terminal bounds."""


RulesOf: TypeAlias = Callable[[RecordedCall], JsonObject]
"""Finds the rules of a call (``sidecar.asking.rules``)."""


def print_calls(rows: Iterable[RecordedCall], console: Console, rules: RulesOf | None = None) -> None:
    """Print calls, a row each, and the rules of each where they are looked for."""
    columns = ("time (UTC)", "user", "agent", "tool", "accesses", "decision", "why", "ended")
    table = _table(columns if rules is None else (*columns, "rules"), console)
    for row in rows:
        entry = row.entry
        allowed = entry.event == "intent"
        why = entry.decision.grants if allowed and entry.decision is not None else entry.codes
        cells = [
            entry.time[:19].replace("T", " "),
            entry.user or "(nobody)",
            entry.agent,
            entry.tool or entry.method or "",
            "\n".join(f"{each.kind} {each.place}" for each in entry.accesses or ()),
            "allow" if allowed else "deny",
            "\n".join(why),
            _ended(row),
            *(() if rules is None else (_rules_in_words(rules(row)),)),
        ]
        _add(table, cells, "" if allowed else "red")
    console.print(table)


def _ended(row: RecordedCall) -> str:
    last = (row.outcome or row.entry).outcome
    if last is None or last.documents is None:
        return row.ended
    return f"{row.ended}, {last.documents} documents"


def _rules_in_words(found: JsonObject) -> str:
    """Say the rules of one call, a line each."""
    lines = []
    rules = found["rules"]
    for rule in rules if isinstance(rules, list) else ():
        if isinstance(rule, dict) and isinstance(places := rule["at"], list):
            lines += [str(place) for place in places] or [f"{rule.get('grant') or rule.get('code')}: no rule found"]
    if found["policy_set"] == "not kept":
        return "the policy set is not kept"
    return "\n".join(dict.fromkeys(lines))


def print_report(document: JsonObject, console: Console) -> None:
    """Print a report, a table for each question."""
    found: Any = document
    console.print(
        f"{found['since']} to {found['until']}: {found['allowed']} calls let through, {found['refused']} refused"
    )
    console.print(f"the period before: {found['before']['allowed']} let through, {found['before']['refused']} refused")
    for name, title, columns in (
        ("most_refused", "Most refused", ("refused", "user", "agent", "reason")),
        ("newly_refused", "Newly refused: not refused so in the period before", ("refused", "user", "agent", "reason")),
        (
            "stopped_working",
            "Stopped working: let through in the period before, and not in this one",
            ("user", "agent", "allowed_before", "refused", "reasons"),
        ),
        ("touched", "Who touched what", ("calls", "user", "agent", "kind", "place")),
        ("teams", "By team whose policy decided", ("team", "allowed", "refused")),
    ):
        console.print(Text(f"\n{title}", style="bold"))
        if not found[name]:
            console.print("  none")
            continue
        table = _table(tuple(each.replace("_", " ") for each in columns), console)
        for row in found[name]:
            cells = [row[each] for each in columns]
            _add(table, [" ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells], "")
        console.print(table)
    if found["not_told_apart"]:
        console.print(f"{found['not_told_apart']} records had further names, and are in no table")


def widen(console: Console) -> None:
    """Give a table room where no terminal bounds it."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)


def _table(columns: tuple[str, ...], console: Console) -> Table:
    widen(console)
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, cells: list[str], style: str) -> None:
    table.add_row(*(Text(escaped(cell, keep="\n"), style=style) for cell in cells))
