"""A policy folder as one immutable value: what OPA will load, read once, with the digest that names it.

Reading once is what makes a decision and its revision belong together. OPA is started on a private copy of exactly the
bytes that were digested, so an edit between digest and load, or before a restart after a crash, changes nothing: the
set that was checked keeps serving. The layout is that of ``policies/README.md``: bundles ``platform``, ``system`` and
``teams/*``, each with a manifest.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigurationError

_LOADED_NAMES = frozenset({".manifest", ".signatures.json", "data.json", "data.yaml", "data.yml"})
"""What OPA's bundle loader reads besides modules (``v1/bundle/bundle.go``, 1.22.2)."""

_MANIFEST = ".manifest"
CAPABILITIES = "capabilities.json"
_REVISION_DIGITS = 32
"""128 bits of SHA-256. Whoever writes policies could make two sets that share 64 bits in 2^32 tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The files of one policy set.

    ``bundles`` are folders relative to the root, in loading order; ``files`` are (POSIX path, content), sorted. Beside
    what the bundles hold there is ``capabilities.json``, the builtin functions that modules may use: ``opa check``
    reads it, and it is part of what the revision names.
    """

    bundles: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]

    @property
    def revision(self) -> str:
        """``sha256:`` and 32 hexadecimal digits over the path and content of every file."""
        digest = hashlib.sha256()
        for path, content in self.files:
            for part in (path.encode(), content):
                # Lengths first, so that no two sets of files are one sequence of bytes.
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return f"sha256:{digest.hexdigest()[:_REVISION_DIGITS]}"

    @classmethod
    def read(cls, root: Path) -> "PolicySet":
        """Read the set below ``root``. Blocking file access.

        Tests and hidden entries are left out, so a mounted ConfigMap (``..data``) loads once. Links to files are
        followed; a linked folder inside a bundle is refused, because leaving it out could lose a ``deny``.

        Raises:
            ConfigurationError: not a policy folder, no list of capabilities, or a file cannot be read.
        """
        try:
            bundles = tuple(_bundles(root))
            loaded = [entry for bundle in bundles for entry in _files(root, bundle)]
            capabilities = (CAPABILITIES, (root / CAPABILITIES).read_bytes())
        except OSError as error:
            raise ConfigurationError(f"the policy folder is not readable: {error}") from error
        return cls(bundles=bundles, files=tuple(sorted((capabilities, *loaded))))

    def write(self, directory: Path) -> None:
        """Write the set below ``directory``, readable by this user only. Blocking file access."""
        for path, content in self.files:
            target = directory / path
            for folder in reversed(Path(path).parents):
                (directory / folder).mkdir(mode=0o700, exist_ok=True)
            target.touch(mode=0o600)
            target.write_bytes(content)


def _bundles(root: Path) -> Iterator[str]:
    teams = root / "teams"
    folders = sorted(entry.name for entry in teams.iterdir() if _is_visible_folder(entry)) if teams.is_dir() else []
    for bundle in ("platform", "system", *(f"teams/{name}" for name in folders)):
        if not (root / bundle / _MANIFEST).is_file():
            # OPA takes a bundle without a manifest as the owner of everything.
            raise ConfigurationError(f"the policy folder has no {bundle}/{_MANIFEST}")
        yield bundle


def _is_visible_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _files(root: Path, bundle: str) -> Iterator[tuple[str, bytes]]:
    for folder, folders, names in os.walk(root / bundle, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                raise ConfigurationError(f"the policy folder has a linked folder: {(here / name).relative_to(root)}")
        for name in filter(_is_loaded, names):
            yield (here / name).relative_to(root).as_posix(), (here / name).read_bytes()


def _raise(error: OSError) -> None:
    """Fail on an unreadable folder, which ``os.walk`` would leave out."""
    raise error


def _is_loaded(name: str) -> bool:
    module = name.endswith(".rego") and not name.endswith("_test.rego") and not name.startswith(".")
    return module or name in _LOADED_NAMES
