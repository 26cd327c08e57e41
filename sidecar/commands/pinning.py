"""Whether a server's live tools are the ones that the catalog was written for.

A derivation is only as good as the knowledge of what the tool does with its arguments. A tool whose name is new or
whose input schema changed since has not been read by anybody, so it is refused; the others work on (threats, ideas 9).

The same holds for what is written for the model. A description is read as instructions, so one that changes behind
everybody's back ("tool poisoning") makes a model do what no schema shows; annotations decide whether a client asks a
person first. So a pin is over everything that a client is shown, and nothing is shown that is not pinned
(docs/adr/0013).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import rfc8785

from sidecar.commands.pins import PINS
from sidecar.model import JsonObject

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


class PinState(StrEnum):
    """How a tool stands to its pin."""

    PINNED = "pinned"
    CHANGED = "changed"
    """It is not what was reviewed: its schemas, its description or its annotations differ."""
    UNKNOWN = "unknown"
    """Neither the catalog nor the settings have such a tool."""
    ABSENT = "absent"
    """They have it, this server does not offer it (switched off, or not set up)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinComparison:
    """The live tools of one server against the pins, by name."""

    standings: Mapping[str, PinState]

    def __getitem__(self, tool: str) -> PinState:
        """Return a tool's standing; a name that neither side knows is unknown."""
        return self.standings.get(tool, PinState.UNKNOWN)

    def suspicious(self) -> dict[str, str]:
        """Return the tools that are refused and should be looked at, with their standing."""
        return {
            name: standing.value
            for name, standing in sorted(self.standings.items())
            if standing in {PinState.CHANGED, PinState.UNKNOWN}
        }


def shown(tool: JsonObject) -> JsonObject:
    """Return what clients are shown of a live tool: all that it says, without ``_meta``.

    The server puts its own transport and limits there (3.0.4: ``com.mongodb/transport``,
    ``com.mongodb/maxRequestPayloadBytes``). They differ between deployments of the same server, so they cannot be
    pinned, and they are not true of the sidecar.
    """
    return {key: value for key, value in tool.items() if key != "_meta"}


def fingerprint(tool: JsonObject) -> str:
    """Return the SHA-256 over the canonical JSON (RFC 8785) of what clients are shown of a tool, hexadecimal.

    Raises:
        ValueError: the tool has no canonical form.
    """
    return hashlib.sha256(rfc8785.dumps(shown(tool))).hexdigest()


def compare(live: Sequence[JsonObject], further: Mapping[str, str] = _NONE) -> PinComparison:
    """Compare a server's ``tools/list`` with the pins. A name that comes twice counts as changed.

    Args:
        live: the list.
        further: pins of the server's own, of tools outside of the catalog.
    """
    pins = {**further, **PINS}
    standings = dict.fromkeys(pins, PinState.ABSENT)
    seen: set[str] = set()
    for tool in live:
        name = tool.get("name")
        if not isinstance(name, str):
            continue
        standings[name] = PinState.CHANGED if name in seen else _standing(pins.get(name), tool)
        seen.add(name)
    return PinComparison(standings=standings)


def _standing(pin: str | None, tool: JsonObject) -> PinState:
    if pin is None:
        return PinState.UNKNOWN
    try:
        return PinState.PINNED if fingerprint(tool) == pin else PinState.CHANGED
    except ValueError:
        return PinState.CHANGED
