"""The command ``mcp-sidecar token explain``."""

import sys

import click

from sidecar import lifecycle, settings
from sidecar.authoring import token_explained
from sidecar.command_line.shared import JSON, conclude
from sidecar.printing import escaped
from sidecar.system import SystemClock


@click.command("explain")
@JSON
def token_explain(*, as_json: bool) -> None:
    """Say what the configured issuers' settings make of the access token on standard input, claim by claim.

    Status 1 if it would be refused. Prints neither the token nor its signature, and no value of a claim that is not
    used. Fetches the issuer's keys as the sidecar does.
    """
    text = sys.stdin.buffer.read(token_explained.MAX_BYTES)
    report = lifecycle.run(token_explained.explain_token(text, settings.load(), SystemClock()))
    conclude(report, lambda: click.echo("\n".join(escaped(line) for line in report.lines())), as_json=as_json)
