"""The table of who watches which resource: bounds, eviction, and as of when it is decided who is told."""

import asyncio
from dataclasses import dataclass, field

import pytest

from sidecar.enforcement.bounds import Bounds
from sidecar.enforcement.turn import Caller, Exchange
from sidecar.enforcement.watches import Subscriber, TooManyWatches, Watch, Watches
from sidecar.errors import DecisionUnavailable, PolicyDenied, SessionNotFound, SidecarError
from sidecar.mcp import Conversation, Era, McpRevision, ResourceNotFound
from sidecar.model import Actor, Identity, Principal
from tests.patience import HANG_S

BOUNDS = Bounds(watches_per_subscriber=5, watches=40)


class Clock:
    now = 1000.0

    def time_ns(self) -> int:
        return int(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


@dataclass
class Table:
    """A table, and what it asked and told."""

    clock: Clock = field(default_factory=Clock)
    refused: dict[str, SidecarError] = field(default_factory=dict)
    """By URI."""
    looked: list[str] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    unreachable: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    evicted: int = 0

    def __post_init__(self) -> None:
        def forget(server: str, uri: str) -> None:
            self.forgotten.append((server, uri))

        self.watches = Watches(self.clock, self.look, forget, BOUNDS, self.evict)

    def evict(self) -> None:
        self.evicted += 1

    async def look(self, watch: Watch) -> None:
        self.looked.append(watch.uri)
        await asyncio.sleep(0)
        if watch.uri in self.refused:
            raise self.refused[watch.uri]

    def tell(self, subscriber: str, uri: str) -> bool:
        if subscriber in self.unreachable:
            return False
        self.told.append((subscriber, uri))
        return True

    def watch(self, subscriber: str, uri: str, user: str = "alice", lasts_s: float = 60.0, sent: str = "") -> Watch:
        caller = self.caller(user, lasts_s)
        return Watch(
            subscriber=Subscriber(
                id=subscriber,
                lasts=lambda: subscriber not in self.over,
                tell=lambda changed: self.tell(subscriber, changed),
            ),
            uri=uri,
            server="one",
            sent=sent or uri,
            caller=caller,
            exchange=Exchange(transport="http", client_ip="127.0.0.1"),
            conversation=Conversation(
                era=Era.HANDSHAKE, revision=McpRevision.V2025_11_25, client_name="", key=caller.identity.key
            ),
        )

    def caller(self, user: str, lasts_s: float) -> Caller:
        principal = Principal(issuer="https://idp.example", subject=user)
        identity = Identity(principal=principal, actor=Actor(id="agent"), expires_at=self.clock.now + lasts_s)
        return Caller(identity=identity, began_ns=0, ended_ns=0)

    async def settled(self) -> None:
        """Wait until nothing is left to be looked at."""
        looking = self.watches._looking
        if looking is not None:
            await looking


@pytest.fixture
def table() -> Table:
    return Table()


pytestmark = pytest.mark.timeout(HANG_S)


async def test_each_watch_of_a_resource_is_looked_at_and_told_and_no_other(table):
    for subscriber, uri in (("a", "x://1"), ("b", "x://1"), ("b", "x://2")):
        table.watches.add(table.watch(subscriber, uri))
    table.watches.updated("one", "x://1")
    table.watches.updated("two", "x://2")
    table.watches.updated("one", "x://3")
    await table.settled()
    assert table.told == [("a", "x://1"), ("b", "x://1")]
    assert table.looked == ["x://1", "x://1"]


async def test_what_a_server_tells_without_end_is_looked_at_once_in_a_round(table):
    table.watches.add(table.watch("a", "x://1"))
    for _ in range(10_000):
        table.watches.updated("one", "x://1")
    await table.settled()
    assert len(table.looked) == 1


async def test_each_spelling_is_told_as_its_client_wrote_it(table):
    table.watches.add(table.watch("a", "X://1", sent="x://1"))
    table.watches.updated("one", "x://1")
    await table.settled()
    assert table.told == [("a", "X://1")]


async def test_one_that_may_not_read_now_is_not_told_and_is_later(table):
    table.watches.add(table.watch("a", "x://1"))
    table.refused["x://1"] = PolicyDenied()
    table.watches.updated("one", "x://1")
    await table.settled()
    assert (table.told, len(table.watches)) == ([], 1)
    table.refused.clear()
    table.watches.updated("one", "x://1")
    await table.settled()
    assert table.told == [("a", "x://1")]


async def test_what_is_not_there_any_more_is_watched_no_more(table):
    table.watches.add(table.watch("a", "x://1"))
    table.refused["x://1"] = ResourceNotFound("x://1")
    table.watches.updated("one", "x://1")
    await table.settled()
    assert (table.told, len(table.watches), table.forgotten) == ([], 0, [("one", "x://1")])


async def test_a_change_of_policies_ends_what_is_refused_and_tells_nobody(table):
    for uri in ("x://1", "x://2"):
        table.watches.add(table.watch("a", uri))
    table.refused["x://1"] = PolicyDenied()
    table.watches.policies_changed()
    await table.settled()
    assert (table.told, len(table.watches), table.forgotten) == ([], 1, [("one", "x://1")])
    table.watches.updated("one", "x://2")
    table.watches.policies_changed()
    await table.settled()
    assert table.told == [("a", "x://2")], "one look does for both"
    assert table.looked == ["x://1", "x://2", "x://2"]


async def test_what_cannot_be_decided_ends_nothing_tells_nobody_and_is_asked_again(table, monkeypatch):
    monkeypatch.setattr("sidecar.enforcement.watches.AGAIN_S", 0.01)
    table.watches.add(table.watch("a", "x://1"))
    table.refused["x://1"] = DecisionUnavailable("away")
    table.watches.updated("one", "x://1")
    table.watches.policies_changed()
    while len(table.looked) < 3:  # noqa: ASYNC110 - it is looked at from outside
        await asyncio.sleep(0.01)
    assert (table.told, len(table.watches)) == ([], 1)
    table.refused.clear()
    await table.settled()
    assert table.told == [("a", "x://1")]


async def test_nothing_is_told_by_a_token_that_is_over_but_by_the_next_one(table):
    table.watches.add(table.watch("a", "x://1", lasts_s=5))
    table.clock.now += 6
    table.watches.updated("one", "x://1")
    await table.settled()
    assert (table.told, table.looked) == ([], [])
    table.watches.listening("a", table.caller("alice", 60))
    await table.settled()
    assert table.told == [("a", "x://1")]
    table.watches.listening("a", table.caller("alice", 60))
    await table.settled()
    assert table.told == [("a", "x://1")], "once"


async def test_one_that_does_not_listen_is_told_when_it_does(table):
    table.watches.add(table.watch("a", "x://1"))
    table.unreachable.add("a")
    table.watches.updated("one", "x://1")
    await table.settled()
    table.unreachable.clear()
    table.watches.listening("b", table.caller("bob", 60))
    await table.settled()
    assert table.told == []
    table.watches.listening("a", table.caller("alice", 60))
    await table.settled()
    assert table.told == [("a", "x://1")]


async def test_one_that_ended_while_it_was_looked_at_is_not_told(table):
    watch = table.watch("a", "x://1")
    table.watches.add(watch)
    table.watches.updated("one", "x://1")
    while not table.looked:  # noqa: ASYNC110 - it is looked at from outside
        await asyncio.sleep(0)
    table.watches.end("a")
    await table.settled()
    assert (table.told, table.watches.has(watch)) == ([], False)


def test_a_server_is_told_when_the_last_watch_of_a_resource_ends_and_not_before(table):
    for subscriber in ("a", "b"):
        for uri in ("x://1", "x://2"):
            table.watches.add(table.watch(subscriber, uri))
    table.watches.remove(("a", "x://1"))
    table.watches.remove(("a", "x://1"))
    table.watches.remove(("c", "x://2"))
    assert table.forgotten == []
    table.watches.end("b")
    assert table.forgotten == [("one", "x://1")]
    table.watches.end("a")
    assert table.forgotten == [("one", "x://1"), ("one", "x://2")]
    left = (table.watches._all, table.watches._of, table.watches._at, table.watches._held)
    assert not any(left)


def test_a_watch_in_place_of_an_earlier_one_takes_nothing_back_at_the_server(table):
    table.watches.add(table.watch("a", "x://1"))
    table.watches.add(table.watch("a", "x://1"))
    assert (len(table.watches), table.forgotten) == (1, [])


def test_of_a_subscriber_that_is_over_nothing_is_kept(table):
    table.over.add("a")
    with pytest.raises(SessionNotFound):
        table.watches.add(table.watch("a", "x://1"))
    assert len(table.watches) == 0


def test_a_subscriber_has_so_many_watches_and_no_more(table):
    for number in range(BOUNDS.watches_per_subscriber):
        table.watches.add(table.watch("a", f"x://{number}"))
    table.watches.require_room("a", "x://0")
    table.watches.require_room("b", "x://new")
    with pytest.raises(TooManyWatches):
        table.watches.add(table.watch("a", "x://new"))
    assert len(table.watches) == BOUNDS.watches_per_subscriber
    assert not table.evicted


def test_beyond_the_bound_the_user_with_most_makes_room_and_nobody_else(table):
    table.watches.add(table.watch("bob's", "x://bob", user="bob"))
    for number in range(BOUNDS.watches - 1):
        name = f"s{number // BOUNDS.watches_per_subscriber}"
        table.watches.add(table.watch(name, f"x://{number}", user="mallory"))
    assert not table.evicted
    table.watches.add(table.watch("carol's", "x://carol", user="carol"))
    assert (len(table.watches), table.evicted) == (BOUNDS.watches, 1)
    assert table.forgotten == [("one", "x://0")]
    table.watches.end("bob's")
    assert table.forgotten[-1] == ("one", "x://bob")
