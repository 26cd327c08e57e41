"""From the options of a command to what is asked for."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click
from typing_extensions import override

from sidecar.audit import Selection, Verdict
from sidecar.printing import escaped

LONGEST_CALL: Final = timedelta(hours=1)
"""How long after its beginning the outcome of a call is looked for, where a question ends at a time."""

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


class _TimeOption(click.ParamType[datetime]):
    name = "time"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Read a time with its zone, UTC where it has none, or how long ago."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            if span := _SPAN.fullmatch(text):
                return datetime.now(UTC) - timedelta(**{_UNITS[span[2]]: int(span[1])})
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{escaped(text)!r} is no time; write 2026-11-27T09:00+01:00, 2026-11-27 (UTC where no zone is given), "
                "or how long ago: 30m, 8h, 3d, 2w",
                param,
                ctx,
            )


TIME: Final = _TimeOption()

INSTANCE: Final = click.option(
    "--instance",
    default="",
    metavar="NAME",
    help="The sidecar whose chain is meant, of a mongodb: store; default: all.",
)

_OPTIONS: Final = (
    click.option("--file", "file", type=_FILE, help="The audit file; default: the store of the settings."),
    INSTANCE,
    click.option("--user", "users", multiple=True, metavar="ID", help="The user; of several of one option, any."),
    click.option("--issuer", "issuers", multiple=True, metavar="URL", help="Who issued the user's token."),
    click.option("--agent", "agents", multiple=True, metavar="ID", help="The agent that called."),
    click.option(
        "--collection", "places", multiple=True, metavar="DB[.COLL]", help="A collection, or a whole database."
    ),
    click.option("--tool", "tools", multiple=True, metavar="NAME", help="The tool."),
    click.option("--decision", type=click.Choice([each.value for each in Verdict]), help="How it was decided."),
    click.option(
        "--reason", "reasons", multiple=True, metavar="CODE", help="Why it was refused: reason code or error label."
    ),
    click.option("--request", "requests", multiple=True, metavar="ID", help="A request id, or a trace id."),
    click.option("--since", type=TIME, metavar="TIME", help="2026-11-27T09:00+01:00, 2026-11-27 (UTC), or 8h, 3d ago."),
    click.option("--until", type=TIME, metavar="TIME", help="The first moment that is not meant; default: now."),
)


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which records are meant."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def selection(given: dict[str, Any]) -> Selection:
    """Return what the options select, as records have it."""
    places = [escaped(each) for each in given["places"]]
    verdict = given["decision"]
    return Selection(
        users=_names(given["users"]),
        issuers=_names(given["issuers"]),
        agents=_names(given["agents"]),
        databases=frozenset(each for each in places if "." not in each),
        collections=frozenset((each.partition(".")[0], each.partition(".")[2]) for each in places if "." in each),
        tools=_names(given["tools"]),
        reasons=_names(given["reasons"]),
        requests=_names(given["requests"]),
        verdict=None if verdict is None else Verdict(verdict),
        since=stored_time(given["since"]),
        until=stored_time(given["until"]),
    )


def stored_time(moment: datetime | None) -> str:
    """Return a time as records have it; empty for none."""
    return "" if moment is None else f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06d}Z"


def later(time: str) -> str:
    """Return a stored time moved on by as long as an outcome is waited for; empty for none."""
    if not time:
        return ""
    try:
        return stored_time(datetime.fromisoformat(time) + LONGEST_CALL)
    except OverflowError:
        return ""


def _names(given: tuple[str, ...]) -> frozenset[str]:
    return frozenset(escaped(each) for each in given)
