"""The command line. Exit status: 0 success; 1 the answer is "no"; 2 wrong usage; 78 configuration error."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, Protocol

import click
from rich.console import Console
from typing_extensions import override

from sidecar import __version__, app, deploying, inspection, lifecycle, operating, settings
from sidecar.approving import approvals
from sidecar.asking import audit, trace
from sidecar.authoring import golden_case, kit, token_explained, who_in_words, wording
from sidecar.client_config import client_config
from sidecar.demo import run as demo_run
from sidecar.errors import ConfigurationError
from sidecar.identity import Preset, as_settings
from sidecar.launching import stdio
from sidecar.model import JsonObject
from sidecar.policyset import bundle_writer
from sidecar.printing import escaped
from sidecar.starting import policy_init, policy_new
from sidecar.system import SystemClock

EX_CONFIG: Final = 78
NO: Final = 1


class _Commands(click.Group):
    """A group whose commands exit with status 78 (EX_CONFIG) if the configuration cannot be used."""

    @override
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"mcp-sidecar: {escaped(str(error))}", err=True)
            ctx.exit(EX_CONFIG)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcp-sidecar")
def cli() -> None:
    """Policy enforcement point in front of the MongoDB MCP server.

    Settings come from SIDECAR_* variables, or from the TOML file that SIDECAR_CONFIG names.
    """


@cli.command()
def serve() -> None:
    """Serve MCP over Streamable HTTP until interrupted."""
    lifecycle.run(app.serve(settings.load()))


@cli.command()
@click.option("--once", is_flag=True, help="Exit after the tour; non-zero if a step went differently than expected.")
@click.option(
    "--write", is_flag=True, help="Write sample data and tour steps also to the database of MDB_MCP_CONNECTION_STRING."
)
@click.option("--no-setup", is_flag=True, help="Bring no program that is missing; say so instead.")
def demo(*, once: bool, write: bool, no_setup: bool) -> None:
    """Run everything on this machine, play a short tour, then serve.

    Uses the database of MDB_MCP_CONNECTION_STRING if it is set (reading only, unless --write), otherwise a stand-in
    with sample data. Programs that are not on PATH are brought as `setup --demo` does. SIDECAR_* settings override the
    demo's own.
    """
    place = deploying.place(may_install=not no_setup)
    ok = lifecycle.run(demo_run.demo(place, once=once, write=write))
    if not ok:
        sys.exit(NO)


@cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--lines", is_flag=True, help="FILE holds one call per line; print one answer per line.")
@click.option("--tools", is_flag=True, help="Compare the configured servers' live tools with the reviewed ones.")
def inspect(file: BinaryIO, *, lines: bool, tools: bool) -> None:
    """Show what a tool call would touch. Reads the params of a tools/call from FILE (or standard input), prints JSON.

    Status 1 if a call is refused, or with --tools if a tool was not reviewed. Contacts nothing; only --tools asks the
    configured servers for their tools.
    """
    if tools:
        ok = lifecycle.run(inspection.compare_tools(settings.load(), Console(soft_wrap=True)))
    elif lines:
        ok = inspection.inspect_lines(file, sys.stdout)
    else:
        found = inspection.inspect(file.read())
        _echo_json(found)
        ok = "refused" not in found
    if not ok:
        sys.exit(NO)


_OPA: Final = click.option("--opa", metavar="PROGRAM", help="The OPA executable, instead of the configured one.")
_KEY: Final = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
_JSON: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, also to a terminal.")
_AT: Final = click.option(
    "--at",
    type=click.DateTime(("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d")),
    metavar="TIME",
    help="The time of the question in UTC, such as 2026-01-05T09:00; default: now.",
)
_ENVIRONMENT: Final = click.option(
    "--environment", metavar="NAME", help="The environment that policies see (input.context.environment)."
)
_WATCH: Final = click.option("--watch", is_flag=True, help="Run again whenever a file changes, until Ctrl-C.")
_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_PATH: Final = click.Path(exists=True, path_type=Path)
_CONSOLE: Final = Console(soft_wrap=True)


def _echo_json(document: JsonObject, *, indent: int = 2) -> None:
    """Print JSON with names that callers chose: a terminal acts on some characters that JSON does not escape."""
    click.echo(escaped(json.dumps(document, indent=indent, ensure_ascii=False), keep="\n"))


class _PrintedReport(Protocol):
    """What a command found."""

    @property
    def ok(self) -> bool: ...

    def document(self) -> JsonObject:
        """Return it as JSON."""


def _conclude(report: _PrintedReport, show: Callable[[], None], *, as_json: bool) -> None:
    """Print a report as JSON or as ``show`` does, and end with status 1 if it is not good."""
    if as_json:
        _echo_json(report.document())
    else:
        show()
    if not report.ok:
        sys.exit(NO)


def _about(at: datetime | None, environment: str | None) -> kit.Circumstances:
    moment = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    return kit.Circumstances(time_ns=int(moment.timestamp()) * 1_000_000_000, environment=environment)


@cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--policies", type=_FOLDER, help="The policy folder to ask, instead of the configured one.")
@click.option("--explain", is_flag=True, help="Show why: which grant matched, or which condition of which rule failed.")
@click.option("--as-case", metavar="TITLE", help="Print a golden case with this title, for policies/cases.")
@_AT
@_ENVIRONMENT
@_OPA
@_JSON
def decide(  # one parameter per option
    file: BinaryIO,
    *,
    policies: Path | None,
    explain: bool,
    as_case: str | None,
    at: datetime | None,
    environment: str | None,
    opa: str | None,
    as_json: bool,
) -> None:
    """Decide one call: {"claims": {…}, "call": {"name": …, "arguments": {…}}} from FILE (or standard input).

    Prints what the call derives to, the question to OPA and its answer; as JSON if the output is not a terminal.
    Nothing is forwarded. Status 1 if the call is refused or denied. With --as-case the status is 0 in both cases.
    """
    about = _about(at, environment)
    if as_case is not None and explain:
        raise click.UsageError("--as-case and --explain cannot be used together: leave one out")
    decided = lifecycle.run(kit.decide(file.read(), policies, about, opa, explained=explain))
    if as_case is not None:
        _echo_json(golden_case(decided, as_case), indent=1)
        return
    if as_json or not sys.stdout.isatty():
        _echo_json(decided.document)
    else:
        wording.print_decided(decided.document, _CONSOLE)
    if not decided.allow:
        sys.exit(NO)


@cli.group()
def policy() -> None:
    """Write policies: start a team's folder, check it, test it, see who is granted what."""


@policy.command("check")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--issuer", "issuers", multiple=True, metavar="ISS", help="An issuer whose tokens are accepted; repeat for each."
)
@_WATCH
@_OPA
@_JSON
def policy_check(
    paths: tuple[Path, ...], *, issuers: tuple[str, ...], watch: bool, opa: str | None, as_json: bool
) -> None:
    """Check policies as the sidecar does before it serves them: containment, types, the platform's data.

    PATH is a policy folder, or bundle archives (platform.tar.gz, TEAM.tar.gz), or folders of them as `policy bundle`
    writes. Without platform.tar.gz, archives are checked for containment only. Status 1 if they would be refused.

    With --issuer, or with settings, also warns of entries of the platform's data that count for none of the issuers.
    With settings and no --issuer, also of scopes that they ask clients for and that open nothing.
    """
    if watch:
        if len(paths) != 1 or as_json:
            raise click.UsageError("--watch is for one policy folder, and not for --json")
        lifecycle.run(kit.watch_checks(paths[0], opa, issuers, lambda told: wording.print_checked(told, _CONSOLE)))
    checked = lifecycle.run(kit.check_paths(paths, opa, issuers))
    _conclude(checked, lambda: wording.print_checked(checked, _CONSOLE), as_json=as_json)


@policy.command("test")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@_WATCH
@_OPA
@_JSON
def policy_test(folder: Path, *, watch: bool, opa: str | None, as_json: bool) -> None:
    """Run the tests of the policy folder DIR and its golden cases (DIR/cases), and show the coverage of each file.

    Status 1 if a test fails. With --watch a change runs the tests of what changed, then those that depend on it.
    """
    if watch:
        if as_json:
            raise click.UsageError("--watch is not for --json")
        lifecycle.run(kit.watch_tests(folder, opa, lambda told: wording.print_tested(told, _CONSOLE)))
    tested = lifecycle.run(kit.run_folder(folder, opa))
    _conclude(tested, lambda: wording.print_tested(tested, _CONSOLE), as_json=as_json)


@policy.command("show")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--claims", type=click.File("rb"), help="A token's claims as JSON, or a question.")
@click.option("--all", "every_row", is_flag=True, help="Show also the rows that another row covers.")
@click.option("--reads", is_flag=True, help="Show instead which parts of a question the rules of each team can read.")
@_AT
@_ENVIRONMENT
@_OPA
@_JSON
def policy_show(
    folder: Path,
    *,
    claims: BinaryIO | None,
    every_row: bool,
    reads: bool,
    at: datetime | None,
    environment: str | None,
    opa: str | None,
    as_json: bool,
) -> None:
    """Show everything that one identity could be granted under the policy folder DIR.

    Each row is one way to be granted something. Its conditions include denies and closed hours that could refuse it. A
    row says REFUSED if this build would refuse its calls, because it cannot apply an obligation of the grant, and OFF
    if the settings leave off the tool group that it takes.

    With --reads: what no package lists does not change what its rules say. A bare `input`, or a step that is not
    spelled out after it, reads everything.
    """
    if (claims is None) is not reads:
        raise click.UsageError("Name either --claims FILE or --reads.")
    if claims is None:
        found = lifecycle.run(kit.show_reads(folder, opa))
        return _echo_json(found) if as_json else wording.print_reads(found, _CONSOLE)
    about = _about(at, environment)
    document = lifecycle.run(kit.show_permissions(folder, claims.read(), about, opa, every_row=every_row))
    return _echo_json(document) if as_json else wording.print_permissions(document, _CONSOLE)


@policy.command("who")
@click.argument("place", metavar="DATABASE[.COLLECTION]|tool/NAME")
@click.argument("folder", metavar="[DIR]", type=_FOLDER, default="policies")
@_OPA
@_JSON
def policy_who(place: str, folder: Path, *, opa: str | None, as_json: bool) -> None:
    """Show which groups, agents, scopes and issuers reach a place under the policy folder DIR (default: policies).

    Each row is one grant by one route, with the line of the grant and the server that the call goes to.
    """
    document = lifecycle.run(kit.show_who(folder, place, opa))
    return _echo_json(document) if as_json else who_in_words.print_who(document, _CONSOLE)


@policy.command("bundle")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write to.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Write only this bundle (platform, teams/TEAM); can be repeated."
)
@click.option("--signing-key", type=_KEY, help="File of the private key (PEM).")
@click.option("--signing-alg", type=click.Choice(bundle_writer.SIGNING_ALGORITHMS), default="RS256", show_default=True)
@_OPA
def policy_bundle(
    folder: Path, *, out: Path, only: tuple[str, ...], signing_key: Path | None, signing_alg: str, opa: str | None
) -> None:
    """Build bundles of the policy folder DIR for your own OPA: one for the platform, one for each team.

    Checks the whole set first, as the sidecar does before it serves. Prints the file and revision of each bundle.
    """
    signing = bundle_writer.SigningKey(key=signing_key, algorithm=signing_alg) if signing_key is not None else None
    for bundle in lifecycle.run(bundle_writer.build(folder, out, settings.opa_binary(opa), signing=signing, only=only)):
        click.echo(f"{out / bundle.name}.tar.gz  {bundle.revision}")


policy.add_command(policy_new)
policy.add_command(policy_init)


@cli.command()
@click.option(
    "--audit", "records", type=click.File("rb"), help="The audit file, or - for standard input; default: the settings'."
)
@click.option("--instance", default="", metavar="NAME", help="The sidecar whose chain is meant, of a mongodb: store.")
@click.option("--policies", type=_FOLDER, required=True, help="The policy folder to decide with.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Distinct differences to list."
)
@_OPA
@_JSON
def replay(
    records: BinaryIO | None, *, instance: str, policies: Path, limit: int, opa: str | None, as_json: bool
) -> None:
    """Decide recorded calls again under the policy folder of --policies, and print what would be decided differently.

    Records need their question (the setting audit.question). The hash chain is verified on the way. Nothing is
    forwarded and no claims are printed. Status 1 if a decision differs, the chain is broken, or nothing was compared.
    """
    replayed = lifecycle.run(kit.replay_evidence(records, policies, opa, limit=limit, instance=instance))
    _conclude(replayed, lambda: wording.print_replayed(replayed.document(), _CONSOLE), as_json=as_json)


@cli.group()
def issuers() -> None:
    """Authorization servers whose tokens are accepted."""


@issuers.command("show")
@click.argument("names", metavar="[PRESET]...", nargs=-1, type=click.Choice([preset.value for preset in Preset]))
def issuers_show(names: tuple[str, ...]) -> None:
    """Print the settings that each preset of an issuer stands for."""
    for name in names or tuple(Preset):
        click.echo(as_settings(Preset(name)))


for _command in (
    approvals,
    operating.suspend,
    operating.resume,
    operating.suspended,
    client_config,
    stdio,
    deploying.setup,
    deploying.doctor,
    deploying.roles,
):
    cli.add_command(_command)


@cli.group()
def token() -> None:
    """Access tokens."""


@token.command("explain")
@_JSON
def token_explain(*, as_json: bool) -> None:
    """Say what the configured issuers' settings make of the access token on standard input, claim by claim.

    Status 1 if it would be refused. Prints neither the token nor its signature, and no value of a claim that is not
    used. Fetches the issuer's keys as the sidecar does.
    """
    text = sys.stdin.buffer.read(token_explained.MAX_BYTES)
    report = lifecycle.run(token_explained.explain_token(text, settings.load(), SystemClock()))
    _conclude(report, lambda: click.echo("\n".join(escaped(line) for line in report.lines())), as_json=as_json)


cli.add_command(audit)
cli.add_command(trace)


def main() -> NoReturn:
    """Run the command line; the only place that ends the process."""
    deploying.find_brought_programs()
    cli(prog_name="mcp-sidecar")
    sys.exit(0)
