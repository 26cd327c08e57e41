"""Writes the bill of materials of a release (CycloneDX 1.6, JSON): Python, npm and Go parts, from the lock files.

``python tools/sbom.py --opa OPA`` prints it. The Go modules are those that OPA's own executable names (``go version
-m``), which needs Go; without ``--opa`` they are left out. The same inputs give the same bytes: no time, no random
serial number. Needs the standard library only, so that a release can run it before anything is installed.
"""

import argparse
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON_LOCK: Final = ROOT / "deploy" / "requirements.lock"
NPM_LOCKS: Final = (ROOT / "parts" / "package-lock.json",)
"""Of what an image and `mcp-sidecar setup` install; the demo's own parts are no part of a release."""

_ENTRY: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_MODULE: Final = re.compile(r"\t(?:mod|dep)\t(?P<name>\S+)\t(?P<version>\S+)")

Component = dict[str, Any]


def main() -> int:
    """Print the bill of materials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opa", type=Path, help="the OPA executable whose Go modules are listed")
    given = parser.parse_args()
    sys.stdout.write(json.dumps(bill(given.opa), indent=2, sort_keys=True) + "\n")
    return 0


def bill(opa: Path | None = None) -> dict[str, Any]:
    """Return the whole document."""
    components = [*python_components(PYTHON_LOCK.read_text(encoding="utf-8"))]
    for lock in NPM_LOCKS:
        components += npm_components(json.loads(lock.read_bytes()))  # noqa: TID251 - a lock file of this repository
    if opa is not None:
        printed = subprocess.run(
            ["go", "version", "-m", str(opa)], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        components += go_components(printed)
    by_reference = {one["bom-ref"]: one for one in components}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", **_named("pypi", "mcp-sidecar", own_version())}},
        "components": [by_reference[reference] for reference in sorted(by_reference)],
    }


def own_version() -> str:
    """Return the version of the package that is released."""
    source = (ROOT / "sidecar" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"', source, re.MULTILINE)
    if found is None:
        raise ValueError("sidecar/__init__.py has no __version__")
    return found[1]


def python_components(lock: str) -> Iterator[Component]:
    """Yield the packages of a lock file in the form of pip, with the digests that it allows."""
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        named = _ENTRY.match(entry)
        if named is None:
            continue
        # Each file of a version has a digest of its own, and none of them is the component's.
        name = re.sub(r"[-_.]+", "-", named["name"]).lower()
        allowed = [{"name": "lock:sha256", "value": digest} for digest in re.findall(r"sha256:([0-9a-f]{64})", entry)]
        yield {"type": "library", **_named("pypi", name, named["version"]), "properties": allowed}


def npm_components(lock: dict[str, Any]) -> Iterator[Component]:
    """Yield the packages of npm's lock file, each with its digest; those for development only are left out."""
    for place, entry in lock["packages"].items():
        if not place or entry.get("dev"):
            continue
        name = place.rpartition("node_modules/")[2]
        algorithm, _, digest = entry["integrity"].partition("-")
        content = base64.b64decode(digest, validate=True).hex()
        hashes = [{"alg": {"sha512": "SHA-512", "sha1": "SHA-1"}[algorithm], "content": content}]
        licence = entry.get("license")
        licences = {"licenses": [{"expression": licence}]} if isinstance(licence, str) and " " not in licence else {}
        yield {"type": "library", **_named("npm", name, entry["version"]), "hashes": hashes, **licences}


def go_components(printed: str) -> Iterator[Component]:
    """Yield the modules that ``go version -m`` prints of an executable, and the Go that it was built with."""
    built = re.match(r".*?: go(?P<version>\S+)\n", printed)
    if built is None:
        raise ValueError("the executable does not say which Go built it")
    yield {"type": "library", **_named("golang", "stdlib", built["version"])}
    for module in _MODULE.finditer(printed):
        yield {"type": "library", **_named("golang", module["name"], module["version"])}


def _named(kind: str, name: str, version: str) -> dict[str, str]:
    """Return what identifies a component (package URL specification: a scope's @ is encoded, slashes are not)."""
    reference = f"pkg:{kind}/{quote(name, safe='/')}@{quote(version, safe='')}"
    return {"bom-ref": reference, "purl": reference, "name": name, "version": version}


if __name__ == "__main__":
    sys.exit(main())
