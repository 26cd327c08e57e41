"""Groups whose commands are loaded when they run (click's documentation: Lazily Loading Subcommands).

Loading every command takes a second of CPU, and one runs at a time. The help and the completion of a group need no
command either: the line that each shows of a command stands in its table.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem
from typing_extensions import override

from sidecar.interrupts import EndedByInterrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPlace:
    """Where a command is defined, and what it does in a line."""

    module: str
    name: str
    """Of the command in its module."""
    line: str
    """The first sentence of its help."""


class LazyGroup(click.Group):
    """A group that knows where its commands are.

    Args:
        places: the commands by name.
    """

    def __init__(self, *args: Any, places: Mapping[str, CommandPlace], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places = places

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*self.places, *super().list_commands(ctx)})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if (known := super().get_command(ctx, cmd_name)) is not None or cmd_name not in self.places:
            return known
        place = self.places[cmd_name]
        with EndedByInterrupt():
            command = getattr(importlib.import_module(place.module), place.name)
        if not isinstance(command, click.Command):
            msg = f"{place.module}.{place.name} is no command"
            raise TypeError(msg)
        self.add_command(command, cmd_name)
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Look a command up; one that is not there is told with the names of those that are most like it."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            raise click.exceptions.NoSuchCommand(
                error.command_name, possibilities=self.list_commands(ctx), ctx=ctx
            ) from None

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._line(name, limit)) for name in names])

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [
            CompletionItem(name, help=self._line(name))
            for name in self.list_commands(ctx)
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def _line(self, name: str, limit: int = 45) -> str:
        """Return what click would show of a command, without the command."""
        place = self.places.get(name)
        command = self.commands[name] if place is None else click.Command(name, help=place.line)
        return command.get_short_help_str(limit)
