"""Where the heads of an audit file are published: the log, and a file beside it.

The log is what counts: it leaves the machine. The file is for ``audit verify``, which then needs no log; who can cut
the audit file can cut this one too, which is why each checkpoint is also logged, and can be signed.
"""

import contextlib
import json
import logging
import os
from pathlib import Path
from typing import Final

from sidecar.audit import BadCheckpoint, BadKey, Checkpoint, CheckpointSigner, read_checkpoint
from sidecar.errors import ConfigurationError
from sidecar.store.audit_segments import checkpoints_of
from sidecar.system import FollowedFiles

_LOG: Final = logging.getLogger(__name__)

LONGEST: Final = 4 << 20
"""Bytes, some 12,000 checkpoints; then every second of the periodic ones is dropped."""

_LONGEST_KEY: Final = 16_384
_MEANT_TO_STAY: Final = frozenset({"rotation", "end"})


class Checkpoints:
    """Publishes the heads of one audit file.

    Args:
        path: the audit file.
        signer: signs them, where they are signed.
    """

    def __init__(self, path: Path, signer: CheckpointSigner | None = None) -> None:
        self._audit = path
        self._path = checkpoints_of(path)
        self._signer = signer
        self._failing = False
        self.last = 0
        """Number of the record that was published last."""

    def publish(self, checkpoint: Checkpoint) -> None:
        """Log one head and keep it. A file that cannot be written is logged, and refuses no call."""
        self.last = checkpoint.seq
        if self._signer is not None:
            checkpoint = self._signer.sign(checkpoint)
        document = checkpoint.document()
        _LOG.info("audit checkpoint", extra={"checkpoint": document, "path": str(self._audit)})
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        try:
            self._keep(line)
        except OSError as error:
            if not self._failing:
                _LOG.error(
                    "the file of checkpoints cannot be written",
                    extra={"path": str(self._path), "error": error.strerror or str(error)},
                )
            self._failing = True
        else:
            self._failing = False

    def newest(self) -> Checkpoint | None:
        """Return the checkpoint with the highest number that is kept, if there is one that can be read."""
        with contextlib.suppress(OSError):
            found, _ = read_checkpoints(self._path)
            return max(found, key=lambda each: each.seq, default=None)
        return None

    def _keep(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(fd).st_size + len(line) <= LONGEST:
                os.write(fd, line)
                return
        finally:
            os.close(fd)
        self._thin(line)

    def _thin(self, line: bytes) -> None:
        found, _ = read_checkpoints(self._path)
        kept = [each for number, each in enumerate(found) if number % 2 == 0 or each.why in _MEANT_TO_STAY]
        kept = kept[-len(found) // 2 :] if len(kept) == len(found) else kept
        text = b"".join(json.dumps(each.document(), separators=(",", ":")).encode() + b"\n" for each in kept) + line
        beside = self._path.with_name(f"{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.write(text)
        beside.replace(self._path)


def read_checkpoints(path: Path) -> tuple[list[Checkpoint], int]:
    """Read a file of checkpoints, one a line, also as they are logged.

    Returns:
        The checkpoints, and how many lines are none.

    Raises:
        OSError: it cannot be read.
    """
    found, foreign = [], 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                found.append(read_checkpoint(line))
            except BadCheckpoint:
                foreign += bool(line.strip())
    return found, foreign


class SigningKeyFile(FollowedFiles[bytes]):
    """The private key that checkpoints are signed with.

    Args:
        path: the file.

    Raises:
        ConfigurationError: it cannot be read, or is no Ed25519 key.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("audit.signing_key_file", [path], lambda: _key(path))
        self.signer = CheckpointSigner(self.value)
        """Signs with the key as it is now; with the last good one where the file is damaged."""
        self.taken_up = self.signer.take_up


def _key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            pem = file.read(_LONGEST_KEY)
        CheckpointSigner(pem)
    except OSError as error:
        raise ConfigurationError(f"audit.signing_key_file: {path}: {error.strerror}") from None
    except BadKey as error:
        raise ConfigurationError(f"audit.signing_key_file: {path}: {error}") from None
    return pem
