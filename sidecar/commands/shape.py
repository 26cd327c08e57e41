"""What the documents that leave a stage are made of, in paths of the documents that were stored.

Obligations on fields stand on this: a field is masked if it is among what a command returns. So it errs to one side:
a path too many costs a refusal or a mask, a path too few gives a field away. What cannot be told is "all".

A shape is open while all other fields of a document pass through (``$match``, ``$addFields``, a projection that
excludes) and closed once only the named ones do (``$project`` with an inclusion, ``$group``). A name has origins:

- bases: the value *is* the one at these paths, so that a path below it goes on there (``{"x": "$a"}``: ``x.b`` is
  ``a.b``);
- parts: the value is computed from these.

``$lookup`` puts foreign documents under a name: its base is their root, so a path below it is a path in them. It is
recorded in both spellings, as ``FieldLog`` does.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sidecar.commands.field_log import MAX_PATHS, ROOT, ValueReads, without_positions

_MAX_NAMES: Final = 1_000
"""Names that one shape tells apart; beyond it nothing is known of it."""


class FieldOrigin(NamedTuple):
    """What one field is made of."""

    bases: frozenset[str] = frozenset()
    parts: frozenset[str] = frozenset()

    def below(self, rest: str) -> "FieldOrigin":
        """Return the origin of a path below this field."""
        if not rest:
            return self
        return FieldOrigin(frozenset(f"{base}.{rest}" if base else rest for base in self.bases), self.parts)

    def fixed(self) -> "FieldOrigin":
        """Return the origin of a value that is computed from this field."""
        return FieldOrigin(frozenset(), self.bases | self.parts) if self.bases else self


NOTHING: Final = FieldOrigin()
ALL: Final = FieldOrigin(frozenset({ROOT}))


def _joined(origins: Iterable[FieldOrigin]) -> FieldOrigin:
    found = list(origins)
    if len(found) == 1:
        return found[0]
    bases: set[str] = set()
    parts: set[str] = set()
    for origin in found:
        bases |= origin.bases
        parts |= origin.parts
    return FieldOrigin(frozenset(bases), frozenset(parts))


class Shape:
    """The fields of the documents at one stage."""

    __slots__ = ("_has_paths", "_names", "is_open", "unknown")

    def __init__(self) -> None:
        self._names: dict[str, FieldOrigin] = {}
        self._has_paths = False
        """A name is a path into a field, so that one name can lie below another."""
        self.is_open = True
        self.unknown = False
        """Nothing can be told of these documents, and never can again: they are no stored ones."""

    def copy(self) -> "Shape":
        """Return another shape that says the same."""
        other = Shape()
        other._names, other._has_paths = dict(self._names), self._has_paths
        other.is_open, other.unknown = self.is_open, self.unknown
        return other

    def names(self) -> tuple[str, ...]:
        """Return the fields that are told apart."""
        return tuple(self._names)

    def origin(self, path: str) -> FieldOrigin:
        """Return what a path of these documents is made of."""
        names = self._names
        if path.isidentifier():  # as most are; it has no position
            if not self._has_paths and ROOT not in names:
                known = names.get(path)
                return FieldOrigin(frozenset((path,))) if known is None else known
        else:
            path = without_positions(path)
        if not path:
            return _joined([*names.values(), *([ALL] if self.is_open else [])])
        found = [names[name] for name in self._below(path)]
        above = path
        while above not in names and above:
            above = above.rpartition(".")[0]
        if above in names:
            found.append(names[above].below(path[len(above) + 1 :] if above else path))
        elif self.is_open or not found:
            found.append(FieldOrigin(frozenset({path})))
        return _joined(found)

    def computed(self, read: ValueReads) -> FieldOrigin:
        """Return the origin of a value that is computed from what was read."""
        made_of = set(read.origins)
        for path in read.paths:
            made_of.update(*self.origin(path))
        return FieldOrigin(frozenset(), frozenset(made_of))

    def set(self, name: str, origin: FieldOrigin) -> None:
        """Give one field another origin; what stood under its name before is gone."""
        if len(self._names) >= _MAX_NAMES:
            self.unknown = True
            return
        for other in self._below(name):
            del self._names[other]
        self._names[name] = origin
        self._has_paths = self._has_paths or "." in name

    def add(self, name: str, origin: FieldOrigin) -> None:
        """Give one field more origins: something may be left of what it was."""
        self.set(name, _joined([self.origin(name), origin]))

    def close(self, names: dict[str, FieldOrigin]) -> None:
        """Let only these fields go on."""
        self._names, self.is_open = names, False
        self._has_paths = "." in "\n".join(names)
        self.unknown = self.unknown or len(names) > _MAX_NAMES

    def drop(self, path: str) -> None:
        """Take one field away, as far as that can be told."""
        for name in [*self._below(path), *([path] if path in self._names else [])]:
            if self.is_open:
                self._names[name] = NOTHING
            else:
                del self._names[name]

    def replace(self, origin: FieldOrigin) -> None:
        """Let the documents be the values of one expression; their own fields have no other names than its paths."""
        self.close({ROOT: origin})

    def unite(self, other: "Shape") -> None:
        """Let documents of another shape go on beside these."""
        names = dict.fromkeys((*self._names, *other.names()))
        self._names = {name: _joined([self.origin(name), other.origin(name)]) for name in names}
        self._has_paths = "." in "\n".join(names)
        self.is_open = self.is_open or other.is_open
        self.unknown = self.unknown or other.unknown

    def _below(self, path: str) -> Sequence[str]:
        """Return the names of fields inside the one at ``path``."""
        if not self._has_paths:
            return ()
        inside = path + "."
        return [name for name in self._names if name.startswith(inside)]

    def whole(self) -> FieldOrigin:
        """Return what a whole document is made of."""
        return ALL if self.unknown else self.origin(ROOT)

    def returned(self) -> tuple[str, ...] | None:
        """Return the paths that leave, or None for all."""
        if self.unknown or self.is_open:
            return None
        paths = dict.fromkeys(path for origin in self._names.values() for path in sorted(origin.bases | origin.parts))
        return tuple(paths) if ROOT not in paths and len(paths) <= MAX_PATHS else None
