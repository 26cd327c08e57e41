"""The commands of operators: suspend, resume, suspended."""

import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from sidecar.configured import required
from sidecar.control import ClientTls, ControlError, Verb, send
from sidecar.errors import ConfigurationError
from sidecar.identity import Suspendable
from sidecar.model import JsonObject, JsonValue
from sidecar.printing import escaped

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_KINDS: Final = click.Choice([kind.value for kind in Suspendable])
_CONSOLE: Final = Console(soft_wrap=True)
_SPAN: Final = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_SECONDS: Final = {"m": 60, "h": 3600, "d": 86_400}

_CONTROL: Final = click.option("--control", metavar="ADDRESS", help="unix:PATH or HOST:PORT; default: control_listen.")
_CERTIFICATE: Final = click.option("--certificate", type=_FILE, help="Your certificate (PEM), for HOST:PORT.")
_PRIVATE_KEY: Final = click.option("--key", type=_FILE, help="Its private key (PEM).")
_CA: Final = click.option("--ca", type=_FILE, help="Certificates (PEM) that the listener's is checked against.")
_ISSUER: Final = click.option("--issuer", metavar="URL", help="Whose user or agent; needed if several are trusted.")
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@click.command()
@click.argument("kind", type=_KINDS)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_ISSUER
@click.option("--until", metavar="TIME", help="UTC, such as 2026-01-05T09:00, or a span: 30m, 8h, 7d; default: resume.")
@click.option("--reason", required=True, help="For the other operators and the evidence; callers never see it.")
@_CONTROL
@_CERTIFICATE
@_PRIVATE_KEY
@_CA
@_JSON
def suspend(  # one parameter per option
    kind: str,
    names: tuple[str, ...],
    *,
    issuer: str | None,
    until: str | None,
    reason: str,
    control: str | None,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    as_json: bool,
) -> None:
    """Take rights away at once: `suspend user ann`, `agent desk`, `pair ann desk`, `token DIGEST`, `session DIGEST`.

    Digests are those of audit records. When the command returns, no further call under them is forwarded, and their
    sessions and streams are closed. Status 1 if it was not done, or not stored or recorded.
    """
    asked = _target(Suspendable(kind), names, issuer) | {"reason": reason, "until": _moment(until)}
    done = _send("suspend", asked, control, _tls(certificate, key, ca))
    if as_json:
        _CONSOLE.print_json(data=done)
    else:
        _say_suspended(done)
    for part, lost in (("stored", "a restart would lift it"), ("recorded", "audit does not show it")):
        if done.get(part) is not True:
            click.echo(f"mcp-sidecar: in force, but not {part}: {lost}; see the sidecar's log", err=True)
    if done.get("stored") is not True or done.get("recorded") is not True:
        sys.exit(1)


@click.command()
@click.argument("kind", type=_KINDS)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_ISSUER
@_CONTROL
@_CERTIFICATE
@_PRIVATE_KEY
@_CA
def resume(  # one parameter per option
    kind: str,
    names: tuple[str, ...],
    *,
    issuer: str | None,
    control: str | None,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
) -> None:
    """Give back what `suspend` took away; the same names. What policy data suspends stays suspended.

    Status 1 if nothing of that name is suspended, or it was not done.
    """
    _send("resume", _target(Suspendable(kind), names, issuer), control, _tls(certificate, key, ca))
    click.echo(f"resumed: {kind} {escaped(' '.join(names))}")


@click.command()
@_CONTROL
@_CERTIFICATE
@_PRIVATE_KEY
@_CA
@_JSON
def suspended(
    *, control: str | None, certificate: Path | None, key: Path | None, ca: Path | None, as_json: bool
) -> None:
    """List what operators suspended and what is still in force. Policy data is not in this list."""
    answer = _send("suspended", {}, control, _tls(certificate, key, ca))
    if as_json:
        _CONSOLE.print_json(data=answer)
        return
    rows = answer.get("suspended")
    if not isinstance(rows, list) or not rows:
        click.echo("nothing is suspended")
        return
    table = Table("what", "name", "until (UTC)", "by", "since (UTC)", "reason")
    for row in rows:
        if isinstance(row, dict):
            name = " ".join(str(row[part]) for part in ("subject", "agent", "digest", "issuer") if part in row)
            cells = (row["kind"], name, _time(row["until"]), row["operator"], _time(row["since"]), row["reason"])
            table.add_row(*(escaped(str(cell)) for cell in cells))
    _CONSOLE.print(table, markup=False)


def _target(kind: Suspendable, names: tuple[str, ...], issuer: str | None) -> JsonObject:
    parts = {
        Suspendable.USER: ("subject",),
        Suspendable.AGENT: ("agent",),
        Suspendable.PAIR: ("subject", "agent"),
        Suspendable.TOKEN: ("digest",),
        Suspendable.SESSION: ("digest",),
    }[kind]
    if len(names) != len(parts):
        raise click.UsageError(f"{kind} takes {len(parts)} name(s): {', '.join(parts)}")
    return {"kind": kind.value, **dict(zip(parts, names, strict=True)), **({"issuer": issuer} if issuer else {})}


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    now = datetime.now(UTC)
    if span := _SPAN.fullmatch(text):
        return int((now + timedelta(seconds=int(span[1]) * _SECONDS[span[2]])).timestamp())
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError("--until is a time such as 2026-01-05T09:00 (UTC), or a span: 30m, 8h, 7d") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    if moment <= now:
        raise click.UsageError("--until is in the past")
    return int(moment.timestamp())


def _tls(certificate: Path | None, key: Path | None, ca: Path | None) -> ClientTls | None:
    if certificate is None and key is None and ca is None:
        return None
    if certificate is None or key is None or ca is None:
        raise click.UsageError("--certificate, --key and --ca go together")
    return ClientTls(certificate=certificate, key=key, ca=ca)


def _send(command: Verb, asked: JsonObject, control: str | None, tls: ClientTls | None) -> JsonObject:
    address = control or _configured()
    try:
        return send(address, command, asked, tls)
    except ControlError as error:
        click.echo(f"mcp-sidecar: {escaped(str(error))}", err=True)
        sys.exit(1)


def _configured() -> str:
    """Return where the settings say that commands are taken; on a machine without them, it has to be named."""
    try:
        address = required().control_listen
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or name the sidecar's control_listen with --control") from None
    if not address:
        raise click.UsageError("the settings have no control_listen; name it with --control")
    return address


def _say_suspended(done: JsonObject) -> None:
    found = done.get("suspended")
    until = found.get("until") if isinstance(found, dict) else None
    click.echo(f"suspended {'until it is resumed' if until is None else f'until {_time(until)} UTC'}")
    click.echo(f"ended: {done['sessions']} sessions, {done['streams']} streams, {done['calls']} calls under way")
    if done["writes"]:
        click.echo(f"{done['writes']} writes were sent before; their answers are withheld, their outcomes recorded")
    if not done["sessions"]:
        click.echo("no session was open of that name; if there should have been one, check the spelling")


def _time(value: JsonValue) -> str:
    return "" if not isinstance(value, int) else datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S")
