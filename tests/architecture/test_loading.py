"""A command loads what it runs: the names of modules say so, not the time that they take."""

import subprocess
import sys
from collections.abc import Iterator

import click
import msgspec
import pytest

from sidecar.command_line import cli
from sidecar.command_line.lazy_group import LazyGroup

SERVING = frozenset({
    *("aiohttp", "pymongo", "opentelemetry", "prometheus_client", "opa_client", "requests", "jwt", "psutil"),
    *("pydantic", "pydantic_settings", "sidecar.settings", "sidecar.app", "sidecar.demo", "sidecar.doctor"),
})  # fmt: skip
"""What only a process that serves, or that reads settings, needs."""

SWITCHED_ON = frozenset({"opa_client", "requests", "google.protobuf", "opentelemetry.exporter.otlp"})
"""What serves only where the settings say so: an OPA of others, an exporter."""

SLOW = SERVING | {"rich", "asyncio", "uvloop", "msgspec", "sidecar.authoring", "sidecar.policyset", "sidecar.model"}
"""What is also too slow for a command that only says what there is."""

PROBE = """
import json, sys
sys.argv[0] = "mcp-sidecar"
from sidecar.__main__ import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*arguments: str) -> frozenset[str]:
    """Return the names of the modules that a command has loaded when it ends."""
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, check=False)
    return frozenset(msgspec.json.decode(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["policy", "--help"]], ids=" ".join)
def test_what_only_says_what_there_is_loads_nothing_that_is_slow(arguments: list[str]) -> None:
    assert loaded(*arguments) & SLOW == frozenset()


@pytest.mark.parametrize(
    ("arguments", "besides"),
    [
        (["policy", "check", "--help"], []),
        (["policy", "test", "--help"], []),
        (["policy", "show", "--help"], []),
        (["policy", "who", "--help"], []),
        (["policy", "bundle", "--help"], []),
        (["policy", "new", "--help"], []),
        (["decide", "--help"], []),
        (["inspect", "/dev/null"], []),
        (["audit", "verify", "--help"], []),
        (["audit", "query", "--help"], []),
        (["suspend", "--help"], []),
        (["issuers", "show"], []),
        (["approvals", "list", "--help"], ["jwt", "aiohttp"]),
        (["client-config", "--help"], ["jwt", "aiohttp", "pydantic", "pydantic_settings", "sidecar.settings"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_a_command_loads_nothing_of_what_serves(arguments: list[str], besides: list[str]) -> None:
    assert loaded(*arguments) & SERVING <= set(besides)


def test_what_serves_would_be_seen() -> None:
    there = loaded("serve", "--help")
    assert {"aiohttp", "pymongo", "opentelemetry", "pydantic", "sidecar.app"} <= there
    assert there & SWITCHED_ON == frozenset()


def groups(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], LazyGroup]]:
    if isinstance(group, LazyGroup):
        yield names, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from groups(command, *names, name)


GROUPS = dict(groups(cli))


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: " ".join(names) or "mcp-sidecar")
def test_the_line_of_a_command_that_is_not_loaded_is_that_of_its_help(names: tuple[str, ...]) -> None:
    group, other = GROUPS[names], click.Group("plain")
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        other.add_command(command, name)
    for width in (60, 80, 400):
        lazy, plain = click.HelpFormatter(width=width), click.HelpFormatter(width=width)
        group.format_commands(context, lazy)
        other.format_commands(click.Context(other), plain)
        assert lazy.getvalue() == plain.getvalue()
    for typed in ("", *group.list_commands(context)[0][:1]):
        shown = [(item.value, item.help) for item in group.shell_complete(context, typed)]
        assert shown == [(item.value, item.help) for item in other.shell_complete(click.Context(other), typed)]


def test_a_misspelt_command_is_told_with_the_one_that_was_meant() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "decid"], capture_output=True, text=True, check=False, env={"COLUMNS": "200"}
    )
    assert done.returncode == 2
    assert "No such command 'decid'." in done.stderr
    assert "decide" in done.stderr
