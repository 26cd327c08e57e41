"""Which databases the platform's data gives to an owner, and whether a name or a glob can be one of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

GLOB_SIGNS: Final = frozenset("*?[]{}!\\")
"""What makes a text a pattern."""
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Databases by name and by prefix."""

    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    """Databases by name of other owners; no prefix gives them."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.names or self.prefixes)

    def fits(self, text: str, *, is_glob: bool) -> bool:
        """Whether a name is one of them, or a glob could match one; the whole deployment ``""`` is judged by nobody."""
        if not text:
            return True
        if not is_glob:
            return text in self.names or (text not in self.taken and any(map(text.startswith, self.prefixes)))
        head = text[: next(n for n, sign in enumerate(text) if sign in GLOB_SIGNS)]
        if any(head.startswith(prefix) or prefix.startswith(head) for prefix in self.prefixes):
            return True
        if GLOB_SIGNS & set(text) == {"*"}:
            return any(fnmatchcase(name, text) for name in self.names)
        return any(name.startswith(head) for name in self.names)

    def shown(self) -> list[str]:
        """Return some of them as people write them."""
        every = [*sorted(self.names), *(f"{prefix}*" for prefix in sorted(self.prefixes))]
        return [*every[:_SHOWN], *(["…"] if len(every) > _SHOWN else [])]


def holdings_of(tables: Mapping[str, Any], owner: str | None) -> Holdings:
    """Return what one owner has in any deployment, or what all have together.

    Raises:
        KeyError, TypeError, AttributeError: the tables are not of the form that this build knows.
    """
    names: set[str] = set()
    prefixes: set[str] = set()
    taken: set[str] = set()
    for tree in tables["deployments"].values():
        for name, holding in tree["databases"].items():
            (names if owner in {None, holding["owner"]} else taken).add(name)
        prefixes |= {prefix for prefix, holding in tree["prefixes"].items() if owner in {None, holding["owner"]}}
    return Holdings(names=frozenset(names), prefixes=frozenset(prefixes), taken=frozenset(taken - names))


def unheld(tables: Mapping[str, Any], every: Holdings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the place and text of each glob of databases in the platform's tables that fits none.

    Raises:
        KeyError, TypeError, AttributeError: as above.
    """
    for table in ("grants", "windows"):
        for index, entry in enumerate(tables[table]):
            for number, text in enumerate(entry["databases"]):
                if not every.fits(text, is_glob=bool(GLOB_SIGNS & set(text))):
                    yield (table, index, "databases", number), text
