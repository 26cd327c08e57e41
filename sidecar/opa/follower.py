"""Follows a policy folder: what is in it is loaded once it has changed and come to rest.

A folder that is being written to is no set yet: only what has been at rest for one period may serve. The checks and the
start are done in that time, and thrown away where the folder changes before it is over. So a suspension in the
platform's data comes into force within two periods, and not one period and the time of the checks after the rest.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sidecar.errors import ConfigurationError
from sidecar.policyset import FolderWatch, PolicySet, Snapshot
from sidecar.system import ended

_LOG = logging.getLogger(__name__)

_RETRY_S = 60.0
"""A refused set is tried again after this long even if nothing changed: the reason may have been a busy machine."""

_AHEAD_S = 1.0
"""Of the time for which a folder has to be at rest, the part that is used for the checks and the start."""

_RESTLESS: Final = 10
"""After so many periods without rest a line is logged: something writes without end, and no edit comes into force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a folder holds: a set, or what is wrong with it."""

    policies: PolicySet | None
    fault: str = ""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read it. Blocking file access."""
        try:
            return cls(policies=PolicySet.read(folder))
        except ConfigurationError as error:
            return cls(policies=None, fault=error.detail)

    def usable(self) -> PolicySet:
        """Return the set.

        Raises:
            ConfigurationError: there is none.
        """
        if self.policies is None:
            raise ConfigurationError(self.fault)
        return self.policies


Loading = Callable[[Content, asyncio.Event], Awaitable[bool]]
"""Makes a folder's content serve if it may; says and does nothing that outlives a cancellation before the event has
happened. Returns whether what the folder holds serves."""


def at_once() -> asyncio.Event:
    """Return an event that has happened: nothing is waited for."""
    event = asyncio.Event()
    event.set()
    return event


async def follow(folder: Path, seen: Snapshot, *, rest_s: float, load: Loading, loaded: bool = True) -> None:
    """Load a folder's content whenever it has changed and come to rest, until cancelled.

    Args:
        folder: the policy folder.
        seen: how it looked before its present content was read.
        rest_s: seconds without a change that count as rest.
        load: what is done with the content.
        loaded: whether the present content serves.
    """
    loop = asyncio.get_running_loop()
    watch = FolderWatch(folder, rest_s=rest_s, seen=seen)
    tried: Snapshot | None = seen
    again_at = float("inf") if loaded else loop.time() + _RETRY_S
    told = False
    while True:
        changed = await watch.look()
        if told is not (told := watch.restless_s > _RESTLESS * rest_s) and told:
            _LOG.warning("the policy folder was never at rest for %g s, so nothing of it is loaded", watch.restless_s)
        if watch.seen == tried and loop.time() < again_at:
            continue
        if changed or watch.still_s < rest_s - _AHEAD_S:
            continue  # being written right now
        outcome = await _load_at_rest(folder, watch, load)
        tried = None if outcome is None else watch.seen
        again_at = float("inf") if outcome else loop.time() + _RETRY_S


async def _load_at_rest(folder: Path, watch: FolderWatch, load: Loading) -> bool | None:
    """Return whether the content serves; break off and return None where it changes before it has been at rest."""
    content = await asyncio.to_thread(Content.read, folder)
    at_rest = asyncio.Event()
    loading = asyncio.ensure_future(load(content, at_rest))
    try:
        while not watch.at_rest:
            if await watch.look():
                return None
        # Read again: on file systems with coarse times, two writes of equal size can look like one.
        if await asyncio.to_thread(Content.read, folder) != content:
            return None
        at_rest.set()
        return await loading
    finally:
        # Once at rest it is done, or was cancelled with this: a second cancellation would break its clearing up.
        if not at_rest.is_set():
            loading.cancel()
        await ended(loading)
