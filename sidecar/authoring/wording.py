"""The authoring kit's answers for people: tables and sentences; ``--json`` prints what these are made of."""

from collections.abc import Iterator
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.authoring.checking import CheckReport, TeamTestReport
from sidecar.authoring.hours import TIME, in_utc
from sidecar.authoring.rows_in_words import as_json, cell, conditions, items, limits
from sidecar.model import JsonObject
from sidecar.obligations import ApprovalKind
from sidecar.policyset import Severity
from sidecar.printing import escaped
from sidecar.usage import UsageUnit

_NEAREST: Final = 5
"""How many grants are explained that do not match, the nearest first."""

SUM_ROWS: Final = 20
"""Of a table of a replay."""

PLAIN_WIDTH: Final = 140
"""Columns of a table when the width of the output is not known."""

_FULL: Final = 100.0

_REPLAYED: Final = {"would_allow": "yellow", "would_deny": "yellow", "changed": "yellow", "unavailable": "red"}


def print_checked(checked: CheckReport, console: Console) -> None:
    """Print findings as ``file:line``, as compilers do."""
    for one in checked.findings:
        colour = "red" if one.severity is Severity.ERROR else "yellow"
        where, message = f"{_line(one.file)}:{one.line}: ", f": {_line(one.message)}"
        console.print(Text.assemble(where, (one.severity.value, colour), message), soft_wrap=True)
    errors = sum(one.severity is Severity.ERROR for one in checked.findings)
    verdict = "fine" if checked.ok else f"refused: {errors} error{'s' if errors != 1 else ''}"
    console.print(Text(verdict, style="green" if checked.ok else "red"))


def print_tested(tested: TeamTestReport, console: Console) -> None:
    """Print failures, the coverage of each file, and a line that sums it up."""
    for one in tested.failures:
        where, message = f"{_line(one.file)}:{one.line}: ", f": {_line(one.message)}"
        console.print(Text.assemble(where, ("fails", "red"), message), soft_wrap=True)
    for one in tested.left_out:
        where, message = f"{_line(one.file)}:{one.line}: ", f": {_line(one.message)}"
        console.print(Text.assemble(where, (one.severity.value, "yellow"), message), soft_wrap=True)
    table = Table("file", "coverage", "lines that no test reaches")
    for file, (percent, lines) in tested.coverage.items():
        style = "" if percent >= _FULL else "yellow"
        table.add_row(Text(_line(file)), Text(f"{percent:.1f} %", style=style), ", ".join(map(str, lines)))
    if tested.coverage:
        console.print(table)
    of = f"{tested.of}: " if tested.of else ""
    summary = f"{of}{tested.passed} passed ({tested.cases} golden cases), {len(tested.failures)} failed"
    console.print(Text(summary, style="green" if tested.ok else "red"))


def print_reads(document: JsonObject, console: Console) -> None:
    """Print which parts of a question each package reads."""
    table = Table("package", "reads")
    for package, parts in document.items():
        lines = [str(part) for part in parts] if isinstance(parts, list) else [str(parts)]
        table.add_row(Text(_line(package)), Text("\n".join(map(_line, lines)) or "nothing of a question"))
    console.print(table)


def print_permissions(document: JsonObject, console: Console) -> None:
    """Print effective permissions, one row per way to be granted something; readable at 80 columns."""
    subject: Any = document["subject"]
    actor: Any = document["actor"]
    rows: Any = document["permissions"]
    console.print(Text(escaped(f"{subject['id']} via {actor['id']}; groups {', '.join(subject['groups']) or 'none'}")))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, most in (("where", 26), ("may", 12), ("granted by, and under what", None)):
        table.add_column(column, overflow="fold", max_width=most)
    servers = {", ".join(row["servers"]) for row in rows}
    for row in rows:
        cells = ("\n".join(_where(row)), "\n".join(row["kinds"]), "\n".join(_granted_by(row, servers)))
        table.add_row(*(Text(cell(text)) for text in cells))
    nothing = "nothing: no grant matches within the limits of the platform"
    console.print(table if rows else Text("nothing" if document["suspended"] else nothing))
    if len(servers) == 1:
        console.print(Text(escaped(f"server: {servers.pop()}")))
    for line, style in _beside_the_table(document):
        console.print(Text(escaped(line), style=style))


def _where(row: Any) -> Iterator[str]:
    for name in row["collections"]:
        if not row["database"]:
            yield "the deployment"
        elif row["database"].startswith("<"):
            yield row["database"]
        else:
            yield f"{row['database']}.{name}" if name else f"{row['database']} (the database)"


def _granted_by(row: Any, servers: set[str]) -> Iterator[str]:
    yield f"{row['owner']}/{row['grant']}"
    yield from (f"- {condition}" for condition in conditions(row))
    yield from (f"- {limit}" for limit in limits(row))
    if len(servers) > 1:
        yield f"- on {', '.join(row['servers'])}"
    if row["refused"] is not None:
        yield f"- REFUSED by this build: {row['refused']}"
    yield from (f"- OFF: {off}" for off in row["off"])


def _beside_the_table(document: JsonObject) -> Iterator[tuple[str, str]]:
    yield from ((line, "") for line in _limits_on_use(document["limits"]))
    for one in items(document["covered"]):
        places = ", ".join(_where(one))
        yield f"{one['owner']}/{one['grant']} adds nothing on {places}: {', '.join(one['by'])} gives it", "dim"
    for deny in items(document["denies"]):
        yield f"{deny['owner']} denies {deny['code']}: {'; '.join(_asked_of(deny)) or 'always'}", ""
    suspended = ", ".join(map(str, items(document["suspended"])))
    if suspended:
        yield f"suspended by the platform: {suspended}; every call is refused", "red"
    why = "the caller is suspended" if suspended else "no route, delegation, agent or scope covers it"
    for one in items(document["unreached"]):
        yield f"{one['owner']}/{one['grant']} matches, but gives nothing: {why}", "yellow"


def _asked_of(deny: Any) -> Iterator[str]:
    for part in ("kinds", "databases", "collections"):
        if deny[part] is not None:
            yield f"{part} {', '.join(name or '(none)' for name in deny[part])}"
    yield from deny["conditions"]


def print_decided(document: JsonObject, console: Console) -> None:
    """Print a decision, and the explanation if there is one."""
    if "refused" in document:
        refused: Any = document["refused"]
        console.print(
            Text.assemble(("refused", "red"), escaped(f" {refused['code']}: {refused['message']} {refused['path']}"))
        )
        return
    for line, style in _decision_lines(document):
        console.print(Text(escaped(line), style=style))


def print_replayed(document: JsonObject, console: Console) -> None:
    """Print how a replay went: what was proven, the counts, and a row for each distinct difference."""
    audit: Any = document["audit"]
    console.print(Text(f"{audit['records']} records verified; {document['compared']} decisions compared"))
    if audit["unfinished_line"]:
        console.print(Text("the last line is still being written and was skipped", style="dim"))
    if audit["broken"]:
        where = f" at line {audit['broken']['line']}: {audit['broken']['what']}; nothing after it was compared"
        console.print(Text.assemble(("broken", "red"), where))
    counts: Any = document["counts"]
    for name, count in counts.items():
        if count:
            console.print(Text(f"  {count:>8}  {name}", style=_REPLAYED.get(name, "")))
    for note in items(document.get("notes")):
        console.print(Text(note, style="yellow"))
    rows: Any = document["differences"]
    if rows:
        console.print(_differences(rows, console))
    if document["not_listed"]:
        console.print(Text(f"and {document['not_listed']} more calls that differ; raise --limit to list them"))
    _print_sums(document["by"], console)
    if not document["compared"]:
        console.print(Text("nothing was compared, so this proves nothing", style="red"))
    elif document["ok"]:
        console.print(Text("no differences", style="green"))


def _print_sums(by: Any, console: Console) -> None:
    for table, concerned in by.items():
        if concerned:
            console.print(_sums(table, concerned, console))


def _sums(title: str, concerned: list[Any], console: Console) -> Table:
    """Return the table of whom it concerns: calls that would newly be denied or allowed."""
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    table = Table(title=title, title_justify="left")
    for column in ("newly denied", "newly allowed", "name"):
        table.add_column(column, overflow="fold")
    for row in concerned[:SUM_ROWS]:
        table.add_row(str(row["newly_denied"]), str(row["newly_allowed"]), Text(escaped(row["name"])))
    if len(concerned) > SUM_ROWS:
        table.add_row("", "", f"and {len(concerned) - SUM_ROWS} more: --json lists them")
    return table


def _differences(rows: Any, console: Console) -> Table:
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    table = Table()
    for column in ("calls", "difference", "who", "tool", "accesses", "recorded", "candidate"):
        table.add_column(column, overflow="fold")
    for row in rows:
        differs = [f"({part})" for part in row["differs"]] if "allow" not in row["differs"] else []
        cells = (
            str(row["calls"]),
            "\n".join((row["difference"], *differs)),
            f"{row['subject']['id']} via {row['actor']['id']}",
            row["tool"],
            "\n".join(_place(access) for access in row["accesses"]),
            "\n".join(_standing(row["before"])),
            "\n".join(_standing(row["after"])),
        )
        table.add_row(*(Text(cell(text)) for text in cells))
    return table


def _standing(decided: Any) -> Iterator[str]:
    if "unavailable" in decided:
        yield f"no valid answer: {decided['unavailable']}"
        return
    if decided["allow"]:
        yield f"allowed on {decided['server']} by {', '.join(decided['grants'])}"
    for reason in decided["reasons"]:
        access = "" if reason["access"] is None else f", access {reason['access']}"
        yield f"{reason['code']} ({reason['source']}{access}) {reason['title']}".rstrip()
    for obligation in decided["obligations"]:
        yield f"with {obligation}"


def _decision_lines(document: JsonObject) -> Iterator[tuple[str, str]]:
    question: Any = document["question"]
    decision: Any = document["decision"]
    who = f"{question['subject']['id']} via {question['actor']['id']}"
    enforcement: Any = document["enforcement"]
    allow = enforcement["allow"]
    server = f" on {decision['server']}" if allow else ""
    yield f"{'ALLOW' if allow else 'DENY'}: {question['action']['tool']} by {who}{server}", "green" if allow else "red"
    for off in items(document.get("tools")):
        yield f"  {off}", "red"
    if "error" in document:
        yield f"  {document['error']}", "red"
        return
    for note in items(document.get("notes")):
        yield f"  note: {note}", "dim"
    yield from _waiting_lines(document.get("waits"))
    if decision["allow"] and not allow and not {"tools", "waits"} & document.keys():
        codes = ", ".join(reason["code"] for reason in enforcement["reasons"])
        yield f"  {codes}: policy allows it under a condition that the sidecar cannot apply to this call", "red"
    explanation: Any = document.get("explanation")
    if explanation is None:
        yield from _plain_decision(question, decision)
    else:
        yield from _call_lines(explanation["call"])
        for index, entry in enumerate(explanation["accesses"]):
            yield from _access_lines(index, entry)
        for one in explanation["traits"]:
            places = ", ".join(f"{found['construct']} at {found['at']}" for found in one["found"])
            yield f"  closed to this caller: the trait {one['trait']}{': ' if places else ''}{places}", "yellow"
        for reason in explanation["reasons"]:
            yield from _reason_lines(reason)
    yield from ((f"  {line}", "") for line in _limits_on_use(decision.get("limits")))
    if "step_up" in decision:
        yield f"  with {' and '.join(decision['step_up']['missing'])} in the token too, policy would allow it", "yellow"


def _waiting_lines(waits: Any) -> Iterator[tuple[str, str]]:
    """Say for whose consent a call waits that policy allows."""
    for kind, indices in waits.items() if isinstance(waits, dict) else ():
        who = "the user, asked through the client" if kind == ApprovalKind.CONFIRM else "a second person"
        accesses = ", ".join(map(str, indices))
        yield f"  waits for {who} ({kind}): access {accesses}; refused until that is given", "yellow"


def _limits_on_use(limits: Any) -> Iterator[str]:
    """Yield a line for each limit on use, as the platform's data or a decision has it."""
    for limit in items(limits):
        amounts = ", ".join(f"{limit[unit]} {unit}" for unit in UsageUnit if limit.get(unit) is not None)
        apart = f"for each {' and '.join(limit['per'])}" if limit["per"] else "for all callers together"
        chosen = {part: limit.get(part, ["*"]) for part in ("tools", "teams")}
        selected = [f"{part} {', '.join(names)}" for part, names in chosen.items() if names != ["*"]]
        selected += [f"team {limit['team']}"] if limit.get("team") else []
        yield "; ".join((f"limit {limit['id']}: {amounts} in {limit['window_s']} s {apart}", *selected))


def _plain_decision(question: Any, decision: Any) -> Iterator[tuple[str, str]]:
    for index, access in enumerate(question["accesses"]):
        entries = decision["accesses"]
        grants = [f"{entries[index]['owner']}/{grant}" for grant in entries[index]["grants"]] if entries else []
        yield f"  {_access(index, access)}: {', '.join(grants) or 'no grant'}", ""
    for reason in decision["reasons"]:
        where = "" if reason["access"] is None else f", access {reason['access']}"
        yield f"  {reason['code']} ({reason['source']}{where})", "yellow"
    if decision["reasons"]:
        yield "  --explain shows which rule refused, and why", "dim"


def _call_lines(call: Any) -> Iterator[tuple[str, str]]:
    kinds = ", ".join(call["kinds"])
    if call["route"] is None:
        routes = ", ".join(call["routes_of_caller"]) or "none"
        yield f"  route: none covers {kinds}; routes open to this caller: {routes}", "yellow"
    else:
        yield f"  route: {call['route']} → server {call['server']}, deployment {call['deployment']}", ""
    registered = "registered" if call["agent"]["registered"] else "not registered: the default ceiling"
    yield f"  agent: {call['agent']['id']} ({registered}) may {', '.join(call['agent']['kinds']) or 'nothing'}", ""
    yield f"  scopes: the token's scopes open {', '.join(call['kinds_of_scopes']) or 'nothing'}", ""


def _access_lines(index: int, entry: Any) -> Iterator[tuple[str, str]]:
    owner = entry["owner"] or ("nobody" if entry["looked_up"] else "not looked up, because no route gives a deployment")
    yield f"  {_access(index, entry['access'])}: owner {owner}", "bold"
    if entry["owner"] and not entry["covered"]:
        given = (f"{', '.join(one['kinds'])} on {as_json(one['collections'])}" for one in entry["delegated"])
        delegated = "; ".join(given)
        yield f"    not delegated; the platform delegates {delegated or 'nothing'}", "yellow"
    for grant in entry["granted"]:
        yield f"    granted by {grant['grant']} of {entry['owner']} {_at(grant['at'])}", "green"
    for part, value in entry["obligations"].items():
        if value not in (None, []):
            yield f"      with {part} {as_json(value)}", ""
    for one in entry["unsound"]:
        name, parts = one["grant"] or "a computed grant", "; ".join(one["parts"])
        yield f"    not of the contract: {name} {_at(one['at'])}: {parts}", "red"
    for deny in entry["denied"]:
        yield f"    denied by {deny['code']} of {entry['owner']} ({deny['at']}): {deny['text']}", "red"
    if not entry["granted"]:
        yield from _near_misses(entry)


def _near_misses(entry: Any) -> Iterator[tuple[str, str]]:
    for miss in entry["not_granted"][:_NEAREST]:
        yield f"    not granted by {miss['grant'] or 'a computed grant'} ({miss['at']})", "yellow"
        for word, condition in (("fails", miss["failed"]), ("because", miss["because"])):
            if condition is not None:
                yield f"      {word}: {condition['text']} ({condition['at']}){_values(condition)}", ""
    if len(entry["not_granted"]) > _NEAREST:
        yield f"    and {len(entry['not_granted']) - _NEAREST} more grants that match less", "dim"


def _reason_lines(reason: Any) -> Iterator[tuple[str, str]]:
    where = "" if reason["access"] is None else f", access {reason['access']}"
    yield (
        f"  {reason['code']} ({reason['source']}{where}): {reason['title']} {reason['remedy']} {_at(reason['at'])}",
        "red",
    )


def _access(index: int, access: Any) -> str:
    return f"access {index}: {_place(access)} from {access['via']}"


def _place(access: Any) -> str:
    target = access.get("target")
    place = f"{access['database'] or '(deployment)'}.{access['collection'] or '(database)'}"
    return f"{access['kind']} {place if target is None else as_json(target)}"


def _values(condition: Any) -> str:
    known = [f"{name} is {_value(name, value)}" for name, value in condition["values"].items()]
    known += [f"{name} is missing" for name in condition["missing"]]
    return f"; {', '.join(known)}" if known else ""


def _value(name: str, value: Any) -> str:
    shown = as_json(value)
    return f"{shown} ({in_utc(value)})" if name == TIME and isinstance(value, int) else shown


def _at(places: Any) -> str:
    return f"({', '.join(places)})" if places else ""


def _line(text: str) -> str:
    """Put what an archive or a file says on one line that cannot forge another."""
    return escaped(" ".join(text.split()))
