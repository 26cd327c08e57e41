"""Tools outside of the catalog that settings name: nothing is known of what they do, so all of each is one access.

The access is of kind ``execute``, with the tool's name as its target. Policy sees no argument but those that the
settings name by JSON pointer (RFC 6901), and of those only values without parts: whether ``["EU"]`` is ``"EU"`` is for
nobody to guess. A tool is pinned like those of the catalog (``sidecar.commands.pinning``).

Source: docs/adr/0017.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from sidecar.commands.catalog import CATALOG
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, Command, JsonObject, JsonValue, Namespace, Target, TargetKind, ToolCall

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""What MCP 2025-11-25 recommends of tools' names. Nothing else is taken here, so no name looks like another one."""

MAX_POINTERS: Final = 16
"""Arguments of one tool that policy sees."""

MAX_SEGMENTS: Final = 8
"""Objects that a pointer goes through."""

MAX_CHARACTERS: Final = 1024
"""Of a text that policy sees; a longer one is refused, for what is cut is another value."""

MAX_BESIDE: Final = 1000
"""Keys of an object in which policy sees one: each is held against that."""

MAX_KEY: Final = 1024
"""Characters of such a key that are looked at."""

_PROTOTYPES: Final = frozenset({"__proto__", "constructor", "prototype"})
"""Names under which JavaScript finds what no argument holds."""

_URI: Final = re.compile(r"[a-z][a-z0-9+.-]{0,31}:[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]{1,1024}")
"""RFC 3986: a scheme in lower case, and characters that URIs have."""
_SEPARATORS: Final = re.compile(r"[_.-]")
_MARKS: Final = re.compile(r"[\W_]+")
_NO_SEGMENT: Final = re.compile(r"~(?![01])")
_WORDS: Final = "a text of at most 1024 characters, a number, true, false or null"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenericTool:
    """One tool that settings name; or a prompt or a resource, of which all of this is true as well."""

    name: str
    pin: str
    """SHA-256 over what clients are shown of it (``pinning.fingerprint``)."""
    pointers: tuple[str, ...] = ()
    """The arguments that policy sees."""
    kind: TargetKind = TargetKind.TOOL
    shown: JsonObject = field(default_factory=dict)
    """Of a resource: what lists show of it."""
    template: re.Pattern[str] | None = None
    """Of a resource whose URI has variables: the URIs that it is."""

    @property
    def key(self) -> str:
        """What it goes by among tools, prompts and resources; no tool has a slash in its name."""
        return self.name if self.kind is TargetKind.TOOL else f"{self.kind}/{self.name}"

    @property
    def target(self) -> Target:
        """What each call of it is about."""
        return Target(kind=self.kind, id=self.name)


GenericTools = Mapping[str, GenericTool]
"""By key, which of a tool is its name."""

NO_GENERIC_TOOLS: Final[GenericTools] = MappingProxyType({})


def name_fault(name: str) -> str:
    """Return why a tool cannot be named so; empty where it can.

    A name that differs from the catalog's only in case or separators is refused too: a person who reads a grant or a
    record would take one for the other.
    """
    if not NAME.fullmatch(name):
        return "has a name that is not 1 to 128 letters, digits, _ . or - of ASCII"
    if _folded(name) in _CATALOGUED:
        return "is a tool of the catalog, or looks like one; those are derived and need no setting"
    return ""


def uri_template(uri: str) -> re.Pattern[str] | None:
    """Return the URIs that a template with variables is; None where there are no variables.

    A variable is a run of unreserved characters (RFC 3986 section 2.3), so that no two spellings of a URI are the same
    resource to the server and two to policy.

    Raises:
        ValueError: it is no absolute URI, or not a template of the simplest form (RFC 6570 level 1).
    """
    parts = re.split(r"\{([a-zA-Z][a-zA-Z0-9_]{0,31})\}", uri)
    fixed, names = parts[::2], parts[1::2]
    if not _URI.fullmatch("".join(fixed)) or len(set(names)) < len(names):
        raise ValueError("is not an absolute URI, or a template of one with variables such as {id}")
    if not names:
        return None
    variables = (f"(?P<{name}>(?!\\.{{1,2}}(?:/|$))[A-Za-z0-9._~-]{{1,256}})" for name in names)
    middle = (f"{variable}{re.escape(text)}" for variable, text in zip(variables, fixed[1:], strict=True))
    return re.compile("".join([re.escape(fixed[0]), *middle]))


def pointer_fault(pointer: str) -> str:
    """Return why this is no pointer to an argument; empty where it is one."""
    segments = pointer.split("/")
    if segments[0] or len(segments) < 2 or "" in segments[1:] or _NO_SEGMENT.search(pointer):  # noqa: PLR2004
        return "is not a JSON pointer to an argument, such as /region"
    if len(segments) > MAX_SEGMENTS + 1:
        return f"goes through more than {MAX_SEGMENTS} objects"
    if _PROTOTYPES.intersection(_steps(pointer)):
        return "goes through a name that JavaScript keeps for itself"
    return ""


def everywhere(servers: Iterable[GenericTools]) -> GenericTools:
    """Return the tools of all servers; one that several have is the same to policy (settings hold that)."""
    return MappingProxyType({name: tool for tools in servers for name, tool in tools.items()})


def only_tools(generic: GenericTools) -> GenericTools:
    """Return what can be called as a tool."""
    return MappingProxyType({name: one for name, one in generic.items() if one.kind is TargetKind.TOOL})


def derive_generic(call: ToolCall, tool: GenericTool) -> Command:
    """Return the one access that a call of the tool is, with the arguments that policy sees.

    Raises:
        CommandNotDerivable: an argument that policy sees has parts or is too long, or another one looks like it, or the
            call uses ``__proto__``.
    """
    _refuse_prototypes(call.arguments)
    found = {pointer: _value(call.arguments, pointer) for pointer in tool.pointers}
    access = Access(kind=AccessKind.EXECUTE, namespace=Namespace(), via="/name", target=tool.target)
    arguments = {pointer: value for pointer, value in found.items() if not isinstance(value, _Absent)}
    return Command(tool=tool.key, accesses=(access,), arguments=arguments)


class _Absent:
    """The call does not give the argument."""


def _value(arguments: JsonObject, pointer: str) -> "bool | int | float | str | _Absent | None":
    at: JsonValue = arguments
    for step in _steps(pointer):
        if not isinstance(at, dict):
            raise _refused(pointer)
        _refuse_lookalikes(at, step, pointer)
        if step not in at:
            return _Absent()
        at = at[step]
    if isinstance(at, dict | list) or (isinstance(at, str) and len(at) > MAX_CHARACTERS):
        raise _refused(pointer)
    return at


def _refused(pointer: str) -> CommandNotDerivable:
    return CommandNotDerivable("malformed", f"This must be {_WORDS}: policy decides by it.", f"/arguments{pointer}")


def _refuse_lookalikes(at: JsonObject, step: str, pointer: str) -> None:
    """Refuse a key that a server could take for one that policy sees.

    Some decoders match names in any case, fold other letters to ASCII or end a name at a NUL, and the last one wins
    (CVE-2026-27896, GHSA-q382-vc8q-7jhj): such a server would read another value than the one that was decided.
    """
    if len(at) > MAX_BESIDE:
        raise CommandNotDerivable(
            "malformed", f"There may be {MAX_BESIDE} keys beside one that policy sees.", f"/arguments{pointer}"
        )
    seen = _plain(step)
    if any(key != step and _plain(key) == seen for key in at):
        words = "Leave out the other keys that look like this one: policy decides by it."
        raise CommandNotDerivable("key_refused", words, f"/arguments{pointer}")


def _plain(key: str) -> str:
    """Return a name as the most lenient reader takes it: up to a NUL, letters and digits alone, in one case."""
    return _MARKS.sub("", unicodedata.normalize("NFKC", key[:MAX_KEY].partition("\0")[0]).casefold())


def _refuse_prototypes(arguments: JsonObject) -> None:
    """Refuse a key by which a server in JavaScript reads an argument that is not there (reference, section 2.5)."""
    if b"__proto__" not in msgspec.json.encode(arguments):
        return
    level: list[JsonValue] = [arguments]
    while level:
        node = level.pop()
        if isinstance(node, dict):
            if "__proto__" in node:
                raise CommandNotDerivable("key_refused", "Leave the key __proto__ out.", "/arguments")
            level.extend(node.values())
        elif isinstance(node, list):
            level.extend(node)


def _steps(pointer: str) -> list[str]:
    return [segment.replace("~1", "/").replace("~0", "~") for segment in pointer.split("/")[1:]]


def _folded(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()


_CATALOGUED: Final = frozenset(map(_folded, CATALOG))
