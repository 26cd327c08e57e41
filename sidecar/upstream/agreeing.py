"""What is spoken with a child: MCP with a handshake, or without one (MCP 2026-07-28, stdio, backward compatibility).

With a server that has both, a handshake is done unless the settings prefer otherwise: it costs the server less
(measured, ``messages``). No error code says what a server speaks: any error to one way is a reason to try the other.
"""

import asyncio
import math
from enum import StrEnum
from typing import Final

from sidecar.errors import UpstreamError, UpstreamProtocolViolation, UpstreamRefused, UpstreamUnreachable
from sidecar.questions import QuestionKind
from sidecar.upstream.child import Child
from sidecar.upstream.messages import ACCEPTED_VERSIONS, check_initialized, encode_notification, initialize_params
from sidecar.upstream.stateless import DISCOVER, RevisionRefused, check_discovered

_FORM: Final = frozenset({QuestionKind.ELICITATION})

LIST_AGE_S: Final = 300.0
"""How long a list of tools is kept of a child without a handshake, which need not say that it changed."""


class Opening(StrEnum):
    """How the talk with a new child is begun."""

    HANDSHAKE = "handshake"
    """With a handshake; without one where the server refuses it."""
    ASKING = "asking"
    """With a handshake that says that the client can be asked, and in no other way."""
    DISCOVERY = "discovery"
    """Without a handshake; with one where the server does not know how."""


async def agree(child: Child, opening: Opening, *, patience_s: float) -> None:
    """Return when it is settled what is spoken with a new child.

    Args:
        child: was not sent anything yet.
        opening: the way that is tried first.
        patience_s: a server of another era may not answer at all what it does not know; how long that is waited for.

    Raises:
        UpstreamError: the child went away, refused, or does not speak a revision that is spoken here.
    """
    match opening:
        case Opening.ASKING:
            await _shake_hands(child, asking=True)
        case Opening.DISCOVERY:
            await _discover_first(child, patience_s)
        case Opening.HANDSHAKE:
            await _shake_hands_first(child, patience_s)


async def _shake_hands_first(child: Child, patience_s: float) -> None:
    try:
        await _shake_hands(child)
    except UpstreamRefused as refused:
        try:
            async with asyncio.timeout(patience_s):
                await _discover(child)
        except (UpstreamError, TimeoutError):
            raise refused from None


async def _discover_first(child: Child, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await _discover(child)
    except TimeoutError:
        await _shake_hands(child)
    except (UpstreamRefused, UpstreamProtocolViolation) as refused:
        if isinstance(refused, RevisionRefused) and not refused.supported & ACCEPTED_VERSIONS:
            raise  # of this era, and of no revision that is spoken here
        try:
            await _shake_hands(child)
        except UpstreamError:
            raise refused from None


async def _shake_hands(child: Child, *, asking: bool = False) -> None:
    """Do the handshake (MCP 2025-11-25, lifecycle)."""
    check_initialized(await child.ask("initialize", initialize_params(_FORM if asking else frozenset())))
    child.tell(encode_notification("notifications/initialized"))
    child.tools.max_age_s = math.inf


async def _discover(child: Child) -> None:
    """Ask a server without a handshake what it speaks, and to tell of changes of its tools."""
    child.stateless = True
    try:
        check_discovered(await child.ask(DISCOVER, {}))
    except BaseException:
        child.stateless = False
        raise
    child.tools.max_age_s = LIST_AGE_S
    child.listen()


async def ended_early(child: Child) -> UpstreamUnreachable:
    """Return the error of a program that ended before it spoke MCP, with what it said of that."""
    await child.ended()
    return UpstreamUnreachable(": ".join(filter(None, ("the program ended before it spoke MCP", child.last_words))))
