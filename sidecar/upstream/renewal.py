"""What a child is started from, and when it has changed: its program, and the files that its secrets are in.

By looking, as everywhere (``sidecar.policyset.folder_changes`` says why). A change counts once the files were the same
at two looks: a program is installed, and a secret written, in several steps.
"""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.system import stamps

Environment = Callable[[], Mapping[str, str]]
"""Reads the files and returns the environment of a child.

Raises:
    ConfigurationError: a file cannot be read, or holds what cannot be used.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """How what a child is started from is read again."""

    environment: Environment | None = None
    """None where it is read from no files."""
    files: Collection[Path] = ()
    """Those that ``environment`` reads."""
    look_s: float = 2.0
    """How often they and the program are looked at."""


class ChildSource:
    """The program of a child and the files that its environment is read from.

    Args:
        command: as it is started.
        environment: the environment that it is started with.
        renewal: how it is read again.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], renewal: Renewal) -> None:
        self._command = tuple(command)
        self._renewed = renewal.environment
        self._files = tuple(renewal.files)
        self.look_s = renewal.look_s
        """How often to look."""
        self.environment = dict(environment)
        """What children are started with now."""
        self._taken = self._last = self._stamps()

    def changed(self) -> bool:
        """Whether the files are other ones than those taken up last, and were so at the last look too. Blocking."""
        now = self._stamps()
        at_rest, self._last = now == self._last, now
        return at_rest and now != self._taken

    def read(self) -> tuple[dict[str, str], bool]:
        """Return the environment as it is now, and whether a child of it would differ from the present one. Blocking.

        Raises:
            ConfigurationError: a file cannot be read, or holds what cannot be used.
        """
        environment = dict(self._renewed()) if self._renewed is not None else self.environment
        return environment, environment != self.environment or self._last[0] != self._taken[0]

    def take_up(self, environment: Mapping[str, str]) -> None:
        """Start children with this from now on: the files as they were at the last look are in force."""
        self.environment = dict(environment)
        self._taken = self._last

    def _stamps(self) -> tuple[tuple[object, ...], tuple[object, ...]]:
        return stamps(_program(self._command, self.environment)), stamps(self._files)


def _program(command: Sequence[str], environment: Mapping[str, str]) -> Collection[Path]:
    """Return the files of the program: the executable and, behind an interpreter, its script."""
    executable = shutil.which(command[0], path=environment.get("PATH"))
    script = Path(command[1]) if len(command) > 1 and Path(command[1]).is_absolute() else None
    return [*([Path(executable)] if executable else []), *([script] if script is not None else [])]
