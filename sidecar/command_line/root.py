"""The commands by name. Exit status: 0 success; 1 the answer is "no"; 2 wrong usage; 78 configuration error."""

from collections.abc import Mapping
from typing import Final

import click
from typing_extensions import override

from sidecar import __version__
from sidecar.command_line.lazy_group import CommandPlace, LazyGroup
from sidecar.errors import ConfigurationError
from sidecar.printing import escaped

EX_CONFIG: Final = 78


class _Commands(LazyGroup):
    """A group whose commands exit with status 78 (EX_CONFIG) if the configuration cannot be used."""

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse bytes that are not UTF-8, which Python hands over as lone surrogates (PEP 383)."""
        if strange := [one for one in args if one.encode(errors="replace") != one.encode(errors="surrogatepass")]:
            ctx.fail(f"an argument is not UTF-8: {escaped(strange[0])}")
        return super().parse_args(ctx, args)

    @override
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"mcp-sidecar: {escaped(str(error))}", err=True)
            ctx.exit(EX_CONFIG)


def _at(place: str, line: str) -> CommandPlace:
    module, _, name = place.rpartition(".")
    return CommandPlace(module=f"sidecar.{module}", name=name, line=line)


_COMMANDS: Final[Mapping[str, CommandPlace]] = {
    "approvals": _at(
        "approving.approvals", "Calls that wait for a second person: yours to give, with a token of your own."
    ),
    "audit": _at("asking.audit_commands.audit", "Ask the evidence: is it whole, who did what, what changed."),
    "client-config": _at(
        "client_config.client_config",
        "Print the configuration that makes CLIENT call this sidecar, from the settings' resource_url.",
    ),
    "decide": _at(
        "command_line.decide_command.decide",
        'Decide one call: {"claims": {…}, "call": {"name": …, "arguments": {…}}} from FILE (or standard input).',
    ),
    "demo": _at("command_line.demo_command.demo", "Run everything on this machine, play a short tour, then serve."),
    "doctor": _at(
        "deploying.doctor",
        "Look at the deployment that the settings describe, and say what is wider, more open or older than it should "
        "be.",
    ),
    "inspect": _at("command_line.inspect_command.inspect", "Show what a tool call would touch."),
    "replay": _at(
        "command_line.replay_command.replay",
        "Decide recorded calls again under the policy folder of --policies, and print what would be decided "
        "differently.",
    ),
    "resume": _at("operating.resume", "Give back what `suspend` took away; the same names."),
    "roles": _at("deploying.roles", "Print the role that the database user of a server needs, as lines for mongosh."),
    "serve": _at("command_line.serve_command.serve", "Serve MCP over Streamable HTTP until interrupted."),
    "setup": _at(
        "own_programs.setup", "Bring OPA and the MongoDB MCP server, unless they are on PATH in a version that will do."
    ),
    "stdio": _at(
        "launching.stdio", "Serve MCP to the client that launches this process, over standard input and output."
    ),
    "suspend": _at(
        "operating.suspend",
        "Take rights away at once: `suspend user ann`, `agent desk`, `pair ann desk`, `token DIGEST`, `session "
        "DIGEST`.",
    ),
    "suspended": _at("operating.suspended", "List what operators suspended and what is still in force."),
    "trace": _at(
        "asking.trace_command.trace",
        "Draw one trace: who called through which agent, what was decided and why, how it ended, and its spans.",
    ),
}

_POLICY: Final[Mapping[str, CommandPlace]] = {
    "bundle": _at(
        "command_line.policy_set_commands.policy_bundle",
        "Build bundles of the policy folder DIR for your own OPA: one for the platform, one for each team.",
    ),
    "check": _at(
        "command_line.policy_set_commands.policy_check",
        "Check policies as the sidecar does before it serves them: containment, types, the platform's data.",
    ),
    "init": _at(
        "starting.policy_init",
        "Make the policy folder DIR from nothing: the platform with no world in it, one team, tests and golden cases.",
    ),
    "new": _at(
        "starting.policy_new",
        "Start the folder of TEAM in the policy folder DIR (default: policies): a policy, its tests and its data.",
    ),
    "show": _at(
        "command_line.policy_grants_commands.policy_show",
        "Show everything that one identity could be granted under the policy folder DIR.",
    ),
    "test": _at(
        "command_line.policy_set_commands.policy_test",
        "Run the tests of the policy folder DIR and its golden cases (DIR/cases), and show the coverage of each file.",
    ),
    "who": _at(
        "command_line.policy_grants_commands.policy_who",
        "Show which groups, agents, scopes and issuers reach a place under the policy folder DIR (default: policies).",
    ),
}

_ISSUERS: Final[Mapping[str, CommandPlace]] = {
    "show": _at(
        "command_line.issuers_command.issuers_show",
        "Print the settings that each preset of an issuer stands for.",
    ),
}

_TOKEN: Final[Mapping[str, CommandPlace]] = {
    "explain": _at(
        "command_line.token_command.token_explain",
        "Say what the configured issuers' settings make of the access token on standard input, claim by claim.",
    ),
}


@click.group(cls=_Commands, places=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcp-sidecar")
def cli() -> None:
    """Policy enforcement point in front of the MongoDB MCP server.

    Settings come from SIDECAR_* variables, or from the TOML file that SIDECAR_CONFIG names.
    """


@cli.group(cls=LazyGroup, places=_POLICY)
def policy() -> None:
    """Write policies: start a team's folder, check it, test it, see who is granted what."""


@cli.group(cls=LazyGroup, places=_ISSUERS)
def issuers() -> None:
    """Authorization servers whose tokens are accepted."""


@cli.group(cls=LazyGroup, places=_TOKEN)
def token() -> None:
    """Access tokens."""
