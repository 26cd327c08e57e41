"""The command ``mcp-sidecar issuers show``."""

import click

from sidecar.identity import Preset, as_settings


@click.command("show")
@click.argument("names", metavar="[PRESET]...", nargs=-1, type=click.Choice([preset.value for preset in Preset]))
def issuers_show(names: tuple[str, ...]) -> None:
    """Print the settings that each preset of an issuer stands for."""
    for name in names or tuple(Preset):
        click.echo(as_settings(Preset(name)))
