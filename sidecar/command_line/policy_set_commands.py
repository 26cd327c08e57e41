"""The commands ``mcp-sidecar policy check | test | bundle``: a policy folder as a whole."""

from pathlib import Path
from typing import Final

import click
from rich.console import Console

from sidecar import lifecycle
from sidecar.authoring import kit, wording
from sidecar.command_line.shared import FOLDER, JSON, OPA, conclude
from sidecar.configured import opa_binary
from sidecar.policyset import bundle_writer

_CONSOLE: Final = Console(soft_wrap=True)
_KEY: Final = click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path)
_PATH: Final = click.Path(exists=True, path_type=Path)
_WATCH: Final = click.option("--watch", is_flag=True, help="Run again whenever a file changes, until Ctrl-C.")


@click.command("check")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_PATH)
@click.option(
    "--issuer", "issuers", multiple=True, metavar="ISS", help="An issuer whose tokens are accepted; repeat for each."
)
@_WATCH
@OPA
@JSON
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
    conclude(checked, lambda: wording.print_checked(checked, _CONSOLE), as_json=as_json)


@click.command("test")
@click.argument("folder", metavar="DIR", type=FOLDER)
@_WATCH
@OPA
@JSON
def policy_test(folder: Path, *, watch: bool, opa: str | None, as_json: bool) -> None:
    """Run the tests of the policy folder DIR and its golden cases (DIR/cases), and show the coverage of each file.

    Status 1 if a test fails. With --watch a change runs the tests of what changed, then those that depend on it.
    """
    if watch:
        if as_json:
            raise click.UsageError("--watch is not for --json")
        lifecycle.run(kit.watch_tests(folder, opa, lambda told: wording.print_tested(told, _CONSOLE)))
    tested = lifecycle.run(kit.run_folder(folder, opa))
    conclude(tested, lambda: wording.print_tested(tested, _CONSOLE), as_json=as_json)


@click.command("bundle")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder to write to.")
@click.option(
    "--only", multiple=True, metavar="NAME", help="Write only this bundle (platform, teams/TEAM); can be repeated."
)
@click.option("--signing-key", type=_KEY, help="File of the private key (PEM).")
@click.option("--signing-alg", type=click.Choice(bundle_writer.SIGNING_ALGORITHMS), default="RS256", show_default=True)
@OPA
def policy_bundle(
    folder: Path, *, out: Path, only: tuple[str, ...], signing_key: Path | None, signing_alg: str, opa: str | None
) -> None:
    """Build bundles of the policy folder DIR for your own OPA: one for the platform, one for each team.

    Checks the whole set first, as the sidecar does before it serves. Prints the file and revision of each bundle.
    """
    signing = bundle_writer.SigningKey(key=signing_key, algorithm=signing_alg) if signing_key is not None else None
    for bundle in lifecycle.run(bundle_writer.build(folder, out, opa_binary(opa), signing=signing, only=only)):
        click.echo(f"{out / bundle.name}.tar.gz  {bundle.revision}")
