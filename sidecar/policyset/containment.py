"""What a team's folder may hold: the control that keeps one team's policy out of everybody else's decisions.

OPA lets every module read and extend everything that is loaded beside it. What a team may write is therefore decided
before OPA serves it, on the bytes that it will serve: packages and data below the team's own roots, and modules that
refer to nothing else (``sidecar.policyset.module_lint``).

Closed on purpose: a file or a manifest member that is not known here is refused. The platform's and the system's
folders are trusted, and must be where they belong. The same rules judge a folder, archives
(``sidecar.policyset.bundle_reader``) and what an OPA runs (``sidecar.opa.external_inventory``).
"""

from collections.abc import Iterator
from typing import Any, Final

from sidecar.policyset.finding import Rule, Violation
from sidecar.policyset.folder import MANIFEST, SCHEMAS, TEAMS, PolicySet
from sidecar.policyset.manifest import (
    TRUSTED,
    NotOneReading,
    decode_strictly,
    is_team,
    listed,
    listing,
    team_fault,
    trusted_fault,
)
from sidecar.policyset.module_lint import RESERVED_IDS, reserved_message

MAX_MODULE_BYTES: Final = 256 * 2**10
MAX_TEAM_RULES_BYTES: Final = 2**20
"""All modules of one team, tests included: 100 teams compile within the memory of one check."""
MAX_TEAM_DATA_BYTES: Final = 2 * 2**20
"""OPA takes about twenty times that in memory (measured by OPA's own documentation: 8 MB → 160 MB)."""
MAX_TEAM_FILES: Final = 256
MAX_DATA_DEPTH: Final = 32


def misplaced(policies: PolicySet) -> Iterator[Violation]:
    """Find what is in the wrong place, by names, manifests and data alone."""
    for path, fault in policies.strays:
        yield Violation(file=path, line=1, rule=Rule.FILE, message=f"{path.rpartition('/')[2]} {fault}")
    for path, _ in (*policies.files, *policies.aside):
        if not path.isprintable():
            # One that is not UTF-8 is read with half surrogate pairs in it (``os.fsdecode``), which no text may have.
            message = "the name of the file or of its folder has characters that do not print"
            yield Violation(file=path, line=1, rule=Rule.FILE_NAME, message=message)
    for path, content in (*policies.files, *policies.aside):
        yield from _trusted_json(path, content)
    for bundle in policies.bundles:
        if bundle in TRUSTED:
            yield from _trusted(policies, bundle)
    for team in policies.teams:
        if not is_team(team):
            message = f"{team!r} cannot be a team's name"
            yield Violation(file=f"{TEAMS}{team}/{MANIFEST}", line=1, rule=Rule.TEAM_NAME, message=message)
        yield from _team_files(policies, team)


def _trusted_json(path: str, content: bytes) -> Iterator[Violation]:
    """Read what is not a team's as strictly: of two tables of one name OPA keeps the last, and what refuses is lost."""
    folder, _, name = path.rpartition("/")
    if path.startswith(TEAMS) or name == MANIFEST:
        return
    if folder != SCHEMAS and name.endswith((".yaml", ".yml")):
        message = f"{name}: YAML has more than one reading of the same text; write data.json"
        yield Violation(file=path, line=1, rule=Rule.FILE, message=message)
    elif name.endswith(".json") and not name.startswith("."):
        try:
            decode_strictly(content)
        except NotOneReading as error:
            yield Violation(file=path, line=error.line, rule=Rule.DATA, message=str(error))


def _trusted(policies: PolicySet, bundle: str) -> Iterator[Violation]:
    file, line = f"{bundle}/{MANIFEST}", 1
    try:
        manifest = decode_strictly(dict(policies.files).get(file, b""))
    except NotOneReading as error:
        message, line = str(error), error.line
    else:
        message = trusted_fault(manifest, bundle, policies.bundles)
        if not message and not _as_listed(policies, bundle, manifest):
            message = _OTHER_MODULES
    if message:
        yield Violation(file=file, line=line, rule=Rule.MANIFEST, message=message)


_OTHER_MODULES: Final = "the bundle holds other modules than its manifest lists"


def _as_listed(policies: PolicySet, bundle: str, manifest: Any) -> bool:
    said = listed(manifest)
    files = [(path.removeprefix(f"{bundle}/"), content) for path, content in policies.files if _is_in(path, bundle)]
    return said is None or said == listing([(path, content) for path, content in files if path.endswith(".rego")])


def _is_in(path: str, bundle: str) -> bool:
    return path.startswith(f"{bundle}/")


def _team_files(policies: PolicySet, team: str) -> Iterator[Violation]:
    folder = f"{TEAMS}{team}/"
    files = [(path, content) for path, content in (*policies.files, *policies.aside) if path.startswith(folder)]
    sizes = {
        "modules": (sum(len(content) for path, content in files if path.endswith(".rego")), MAX_TEAM_RULES_BYTES),
        "data": (sum(len(content) for path, content in files if path.endswith(".json")), MAX_TEAM_DATA_BYTES),
    }
    for what, (size, limit) in sizes.items():
        if size > limit:
            message = f"the team's {what} have {size} bytes, {limit} are allowed"
            yield Violation(file=f"{folder}{MANIFEST}", line=1, rule=Rule.SIZE, message=message)
    if len(files) > MAX_TEAM_FILES:
        message = f"the team has {len(files)} files, {MAX_TEAM_FILES} are allowed"
        yield Violation(file=f"{folder}{MANIFEST}", line=1, rule=Rule.SIZE, message=message)
    for path, content in files:
        yield from _team_file(policies, team, path, content)


def _team_file(policies: PolicySet, team: str, path: str, content: bytes) -> Iterator[Violation]:
    match path.rpartition("/")[2]:
        case ".manifest":
            yield from _team_manifest(policies, team, path, content)
        case "data.json":
            yield from _team_data(team, path, content)
        case name if name.endswith(".rego"):
            if len(content) > MAX_MODULE_BYTES:
                message = f"a module has {len(content)} bytes, {MAX_MODULE_BYTES} are allowed"
                yield Violation(file=path, line=1, rule=Rule.SIZE, message=message)
        case name:
            # YAML has more than one reading of the same text, and a signature belongs to a built bundle.
            message = f"{name} has no place in a team's folder (*.rego, data.json, .manifest)"
            yield Violation(file=path, line=1, rule=Rule.FILE, message=message)


def _team_manifest(policies: PolicySet, team: str, path: str, content: bytes) -> Iterator[Violation]:
    line = 1
    try:
        manifest = decode_strictly(content)
    except NotOneReading as error:
        message, line = str(error), error.line
    else:
        message = team_fault(manifest, team)
        if path != f"{TEAMS}{team}/{MANIFEST}":
            message = "a manifest belongs at the top of the team's folder"
        elif not message and not _as_listed(policies, f"{TEAMS}{team}", manifest):
            message = _OTHER_MODULES
    if message:
        yield Violation(file=path, line=line, rule=Rule.MANIFEST, message=message)


def _team_data(team: str, path: str, content: bytes) -> Iterator[Violation]:
    """Hold data to ``mcp.grants.<team>``; a file in a subfolder is data at that path (OPA's bundle format)."""
    try:
        document = decode_strictly(content)
    except NotOneReading as error:
        yield Violation(file=path, line=error.line, rule=Rule.DATA, message=str(error))
        return
    for name in reversed(path.split("/")[2:-1]):
        document = {name: document}
    message = ""
    for depth, name in enumerate(("mcp", "grants", team)):
        if not isinstance(document, dict) or not set(document) <= {name}:
            place = ".".join(("data", "mcp", "grants")[: depth + 1])
            message = f"a team's data lies below mcp.grants.{team}, and nowhere else below {place}"
            break
        document = document.get(name, {})
    else:
        if not isinstance(document, dict):
            message = f"mcp.grants.{team} must be an object"
        elif _depth(document) > MAX_DATA_DEPTH:
            message = f"the data is nested deeper than {MAX_DATA_DEPTH}"
        elif reserved := next(_reserved_ids(document), ""):
            yield Violation(file=path, line=1, rule=Rule.RESERVED, message=reserved_message(reserved))
    if message:
        yield Violation(file=path, line=1, rule=Rule.DATA, message=message)


def _reserved_ids(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            identifier = node.get("id")
            if isinstance(identifier, str) and identifier.startswith(RESERVED_IDS):
                yield identifier
        stack += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        node, depth = stack.pop()
        deepest = max(deepest, depth)
        children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        stack += [(child, depth + 1) for child in children]
    return deepest
