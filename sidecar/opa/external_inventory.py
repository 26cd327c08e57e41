"""What an external OPA reports that it runs, judged by the rules of ``sidecar.policyset.containment``.

Two listings say it: ``GET /v1/data/system/bundles``, where OPA keeps the manifest of every active bundle, and ``GET
/v1/policies``, every module as text and as the tree that is evaluated (after the compiler: names are resolved, imports
are gone; measured with 1.22.2). OPA holds data to the roots of its bundle, so the manifests are what is judged of data;
of modules it is the trees.

What the holder of a team's signing key can make an OPA 1.22.2 do (measured), and what is refused here: claim roots of
no owner (``system/bundles``, where the manifests lie; another team's while its bundle is not there); serve a
``…_test.rego``; put a module in the place of the platform's (a member ``../../platform/platform/guardrails.rego``).
"""

import hashlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.wire import provenance_revision
from sidecar.policyset import (
    MANIFEST,
    MAX_MODULE_BYTES,
    MAX_TEAM_FILES,
    MAX_TEAM_RULES_BYTES,
    TEAMS,
    TRUSTED,
    ModuleReport,
    Rule,
    Violation,
    decode_strictly,
    is_team,
    lint_module,
    listed,
    listing,
    manifest_roots,
    team_fault,
    trusted_fault,
    uncalled,
)

BUNDLES: Final = "v1/data/system/bundles"
MODULES: Final = "v1/policies"

_RESERVED: Final = frozenset({"mcp", "system", "sidecar"})
"""The first name of packages and data that decisions are made of, or that OPA or a sidecar reads by itself."""

_REVISION: Final = ("mcp/revision",)
"""The one root of a bundle that only names the set (``policies/README.md``)."""
_NAMING: Final = "revision"
"""The name of that bundle."""


class InventoryModule(msgspec.Struct):
    """One entry of ``GET /v1/policies``. The tree is decoded when it is looked at: it has ten times the text's size."""

    id: str
    raw: str
    ast: msgspec.Raw = msgspec.Raw(b"null")


class _Modules(msgspec.Struct):
    result: list[InventoryModule] = []


_MODULES: Final = msgspec.json.Decoder(_Modules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What one OPA runs, as it says."""

    bundles: dict[str, Any]
    """Manifest of each active bundle, by its name in OPA's configuration."""
    modules: tuple[InventoryModule, ...]
    revision: str
    """Of the bundles together, as the provenance of an answer has it."""
    downloaded: frozenset[str] = frozenset()
    """Names of the bundles that a file server had a name (ETag) for; others may have come from one all the same."""

    @property
    def fingerprint(self) -> str:
        """Digest of all manifests and the text of all modules; a tree has other names after each compilation."""
        return _digest(self.bundles, self.modules)

    @property
    def ours(self) -> str:
        """The same of what decisions are made of, without what else this OPA runs."""
        bundles = {name: manifest for name, manifest in self.bundles.items() if _is_reserved(manifest)}
        prefixes = tuple(f"{_prefix(name)}/" for name in bundles)
        return _digest(bundles, [module for module in self.modules if module.id.startswith(prefixes)])

    @property
    def archived(self) -> bool:
        """Whether any of our bundles came as an archive, and not as a folder that OPA was started on.

        OPA 1.22.2 does not say so. An archive of ``policy bundle`` lists its modules, most file servers name what they
        serve, and in a folder a module is named after the folder twice. One team can give its archive the look of a
        folder, but not the platform's.
        """
        ours = {name for name, manifest in self.bundles.items() if _lists(name, manifest)}
        if any(listed(self.bundles[name]) is not None for name in ours) or ours & self.downloaded:
            return True
        beside = tuple(f"{_prefix(name)}/" for name in ours)
        folders = tuple(f"{posixpath.normpath(f'{name}/{name}')}/" for name in ours)
        return any(module.id.startswith(beside) and not module.id.startswith(folders) for module in self.modules)


def _digest(bundles: dict[str, Any], modules: Sequence[InventoryModule]) -> str:
    manifests = msgspec.json.encode(bundles, order="deterministic")
    texts = msgspec.json.encode(sorted((module.id, module.raw) for module in modules))
    return hashlib.sha256(b"%d\n%b%b" % (len(manifests), manifests, texts)).hexdigest()


def _read_bundles(body: bytes) -> tuple[dict[str, Any], str, frozenset[str]]:
    """Read ``GET /v1/data/system/bundles``.

    Returns:
        The manifests by bundle, the revision of all, and which bundles have an ETag.

    Raises:
        DecisionUnavailable: it is something else.
    """
    try:
        document = decode_strictly(body)
    except ValueError as error:
        raise DecisionUnavailable(f"the list of bundles is {error}", fault=PdpFault.MALFORMED) from None
    found = document.get("result", {}) if isinstance(document, dict) else None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise DecisionUnavailable("the list of bundles has another form than OPA's", fault=PdpFault.MALFORMED)
    manifests = {name: entry.get("manifest") for name, entry in found.items()}
    named: JsonObject = {name: {"revision": _revision(manifest)} for name, manifest in manifests.items()}
    downloaded = frozenset(name for name, entry in found.items() if entry.get("etag"))
    return manifests, provenance_revision({"bundles": named}), downloaded


def read_inventory(bundles: bytes, modules: bytes) -> Inventory:
    """Read both listings.

    Raises:
        DecisionUnavailable: one of them is something else.
    """
    manifests, revision, downloaded = _read_bundles(bundles)
    try:
        found = _MODULES.decode(modules).result
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Without the cause: it may quote what it read.
        what = f"the list of modules has another form than OPA's ({type(error).__name__})"
        raise DecisionUnavailable(what, fault=PdpFault.MALFORMED) from None
    return Inventory(bundles=manifests, modules=tuple(found), revision=revision, downloaded=downloaded)


def violations(running: Inventory) -> list[Violation]:
    """Return everything that keeps a set from being believed; each on line 1, because these trees have no lines."""
    # Where manifests may be forged, nothing that follows from them is worth saying.
    return [*_impostors(running)] or [*_bundles(running), *_unlisted(running), *_modules(running)]


def team_of(bundle: str) -> str | None:
    """Return the team whose bundle this is by its name (``teams/red``, ``…/teams/red``); None for any other."""
    parts = _name(bundle).split("/")
    return parts[-1] if parts[-2:-1] == [TEAMS.rstrip("/")] else None


def is_ours(bundle: str) -> bool:
    """Whether this is the name of a bundle that decisions are made of."""
    return team_of(bundle) is not None or _kind(bundle) in {*TRUSTED, _NAMING}


def owner(module: str, running: Inventory) -> str | None:
    """Return the team whose bundle a module is named after."""
    teams = (team_of(name) for name in running.bundles if module.startswith(f"{_prefix(name)}/"))
    return next((team for team in teams if team is not None), None)


def _impostors(running: Inventory) -> Iterator[Violation]:
    """Find rules that stand before the manifests: where there are both, OPA answers with the rule (1.22.2)."""
    for module in running.modules:
        if _package(_tree(module))[:2] in {("system",), ("system", "bundles")}:
            yield _found(module.id, Rule.PACKAGE, "a rule at data.system.bundles would say itself what OPA runs")


# --- bundles ----------------------------------------------------------------------------------------------------------


def _bundles(running: Inventory) -> Iterator[Violation]:
    names = [_kind(bundle) for bundle in running.bundles]
    main = [name for name, manifest in running.bundles.items() if "mcp/main" in manifest_roots(manifest)]
    if len(main) != 1:
        message = "no bundle or more than one has the root mcp/main: this OPA does not run the platform's policies"
        yield Violation(file=".", line=1, rule=Rule.MANIFEST, message=message)
    for name, manifest in running.bundles.items():
        if message := _bundle_fault(name, manifest, names):
            yield Violation(file=f"{name}/{MANIFEST}", line=1, rule=Rule.MANIFEST, message=message)


def _unlisted(running: Inventory) -> Iterator[Violation]:
    """Find archives that do not say what is in them, without which a lost or an added module is not seen."""
    if not running.archived:
        return
    for name, manifest in running.bundles.items():
        if _lists(name, manifest) and listed(manifest) is None:
            message = "the archive does not list its modules (metadata.modules): make it with policy bundle"
            yield Violation(file=f"{name}/{MANIFEST}", line=1, rule=Rule.MANIFEST, message=message)


def _lists(bundle: str, manifest: Any) -> bool:
    """Whether ``policy bundle`` writes bundles like this; it writes none that only names the set."""
    return team_of(bundle) is not None or (_is_reserved(manifest) and tuple(manifest_roots(manifest)) != _REVISION)


def _name(bundle: str) -> str:
    """A bundle's name, which OPA's operator chose: where a path was given (``opa run -b``), the path is the name."""
    return posixpath.normpath(bundle).removesuffix(".tar.gz")


def _kind(bundle: str) -> str:
    """The last part of a bundle's name. It decides which roots the bundle may have."""
    return posixpath.basename(_name(bundle))


def _bundle_fault(name: str, manifest: Any, names: Sequence[str]) -> str:
    team = team_of(name)
    roots = manifest_roots(manifest)
    if team is not None:
        return team_fault(manifest, team) if is_team(team) else f"{team!r} cannot be a team's name"
    if _kind(name) in TRUSTED:
        return trusted_fault(manifest, _kind(name), names)
    if tuple(roots) == _REVISION and _kind(name) == _NAMING:
        return ""
    if not roots or any(root.split("/")[0] in _RESERVED | {""} for root in roots):
        return (
            "a bundle with roots in mcp, system or sidecar is called platform, system or teams/<team> in OPA's "
            "configuration, each with its own roots"
        )
    return ""


def _revision(manifest: Any) -> str:
    revision = manifest.get("revision", "") if isinstance(manifest, dict) else ""
    return revision if isinstance(revision, str) else ""


# --- modules ----------------------------------------------------------------------------------------------------------


def _modules(running: Inventory) -> Iterator[Violation]:
    expected = _expected(running.bundles)
    teams: dict[str, list[InventoryModule]] = {}
    linted: dict[str, list[ModuleReport]] = {}
    for module in running.modules:
        tree = _tree(module)
        home = _home(module.id, _package(tree), running.bundles)
        if fault := _misplaced(module, home, _package(tree), expected.pop(module.id, None), running.bundles):
            yield fault
        elif home is not None and (team := team_of(home)) is not None:
            teams.setdefault(team, []).append(module)
            linted.setdefault(team, []).append(lint_module(tree, team=team, file=module.id))
            yield from linted[team][-1].findings
    for missing in expected:
        yield _found(missing, Rule.FILE, "OPA does not run this module, which its bundle's manifest lists")
    for team, modules in teams.items():
        yield from _sizes(team, modules)
        yield from uncalled(linted[team])


def _misplaced(
    module: InventoryModule,
    home: str | None,
    package: tuple[str, ...],
    said: tuple[str, str] | None,
    bundles: dict[str, Any],
) -> Violation | None:
    """Hold a module to the bundle that it is of: its name, its package and what the manifest lists.

    Args:
        module: the module.
        home: the bundle that bears its name and has a root for its package, if there is one.
        package: the names of its package.
        said: the bundle that lists it, and its digest there.
        bundles: all manifests.
    """
    if said is not None and said[1] != listing([("", module.raw.encode())])[""]:
        return _found(module.id, Rule.FILE, "the module is not the one that its bundle's manifest lists")
    if home is None or (said is not None and said[0] != home):
        if said is None and package[:1] and package[0] not in _RESERVED and not _is_module_of_ours(module.id, bundles):
            return None  # another application's, which shares this OPA
        message = f"package {'.'.join(package)} is in no bundle that may hold it"
        return _found(module.id, Rule.PACKAGE, message)
    if said is None and _is_reserved(bundles[home]) and listed(bundles[home]) is not None:
        return _found(module.id, Rule.FILE, "the module is not among those that its bundle's manifest lists")
    return None


def _expected(bundles: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Bundle and digest of every module that the manifest of a policy bundle lists, by the name that OPA gives it."""
    return {
        posixpath.join(_prefix(name), path): (name, digest)
        for name, manifest in bundles.items()
        if _is_reserved(manifest)
        for path, digest in (listed(manifest) or {}).items()
    }


def _prefix(bundle: str) -> str:
    """What the names of a bundle's modules begin with: OPA cleans the path that it joins (``filepath.Join``)."""
    return posixpath.normpath(bundle)


def _home(identifier: str, package: tuple[str, ...], bundles: dict[str, Any]) -> str | None:
    """Return the bundle that a module is named after and that has a root for its package."""
    for name, manifest in bundles.items():
        named = identifier.startswith(f"{_prefix(name)}/")
        if named and any(_covers(root, package) for root in manifest_roots(manifest)):
            return name
    return None


def _covers(root: str, package: tuple[str, ...]) -> bool:
    parts = tuple(root.split("/"))
    return package[: len(parts)] == parts


def _is_module_of_ours(identifier: str, bundles: dict[str, Any]) -> bool:
    """Whether a module bears the name of a bundle that decisions are made of."""
    reserved = [name for name, manifest in bundles.items() if _is_reserved(manifest)]
    return any(identifier.startswith(f"{_prefix(name)}/") for name in reserved)


def _is_reserved(manifest: Any) -> bool:
    return any(root.split("/")[0] in _RESERVED for root in manifest_roots(manifest))


def _tree(module: InventoryModule) -> Any:
    try:
        return msgspec.json.decode(module.ast)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _package(tree: Any) -> tuple[str, ...]:
    """The names of a module's package without ``data``; empty where the tree has none."""
    package = tree.get("package") if isinstance(tree, dict) else None
    path = package.get("path") if isinstance(package, dict) else None
    terms = path[1:] if isinstance(path, list) else []
    return tuple(str(term.get("value")) if isinstance(term, dict) else "" for term in terms)


def _sizes(team: str, modules: Sequence[InventoryModule]) -> Iterator[Violation]:
    sizes = {module.id: len(module.raw.encode()) for module in modules}
    for identifier, size in sizes.items():
        if size > MAX_MODULE_BYTES:
            yield _found(identifier, Rule.SIZE, f"a module has {size} bytes, {MAX_MODULE_BYTES} are allowed")
    if (total := sum(sizes.values())) > MAX_TEAM_RULES_BYTES:
        message = f"the modules of {team} have {total} bytes, {MAX_TEAM_RULES_BYTES} are allowed"
        yield _found(modules[0].id, Rule.SIZE, message)
    if len(modules) > MAX_TEAM_FILES:
        message = f"{team} has {len(modules)} modules, {MAX_TEAM_FILES} are allowed"
        yield _found(modules[0].id, Rule.SIZE, message)


def _found(file: str, rule: Rule, message: str) -> Violation:
    return Violation(file=file, line=1, rule=rule, message=message)
