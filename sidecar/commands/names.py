"""Which database and collection names are taken at their word, and which of them belong to MongoDB itself.

Names are compared exactly and never joined with a dot: ``a`` + ``b.c`` and ``a.b`` + ``c`` are different namespaces.
A name that two readers could see differently (a format character, a decomposed accent) is refused, not repaired.

Sources: MongoDB manual, "Naming Restrictions" and "MongoDB Limits and Thresholds"; behaviour of MongoDB MCP server
3.0.4 on empty, ``$``-bearing and padded names (reference, sections 2.3, 2.4 and 10.9-10.10).
"""

import re
import unicodedata
from typing import Final

from sidecar.errors import CommandNotDerivable
from sidecar.model import Namespace

MAX_DATABASE_BYTES: Final = 63
MAX_NAMESPACE_BYTES: Final = 255
"""Database, dot and collection together."""

_DATABASE_FORBIDDEN: Final = frozenset('/\\. "$*<>:|?')
_SIMPLE_DATABASE: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,62}")
_SIMPLE_COLLECTION: Final = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,120}(?:\.[A-Za-z0-9_-]{1,60})?")

_INVISIBLE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_IGNORABLE_RANGES: Final = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),
)
"""Default-ignorable code points (Unicode DerivedCoreProperties) that are letters or marks by category, and the blank
Braille pattern, which only looks like a space."""

SYSTEM_DATABASES: Final = frozenset({"admin", "local", "config"})
"""Compared without case: mongod refuses a second database whose name differs only in case."""

SYSTEM_PREFIXES: Final = ("system.", "enxcol_.")
"""``system.*`` holds users, roles, profiles, views, JavaScript and time-series buckets; ``enxcol_.*`` is the state of
Queryable Encryption."""

SYSTEM_COLLECTIONS: Final = frozenset({"fs.files", "fs.chunks"})
"""GridFS: the bytes of files, which no field rule can see into."""


def is_system(namespace: Namespace) -> bool:
    """Say whether a namespace is MongoDB's own rather than an application's (reference, section 2.3)."""
    if namespace.database.casefold() in SYSTEM_DATABASES:
        return True
    collection = namespace.collection
    return collection.startswith(SYSTEM_PREFIXES) or collection in SYSTEM_COLLECTIONS


def check_database(name: object, at: str) -> str:
    """Return the database name, proven usable.

    Raises:
        CommandNotDerivable: ``name`` is not one that MongoDB and every reader of it understand alike. The empty name
            makes the driver fall back to the connection's default database, so it is refused too.
    """
    if not isinstance(name, str):
        raise _refusal("a database is named by a plain string", at)
    if _SIMPLE_DATABASE.fullmatch(name):
        return name
    _check_text(name, "database", at)
    if not _DATABASE_FORBIDDEN.isdisjoint(name):
        raise _refusal('a database name contains none of /\\. "$*<>:|?', at)
    if len(name.encode()) > MAX_DATABASE_BYTES:
        raise _refusal(f"a database name is at most {MAX_DATABASE_BYTES} bytes", at)
    return name


def check_collection(database: str, name: object, at: str) -> str:
    """Return the collection name, proven usable in ``database`` (itself already checked).

    Raises:
        CommandNotDerivable: as for ``check_database``. The empty name turns an aggregation into one of the whole
            database (reference, section 2.4).
    """
    if not isinstance(name, str):
        raise _refusal("a collection is named by a plain string", at)
    if _SIMPLE_COLLECTION.fullmatch(name):
        return name
    _check_text(name, "collection", at)
    if "$" in name or name == "*":
        raise _refusal("a collection name contains no $ and is not *", at)
    if name.startswith(".") or name.endswith(".") or ".." in name:
        raise _refusal("a collection name neither starts nor ends with a dot, nor has two in a row", at)
    if len(database.encode()) + 1 + len(name.encode()) > MAX_NAMESPACE_BYTES:
        raise _refusal(f"database and collection together are at most {MAX_NAMESPACE_BYTES} bytes", at)
    return name


def _check_text(name: str, what: str, at: str) -> None:
    if not name:
        raise _refusal(f"a {what} name is not empty", at)
    if len(name) > MAX_NAMESPACE_BYTES:
        raise _refusal(f"a {what} name is at most {MAX_NAMESPACE_BYTES} bytes", at)
    if name == "__proto__":
        raise _refusal(f"__proto__ is not a {what} name here", at)
    if any(_is_invisible(character) for character in name):
        raise _refusal(f"a {what} name contains no control, format or otherwise invisible characters", at)
    if not unicodedata.is_normalized("NFC", name):
        raise _refusal(f"a {what} name is in Unicode normalisation form C", at)
    if name[0].isspace() or name[-1].isspace():
        raise _refusal(f"a {what} name neither starts nor ends with a space", at)


def _is_invisible(character: str) -> bool:
    if character < "\x7f":
        return character < " "
    category = unicodedata.category(character)
    if category in _INVISIBLE_CATEGORIES or category == "Zs":
        return True
    code = ord(character)
    return any(first <= code <= last for first, last in _IGNORABLE_RANGES)


def _refusal(message: str, at: str) -> CommandNotDerivable:
    return CommandNotDerivable("name_refused", message[0].upper() + message[1:] + ".", at)
