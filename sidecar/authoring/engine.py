"""OPA's command line on one policy folder, limited in time and memory as the OPA that serves is."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.model import JsonValue
from sidecar.policyset import CHECK_MEMORY_BYTES, OpaCommand, PolicySet, installed
from sidecar.printing import printable

_LIMIT_S: Final = 120.0


class Engine:
    """Asks OPA about one policy folder, where it lies.

    Args:
        opa: the executable, with the limits of a check.
        home: private folder of this user, OPA's own.
        folder: the policy folder.
        policies: what the folder held when it was read.
    """

    def __init__(self, opa: OpaCommand, home: Path, folder: Path, policies: PolicySet) -> None:
        self._opa = opa
        self._home = home
        self.folder = folder
        self.policies = policies

    async def run(self, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
        """Run one OPA command inside the folder; return its status and everything that it printed.

        Raises:
            ConfigurationError: it cannot be run, or does not end.
        """
        return await self._opa.run(*arguments, folder=self.folder, home=self._home, timeout_s=_LIMIT_S, stdin=stdin)

    async def evaluate(self, query: str, document: JsonValue, *options: str) -> dict[str, Any]:
        """Evaluate a query under strict builtin errors; return OPA's whole answer.

        Raises:
            ConfigurationError: the set does not compile, or the evaluation ends in an error.
        """
        bundles = [part for bundle in self.policies.bundles for part in ("-b", bundle)]
        flags = ("--format", "json", "--ignore", "*_test.rego", "--strict-builtin-errors", "--stdin-input")
        stdin = msgspec.json.encode(document)
        status, output = await self.run("eval", *flags, *options, *bundles, query, stdin=stdin)
        try:
            answer = msgspec.json.decode(output)
        except msgspec.DecodeError:
            answer = None
        if status != 0 or not isinstance(answer, dict):
            raise ConfigurationError(f"OPA cannot evaluate this: {_error_text(answer, output)}")
        return answer

    async def value(self, query: str, document: JsonValue, *options: str) -> JsonValue:
        """Return the value of a query that is one term; None where it is undefined.

        Raises:
            ConfigurationError: as for ``evaluate``.
        """
        result = (await self.evaluate(query, document, *options)).get("result")
        if not result:
            return None
        value: JsonValue = result[0]["expressions"][0]["value"]
        return value

    def lines(self, file: str) -> list[str]:
        """Return the lines of a file of the set; none where the set has no such file."""
        for path, content in (*self.policies.files, *self.policies.aside):
            if path == file:
                return content.decode("utf-8", "replace").splitlines()
        return []


def _error_text(answer: Any, output: bytes) -> str:
    errors = answer.get("errors") if isinstance(answer, dict) else None
    if not isinstance(errors, list) or not errors:
        return printable(output)
    first = errors[0]
    place = first.get("location") or {}
    where = f"{place.get('file')}:{place.get('row')}: " if place.get("file") else ""
    return printable(f"{where}{first.get('message')}".encode())


@asynccontextmanager
async def engine(binary: str, folder: Path) -> AsyncIterator[Engine]:
    """Read a policy folder and hold an OPA ready for it.

    Raises:
        ConfigurationError: there is no such executable, or it is no policy folder.
    """
    path = await asyncio.to_thread(installed, binary, advice="; name one with --opa")
    policies = await asyncio.to_thread(PolicySet.read, folder)
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-author-") as directory:
        opa = OpaCommand(binary=path, memory_limit_bytes=CHECK_MEMORY_BYTES)
        yield Engine(opa, Path(directory), folder, policies)


def shipped() -> Path:
    """Return the policy folder that came with this version: in the package, or beside it in its source."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "_policies"
    return inside if inside.is_dir() else package.parent / "policies"
