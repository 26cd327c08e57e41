"""Settings of what several sidecars share."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from sidecar.settings_group import SettingsGroup

MONGODB: Final = "mongodb:"
FILE: Final = "file:"

_COLLECTION: Final = re.compile(r"(?!system\.)[A-Za-z_][A-Za-z0-9_.-]{0,99}\Z")


_IN_FILES: Final = frozenset({"suspensions", "approvals.store", "audit.store"})
"""What one sidecar alone can keep."""


class SharedStore(SettingsGroup):
    """The MongoDB that several sidecars share, for settings that begin with `mongodb:`; who writes there can resume."""

    uri: SecretStr | None = None
    """The connection string with its user; to another machine only with verified TLS."""
    uri_file: Path | None = None
    """The same as a file, which is safer: other processes of the same user can read an environment."""
    database: str = Field(default="mcp_sidecar", pattern=r"^[A-Za-z0-9_-]{1,63}$")
    """The database of all its collections."""
    usage: str = ""
    """The collection in which it is counted how much callers use, for all sidecars together (the limits of the
    platform's policy data); empty: each sidecar counts for itself."""
    timeout_ms: int = Field(default=2000, ge=100, le=10_000)
    """How long one operation may take."""
    stale_after_s: int = Field(default=5, ge=2, le=60)
    """How old the last reading of suspensions may be: beyond, every call is refused until they can be read again. So
    this is also the longest that another sidecar serves a suspended caller."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.uri is not None and self.uri_file is not None:
            msg = "give at most one of uri and uri_file"
            raise ValueError(msg)
        return self

    @field_validator("database")
    @classmethod
    def _own_database(cls, name: str) -> str:
        if name.lower() in {"admin", "config", "local"}:
            msg = "is a database of MongoDB itself"
            raise ValueError(msg)
        return name

    @field_validator("usage")
    @classmethod
    def _named(cls, name: str) -> str:
        if name:
            collection(MONGODB + name)
        return name

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self.uri is not None or self.uri_file is not None


def collection(place: str) -> str | None:
    """Return the collection that `mongodb:NAME` names, or None for another kind of place.

    Raises:
        ValueError: it is no name of a collection.
    """
    if not place.startswith(MONGODB):
        return None
    name = place.removeprefix(MONGODB)
    if not _COLLECTION.match(name):
        msg = "mongodb: is followed by the name of a collection; where it is, say the settings of mongodb"
        raise ValueError(msg)
    return name


def check_places(places: Mapping[str, str], store: SharedStore) -> None:
    """See that every place is one, and that there is a store for those that are shared.

    Args:
        places: by setting; only those of ``_IN_FILES`` can be files.
        store: what is shared.

    Raises:
        ValueError: the message names the setting.
    """
    shared = [place for place in places.values() if collection(place) is not None]
    for setting, place in places.items():
        file = setting in _IN_FILES and place.startswith(FILE) and place != FILE
        if place and not file and not place.startswith(MONGODB):
            msg = f"{setting}: use {'file:<path> or ' if setting in _IN_FILES else ''}mongodb:<collection>"
            raise ValueError(msg)
    shared += [MONGODB + store.usage] if store.usage else []
    if shared and not store.given:
        msg = "what is kept in MongoDB needs uri or uri_file of mongodb"
        raise ValueError(msg)
    if store.given and not shared:
        msg = f"mongodb is given, and nothing is kept there: say so in one of {', '.join(places)} and mongodb.usage"
        raise ValueError(msg)
    if len(set(shared)) < len(shared):
        msg = f"{', '.join(places)} and mongodb.usage have the same collection twice; give each its own"
        raise ValueError(msg)
