"""The command line: one module for each command or few, of which only those of the command that runs are loaded."""

from sidecar.command_line.programs import find_brought_programs
from sidecar.command_line.root import cli

__all__ = ["cli", "find_brought_programs"]
