"""What several commands take and how they print: options, JSON, the exit status of an answer."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import click

from sidecar.model import JsonObject
from sidecar.printing import escaped

NO: Final = 1
"""Exit status where the answer is "no"."""

OPA: Final = click.option("--opa", metavar="PROGRAM", help="The OPA executable, instead of the configured one.")
JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, also to a terminal.")
AT: Final = click.option(
    "--at",
    type=click.DateTime(("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")),
    metavar="TIME",
    help="The time of the question in UTC, such as 2026-01-05T09:00; default: now.",
)
ENVIRONMENT: Final = click.option(
    "--environment", metavar="NAME", help="The environment that policies see (input.context.environment)."
)
FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)


def echo_json(document: JsonObject, *, indent: int = 2) -> None:
    """Print JSON with names that callers chose: a terminal acts on some characters that JSON does not escape."""
    click.echo(escaped(json.dumps(document, indent=indent, ensure_ascii=False), keep="\n"))


class _PrintedReport(Protocol):
    """What a command found."""

    @property
    def ok(self) -> bool: ...

    def document(self) -> JsonObject:
        """Return it as JSON."""


def conclude(report: _PrintedReport, show: Callable[[], None], *, as_json: bool) -> None:
    """Print a report as JSON or as ``show`` does, and end with status 1 if it is not good."""
    if as_json:
        echo_json(report.document())
    else:
        show()
    if not report.ok:
        sys.exit(NO)


def moment(at: datetime | None) -> int:
    """Return the time of a question in nanoseconds, in whole seconds: the one that is named, else now."""
    asked = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    return int(asked.timestamp()) * 1_000_000_000
