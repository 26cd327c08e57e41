"""Policy sets that served, kept by content, so that a record can be explained by the rules of its own time.

One file a set, in a folder of the sidecar's user (0700, each file 0600), named after the revision that records have.
What is read is digested again, so a set counts only where it is the one that its name says. What served longest ago
goes first where there are too many, or too many bytes. Nothing depends on them but explanations: where one cannot be
kept, that is logged, and the set serves.
"""

import contextlib
import logging
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from sidecar.policyset import PolicySet

_LOG: Final = logging.getLogger(__name__)

MOST: Final = 64
"""Sets."""

MOST_BYTES: Final = 64 * 2**20
"""Of all of them together."""

_REVISION: Final = re.compile(r"sha256:([0-9a-f]{32})")
_NAME: Final = re.compile(r"[0-9a-f]{32}\.msgpack")


def policy_sets_of(evidence: Path) -> Path:
    """Return the folder of the sets that decided what a file of evidence has, or what waits in it for its store."""
    return evidence.with_name(f"{evidence.name}.policies")


class _Kept(msgspec.Struct):
    bundles: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]


class KeptPolicySets:
    """Keeps the sets that serve; every method blocks.

    Args:
        folder: made when the first one is kept.
        most: how many are kept.
        most_bytes: and how large they are together.
    """

    def __init__(self, folder: Path, *, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes

    def keep(self, policies: PolicySet) -> None:
        """Keep a set that serves from now on."""
        try:
            path = self._path(policies.revision)
            text = msgspec.msgpack.encode(_Kept(bundles=policies.bundles, files=policies.files))
            if path is None or len(text) > self._most_bytes:
                return
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._put(path, text)
            self._make_room(path)
        except OSError as error:
            _LOG.warning(
                "the policy set is not kept, so its decisions cannot be explained later",
                extra={"path": str(self._folder), "error": error.strerror or str(error)},
            )

    def find(self, revision: str) -> PolicySet | None:
        """Return the set of a revision; None where it is not kept, or is not that set."""
        path = self._path(revision)
        if path is None:
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(fd, "rb") as file:  # noqa: PTH123 - of a descriptor
                text = file.read(self._most_bytes + 1)
            kept = msgspec.msgpack.decode(text, type=_Kept)
        except (OSError, msgspec.DecodeError):
            return None
        found = PolicySet(bundles=kept.bundles, files=kept.files)
        return found if found.revision == revision else None

    def _path(self, revision: str) -> Path | None:
        match = _REVISION.fullmatch(revision)
        return None if match is None else self._folder / f"{match[1]}.msgpack"

    def _put(self, path: Path, text: bytes) -> None:
        """Write the file, or note that the set serves again."""
        with contextlib.suppress(OSError):
            if path.lstat().st_size == len(text) and path.read_bytes() == text:
                os.utime(path)
                return
        beside = path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(text)
        beside.replace(path)

    def _make_room(self, newest: Path) -> None:
        """Remove what served longest ago until the rest is within the bounds."""
        kept = {
            Path(entry.path): entry.stat(follow_symlinks=False)
            for entry in os.scandir(self._folder)
            if _NAME.fullmatch(entry.name)
        }
        number, size = len(kept), sum(status.st_size for status in kept.values())
        for path in sorted(kept, key=lambda one: kept[one].st_mtime_ns):
            if number <= self._most and size <= self._most_bytes:
                return
            if path != newest:
                path.unlink()
                number, size = number - 1, size - kept[path].st_size
