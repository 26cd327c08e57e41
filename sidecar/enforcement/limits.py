"""Limits on use: which of a caller's counters a call adds to, and what a used up one refuses.

Which limits count is policy's to say (``policies/platform/budgets.rego``), with the allow; how much was used is counted
here, behind the port ``UsageCounters``. A call is counted after the decision and before its intent is stored. Documents
and bytes are counted when the answer is known, as it goes to the caller; so the call that goes over such a limit is
still answered, and with it those that are under way at that moment (``sessions.calls_per_identity`` bounds them).
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import itemgetter
from typing import Final

from sidecar.errors import TooManyCalls
from sidecar.model import Identity, UpstreamResult
from sidecar.ports import Clock, Metrics, UsageCounter, UsageCounters
from sidecar.usage import LimitReached, LimitsUnavailable, UsageLimit, UsagePart, UsageUnit

MOST_COUNTERS: Final = 16_384
"""Counters that are kept of one limit, unit and window: about 2.5 MB."""

_NS: Final = 1_000_000_000
_LEAVING: Final = 16
"""One in so many counters leaves at once where there is no room, so that looking for them is rare."""


class Limits:
    """Counts what calls use.

    Args:
        counters: where the counts are kept.
        clock: in whose windows answers are counted.
        metrics: where it is counted that an answer could not be.
    """

    def __init__(self, counters: UsageCounters, clock: Clock, metrics: Metrics) -> None:
        self._counters = counters
        self._clock = clock
        self._metrics = metrics

    async def admit(self, limits: Sequence[UsageLimit], identity: Identity, tool: str, now_ns: int) -> None:
        """Count a call, or refuse it and count nothing.

        Raises:
            LimitReached: one of the limits is used up; of several, the one that is free again last.
            LimitsUnavailable: it cannot be told.
        """
        if not limits:
            return
        places = _places(limits, identity, tool, now_ns)
        totals = await self._counters.add({one: int(one.unit is UsageUnit.CALLS) for one in places})
        reached = [one for one, (_, most) in places.items() if _over(one.unit, totals[one], most)]
        if not reached:
            return
        await self._counters.add({one: -1 for one in places if one.unit is UsageUnit.CALLS})
        last = max(reached, key=lambda one: one.ends)
        wait_s = max(1, last.ends - now_ns // _NS)
        raise LimitReached(places[last][0], last.unit, free_at=last.ends, wait_s=wait_s)

    async def charge(self, limits: Sequence[UsageLimit], identity: Identity, tool: str, result: UpstreamResult) -> None:
        """Count what an answer carries; where it cannot be counted, it goes out, and the next call is not admitted."""
        used = {UsageUnit.DOCUMENTS: result.documents or 0, UsageUnit.BYTES: len(result.result)}
        places = _places(limits, identity, tool, self._clock.time_ns()) if limits else {}
        amounts = {one: used[one.unit] for one in places if used.get(one.unit)}
        try:
            if amounts:
                await self._counters.add(amounts)
        except LimitsUnavailable as error:
            self._metrics.refused("reply", error.label)


class CallsUnderWay:
    """Counts the calls that each identity has under way, so that one caller cannot block a server for the others.

    Args:
        most: calls of one identity.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def one(self, identity: tuple[str, str, str]) -> Iterator[None]:
        """Count a call while it runs.

        Raises:
            TooManyCalls: this identity has as many calls under way as it may have.
        """
        if self._calls[identity] >= self._most:
            raise TooManyCalls
        self._calls[identity] += 1
        try:
            yield
        finally:
            self._calls[identity] -= 1
            if not self._calls[identity]:
                del self._calls[identity]


def _over(unit: UsageUnit, total: int, most: int) -> bool:
    """Whether a counter refuses: that of calls holds this call already, the others what was answered before."""
    return total > most if unit is UsageUnit.CALLS else total >= most


def _places(
    limits: Sequence[UsageLimit], identity: Identity, tool: str, now_ns: int
) -> dict[UsageCounter, tuple[UsageLimit, int]]:
    """Return the counters that a call adds to, each with its limit and how much there is."""
    found = {}
    for limit in limits:
        ends = (now_ns // _NS // limit.window_s + 1) * limit.window_s
        who = _who(limit, identity, tool)
        for unit, most in limit.most:
            counter = UsageCounter(limit=limit.id, window_s=limit.window_s, unit=unit, who=who, ends=ends)
            found[counter] = (limit, most)
    return found


def _who(limit: UsageLimit, identity: Identity, tool: str) -> str:
    """Return a digest of what the limit counts apart: no counter names a user, and each name is as short."""
    principal, actor = identity.principal, identity.actor
    parts = {
        UsagePart.SUBJECT: (principal.issuer, principal.subject),
        UsagePart.AGENT: (actor.id,),
        UsagePart.TOOL: (tool,),
        UsagePart.TEAM: (limit.team,),
    }
    named = [text for part in UsagePart if part in limit.per for text in (part.value, *parts[part])]
    digest = blake2b(digest_size=16)
    for text in named:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(4))  # so that no two lists of texts are one text
        digest.update(raw)
    return digest.hexdigest()


@dataclass(slots=True)
class _Window:
    ends: int
    counts: dict[str, int] = field(default_factory=dict)
    floor: int = 0
    """The largest count that left for want of room: what a counter that is not there holds at most."""


class CountersInMemory:
    """Counts of one process (``sidecar.ports.UsageCounters``); each replica has its own, and a restart forgets them.

    Bounded: of one limit, unit and window there are at most ``most`` counters. Where there is no room, those with the
    smallest counts leave, and the largest of these becomes what every counter begins with that is not there (the bound
    of Metwally, Agrawal and El Abbadi's Space-Saving, 2005). So a count is never below what was used: one that left and
    comes back cannot have a second budget, and to raise that beginning by one takes ``most`` callers that used more. A
    window that ended leaves as a whole when the next begins.
    """

    def __init__(self, most: int = MOST_COUNTERS) -> None:
        self._most = most
        self._windows: dict[tuple[str, int, UsageUnit], _Window] = {}

    async def add(self, amounts: Mapping[UsageCounter, int]) -> Mapping[UsageCounter, int]:
        """Add to each counter, and return what it holds then; nothing else happens in between."""
        return {counter: self._add(counter, amount) for counter, amount in amounts.items()}

    def __len__(self) -> int:
        return sum(len(window.counts) for window in self._windows.values())

    def _add(self, counter: UsageCounter, amount: int) -> int:
        window = self._window(counter)
        count = window.counts.get(counter.who, window.floor) + amount
        if amount:
            window.counts[counter.who] = count
            if len(window.counts) > self._most:
                self._make_room(window)
        return count

    def _window(self, counter: UsageCounter) -> _Window:
        """Return the counts of the counter's window, or of the newest one: a clock that is set back frees nothing."""
        key = (counter.limit, counter.window_s, counter.unit)
        window = self._windows.get(key)
        if window is None or window.ends < counter.ends:
            now = counter.ends - counter.window_s
            self._windows = {one: kept for one, kept in self._windows.items() if kept.ends > now}
            window = self._windows[key] = _Window(ends=counter.ends)
        return window

    def _make_room(self, window: _Window) -> None:
        leaving = heapq.nsmallest(max(1, self._most // _LEAVING), window.counts.items(), key=itemgetter(1))
        for who, _ in leaving:
            del window.counts[who]
        window.floor = max(window.floor, leaving[-1][1])
