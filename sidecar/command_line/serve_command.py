"""The command ``mcp-sidecar serve``."""

import click

from sidecar import app, lifecycle, settings


@click.command()
def serve() -> None:
    """Serve MCP over Streamable HTTP until interrupted."""
    lifecycle.run(app.serve(settings.load()))
