"""``mcp-sidecar policy new`` and ``policy init``: a team's folder, and a whole policy set from nothing."""

from pathlib import Path
from typing import Final

import click

from sidecar import lifecycle
from sidecar.authoring import found, kit, platform_entry, scaffold
from sidecar.configured import opa_binary

_DATABASES: Final = click.option(
    "--database",
    "databases",
    multiple=True,
    metavar="NAME",
    help="A database of the team, or all whose names begin so (invoices_*); can be repeated. Default: the team's name.",
)
_COLLECTIONS: Final = click.option(
    "--collection",
    "collections",
    multiple=True,
    metavar="GLOB",
    help="Collections that readers may read, such as orders or log_*; can be repeated. Default: every one.",
)
_GROUP: Final = click.option(
    "--group", metavar="NAME", help="The group of the readers, as tokens name it. Default: TEAM-readers."
)
_NEXT: Final = "Then run: mcp-sidecar policy check {0} && mcp-sidecar policy test {0}"


@click.command("new")
@click.argument("team")
@click.argument(
    "folder", metavar="[DIR]", type=click.Path(exists=True, file_okay=False, path_type=Path), default="policies"
)
@_DATABASES
@_COLLECTIONS
@_GROUP
@click.option("--deployment", metavar="NAME", help="Where the databases are, if there is more than one deployment.")
@click.option("--server", metavar="NAME", help="The server of the readers' route, if the deployment has several.")
@click.option("--write", is_flag=True, help="Put the entries into platform/data.json instead of printing them.")
def policy_new(
    team: str,
    folder: Path,
    *,
    databases: tuple[str, ...],
    collections: tuple[str, ...],
    group: str | None,
    deployment: str | None,
    server: str | None,
    write: bool,
) -> None:
    """Start the folder of TEAM in the policy folder DIR (default: policies): a policy, its tests and its data.

    Readers read the documents and see the names; nobody writes.
    """
    wanted = scaffold.ownership(team, databases, collections, group=group, deployment=deployment, server=server)
    files, left = lifecycle.run(kit.new_team(folder, wanted, write=write))
    for path in files:
        click.echo(path)
    click.echo(f"\n{left}\n\n{_NEXT.format(folder)}")


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--team", default="example", show_default=True, help="The first team.")
@_DATABASES
@_COLLECTIONS
@_GROUP
@click.option("--server", default="main", show_default=True, help="The server's name in the sidecar's settings.")
@click.option("--opa", metavar="PROGRAM", help="The OPA executable, instead of the configured one.")
def policy_init(
    folder: Path,
    *,
    team: str,
    databases: tuple[str, ...],
    collections: tuple[str, ...],
    group: str | None,
    server: str,
    opa: str | None,
) -> None:
    """Make the policy folder DIR from nothing: the platform with no world in it, one team, tests and golden cases.

    DIR is new or empty. What it makes passes `policy check` and `policy test`, and serves.
    """
    wanted = scaffold.ownership(team, databases, collections, group=group, server=server)
    files, listing = lifecycle.run(found(folder, wanted, opa_binary(opa)))
    click.echo(f"{folder}: {len(files)} files; begin with platform/data.json and teams/{team}/policy.rego")
    click.echo(f"\n{platform_entry.LISTING}\n{listing}\n\n{_NEXT.format(folder)}")
