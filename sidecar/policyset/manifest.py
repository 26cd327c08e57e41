"""What a bundle's manifest may say: whose roots it has, and which modules it lists.

A manifest is what a bundle claims for itself. OPA holds each to its claims and keeps two from claiming the same; which
claims are whose is decided here, alike for a policy folder, an archive and what an OPA runs.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from sidecar.strict_json import DECODER, DuplicateName, first_duplicate

_TEAM: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""The owners of ``schema/platform.json``."""

_ARCHIVE: Final = ".tar.gz"
"""OPA takes a path with this ending for a bundle, also a folder's; and a bundle without a manifest for the owner of
everything, so loading it empties the data of all others (1.22.2)."""

_NO_TEAM: Final = frozenset({"platform"})
"""``platform`` is the owner of what no team owns; a folder of that name is never asked (``verdicts.rego``)."""

TRUSTED: Final = {"platform": ("mcp/main", "mcp/platform", "mcp/lib"), "system": ("system",)}
"""Roots of the trusted bundles. Where there is no bundle ``system`` its modules are in the platform's."""

LISTING: Final = "modules"
"""The member of a built bundle's ``metadata`` that says the digest of each of its modules."""


_LONGEST_NAME: Final = 80
"""Characters of a name in a finding."""


class NotOneReading(ValueError):
    """A file of a set that is no JSON, or JSON that parsers read differently.

    Args:
        message: what is wrong, in words.
        line: where.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def decode_strictly(content: bytes) -> Any:
    """Read JSON in one way only: the last of two equal names wins in Go, and could hide what was checked.

    Raises:
        NotOneReading: it is no JSON, or has more than one reading.
    """
    text = ""
    try:
        text = content.decode("utf-8", "strict")
        return DECODER.decode(text)
    except DuplicateName:
        name, line = first_duplicate(text) or ("", 1)
        shown = json.dumps(name[:_LONGEST_NAME], ensure_ascii=False)
        raise NotOneReading(f"not strict JSON: the name {shown} occurs twice in one object", line) from None
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise NotOneReading("not strict JSON: duplicate names, NaN and bad nesting included", line) from None


def is_team(name: str) -> bool:
    """Whether this can be the name of a team."""
    return _TEAM.fullmatch(name) is not None and name not in _NO_TEAM and not name.endswith(_ARCHIVE)


def trusted_fault(manifest: Any, bundle: str, bundles: Sequence[str]) -> str:
    """Keep the platform's own bundles where they belong: a root of the teams' there would not be contained.

    Args:
        manifest: the decoded manifest.
        bundle: a key of ``TRUSTED``.
        bundles: the names of all bundles beside it.

    Returns:
        What is wrong, or an empty text.
    """
    ours = TRUSTED[bundle]
    if bundle == "platform" and "system" not in bundles:
        ours += TRUSTED["system"]
    roots = manifest_roots(manifest)
    allowed = [root for root in roots if any(f"{root.removesuffix('_test')}/".startswith(f"{own}/") for own in ours)]
    if not roots or len(allowed) != len(roots):
        return f"the roots of {bundle} must lie in {', '.join(ours)}"
    return ""


def manifest_roots(manifest: Any) -> list[str]:
    """Return the roots that a manifest claims; none where it does not say them as texts."""
    roots = manifest.get("roots") if isinstance(manifest, dict) else None
    return roots if isinstance(roots, list) and all(isinstance(root, str) for root in roots) else []


def listing(modules: Sequence[tuple[str, bytes]]) -> dict[str, str]:
    """Return the digest of each module by its path: what a built bundle's manifest says of its own content.

    OPA names a module by the bundle's name and the path in the archive, and resolves ``..`` in it (1.22.2): an archive
    of one team can put its module in the place of another bundle's. What is missing then is seen by this.
    """
    return {path: f"sha256:{hashlib.sha256(content).hexdigest()}" for path, content in modules}


def listed(manifest: Any) -> dict[str, str] | None:
    """Return the modules that a manifest lists, by path; None where it lists none."""
    metadata = manifest.get("metadata") if isinstance(manifest, dict) else None
    modules = metadata.get(LISTING) if isinstance(metadata, dict) else None
    if not isinstance(modules, dict):
        return None
    return {str(path): str(digest) for path, digest in modules.items()}


def team_fault(manifest: Any, team: str) -> str:
    """Hold a team to exactly its two roots, and to the Rego version that the lint reads.

    Returns:
        What is wrong, or an empty text.
    """
    roots = [f"mcp/grants/{team}", f"mcp/teams/{team}"]
    known = {"roots", "rego_version", "revision", "metadata"}
    if not isinstance(manifest, dict) or not set(manifest) <= known:
        return "a team's manifest has the members roots, rego_version, revision and metadata, and no others"
    if sorted(manifest_roots(manifest)) != roots:
        return f"the team's roots must be {' and '.join(roots)}"
    if manifest.get("rego_version", 1) != 1 or not isinstance(manifest.get("revision", ""), str):
        return "a team's modules are Rego v1, and a revision is a text"
    if "metadata" in manifest and (listed(manifest) is None or set(manifest["metadata"]) != {LISTING}):
        return f"the metadata of a team's manifest is {LISTING}, the digest of each, and nothing else"
    return ""
