"""Bundles for an external OPA: one for the platform, one for each team, each with its own revision.

The set is vetted as a whole first, so that what is built is what a managed OPA would serve. The archives are written
here and not by ``opa build``: that compiles each bundle by itself, and in a team's there is no ``data.mcp.lib``
("undefined function data.mcp.lib.on", 1.22.2). OPA signs (``opa sign``), loads and verifies them. The same set gives
the same bytes.
"""

import asyncio
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.policyset.folder import MANIFEST, TEAMS, PolicySet
from sidecar.policyset.manifest import LISTING, listing
from sidecar.policyset.workshop import workshop
from sidecar.system import in_thread

PLATFORM: Final = "platform"
SIGNING_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Those with a private key in a file: an HMAC secret would stand on ``opa sign``'s command line for all to read."""

_SIGNATURES: Final = ".signatures.json"
_DATA: Final = "data.json"
_TRUSTED: Final = ("platform", "system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One bundle: files by their path in the archive, the manifest among them."""

    name: str
    """``platform``, or ``teams/<team>``; the archive is ``<name>.tar.gz``."""
    revision: str
    """Digest of the content, as the revision of a set is. The manifest also has the digest of each module."""
    files: tuple[tuple[str, bytes], ...]


def divide(policies: PolicySet) -> Iterator[Bundle]:
    """Divide a vetted set into its bundles. Tests, schemas and capabilities stay behind.

    Raises:
        ConfigurationError: the system's folder holds data, which no bundle root is for.
    """
    content = dict(policies.files)
    yield _bundle(PLATFORM, _trusted_files(policies), [content[f"{part}/{MANIFEST}"] for part in _TRUSTED])
    for team in policies.teams:
        prefix = f"{TEAMS}{team}/"
        files = [(path.removeprefix(prefix), text) for path, text in policies.files if path.startswith(prefix)]
        yield _bundle(f"{TEAMS}{team}", [file for file in files if file[0] != MANIFEST], [content[prefix + MANIFEST]])


def _trusted_files(policies: PolicySet) -> list[tuple[str, bytes]]:
    """The platform and the system in one bundle, each in its folder; only data has to lie at the top."""
    found = []
    for path, content in policies.files:
        part, _, rest = path.partition("/")
        if part not in _TRUSTED or rest == MANIFEST:
            continue
        if part == "system" and path.endswith((".json", ".yaml", ".yml")):
            raise ConfigurationError(f"{path}: the system's folder holds modules only")
        found.append((rest if rest == _DATA else path, content))
    return found


def _bundle(name: str, files: list[tuple[str, bytes]], manifests: Sequence[bytes]) -> Bundle:
    roots = [root for manifest in manifests for root in json.JSONDecoder().decode(manifest.decode())["roots"]]
    revision = PolicySet(bundles=(), files=tuple(sorted(files))).revision
    modules = listing([(path, content) for path, content in sorted(files) if path.endswith(".rego")])
    manifest = {"revision": revision, "roots": sorted(roots), "rego_version": 1, "metadata": {LISTING: modules}}
    return Bundle(
        name=name, revision=revision, files=tuple(sorted([*files, (MANIFEST, json.dumps(manifest).encode())]))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """How bundles are signed."""

    key: Path
    """PEM file of the private key, as an absolute path."""
    algorithm: str = "RS256"


async def build(
    folder: Path, out: Path, binary: str, *, signing: SigningKey | None = None, only: Sequence[str] = ()
) -> list[Bundle]:
    """Vet a policy folder and write its bundles below ``out``.

    Args:
        folder: the policy folder.
        out: where ``platform.tar.gz`` and ``teams/<team>.tar.gz`` are written; each replaces its predecessor at once.
        binary: the OPA executable.
        signing: sign every bundle that is written.
        only: names of the bundles to write, such as ``teams/red`` with red's own key; all by default.

    Raises:
        ConfigurationError: the set must not be served, there is no such bundle, or it cannot be signed or written.
    """
    policies = await asyncio.to_thread(PolicySet.read, folder)
    async with workshop(binary) as checker:
        await checker.vet(policies)
        bundles = [bundle for bundle in divide(policies) if not only or bundle.name in only]
        if unknown := set(only) - {bundle.name for bundle in bundles}:
            raise ConfigurationError(f"there is no bundle {', '.join(sorted(unknown))}")
        for bundle in bundles:
            files = bundle.files
            if signing is not None:
                signed = await checker.sign(PolicySet(bundles=(), files=files), signing.key, signing.algorithm)
                files = (*files, (_SIGNATURES, signed))
            await in_thread(_write, out / f"{bundle.name}.tar.gz", archive(files))
    return bundles


def archive(files: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a gzipped tar archive that depends on the files alone: no times, no owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted(files):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_bytes(content)
        fresh.replace(file)  # a file server never hands out half of one
    except OSError as error:
        raise ConfigurationError(f"the bundle cannot be written: {error}") from error
