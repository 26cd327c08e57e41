"""Sessions that another replica opened: who may go on with them, how long, and what ends them."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from sidecar.enforcement import Caller, Exchange, Ports, SharedSessions
from sidecar.enforcement.handshake import Handshake
from sidecar.errors import McpRevisionError, SessionNotFound, SessionRequired, TooManySessions
from sidecar.mcp import EndedSessions, HandleKeys, McpRevision, Request, Session, Sessions
from sidecar.model import Actor, Identity, JsonObject, Principal
from sidecar.system import RandomIdentifiers
from sidecar.telemetry import OtelMetrics

LIFETIME_S, IDLE_S = 1000, 100
ANN = Identity(
    principal=Principal(issuer="https://idp.example", subject="ann"), actor=Actor(id="desk"), expires_at=2_000_000_000
)
NEIGHBOURS = {
    "user": replace(ANN, principal=Principal(issuer="https://idp.example", subject="bob")),
    "agent": replace(ANN, actor=Actor(id="desk2")),
    "issuer": replace(ANN, principal=Principal(issuer="https://idp2.example", subject="ann")),
}
HELLO: JsonObject = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "client " + "ü" * 60, "version": "1"},
}


@dataclass
class Hours:
    """A clock that is set, the same for all replicas, and monotonic clocks that are not."""

    seconds: float = 1_000_000.0
    booted: float = 0.0

    def time_ns(self) -> int:
        return int(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds - self.booted


@dataclass
class Replica:
    """One sidecar's sessions."""

    keys: HandleKeys
    clock: Hours = field(default_factory=Hours)
    per_identity: int = 8
    total: int = 8
    ended: EndedSessions = field(default_factory=EndedSessions)

    def __post_init__(self) -> None:
        shared = SharedSessions(lambda: self.keys, self.ended, self.clock, lifetime_s=LIFETIME_S)
        self.sessions = Sessions(self.total, self.per_identity, IDLE_S, ended=shared.end)
        nothing = cast("Any", None)
        metrics = OtelMetrics(methods=(), tools=(), servers=(), endpoint_configured=False, protocol="", version="0")
        ports = Ports(
            verifier=nothing,
            decisions=nothing,
            audit=nothing,
            upstreams={},
            clock=self.clock,
            identifiers=RandomIdentifiers(),
            tracer=nothing,
            metrics=metrics,
            shared_sessions=shared,
        )
        self.handshake = Handshake(self.sessions, ports)

    def open(self, identity: Identity = ANN) -> str:
        message = Request(id=1, method="initialize", params=HELLO)
        return self.handshake.initialize(message, caller(identity)).id

    def go_on(self, session_id: str | None, identity: Identity = ANN, protocol: str | None = "2025-06-18") -> Session:
        return self.handshake.session(exchange(session_id, protocol), caller(identity))

    def end(self, session_id: str, identity: Identity = ANN) -> None:
        self.handshake.end(exchange(session_id, "2025-06-18"), caller(identity))


def caller(identity: Identity) -> Caller:
    return Caller(identity=identity, began_ns=0, ended_ns=0)


def exchange(session_id: str | None, protocol: str | None) -> Exchange:
    return Exchange(transport="test", client_ip="127.0.0.1", session_id=session_id, protocol=protocol)


@pytest.fixture
def pair() -> tuple[Replica, Replica]:
    keys, clock = HandleKeys([b"k" * 32], "https://mcp.example/mcp"), Hours()
    return Replica(keys, clock), Replica(keys, replace(clock, booted=999_000.0))


def test_another_replica_goes_on_with_what_was_agreed(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    session_id = here.open()
    found = there.go_on(session_id)
    assert (found.id, found.key, found.revision) == (session_id, ANN.key, McpRevision.V2025_06_18)
    assert found.initialized
    assert found.client_name.startswith("client ü")
    assert len(there.sessions) == 1
    assert there.go_on(session_id).id == session_id
    assert len(there.sessions) == 1
    with pytest.raises(McpRevisionError):
        there.go_on(session_id, protocol="2025-11-25")


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
def test_a_handle_of_another_identity_is_what_never_existed(pair: tuple[Replica, Replica], neighbour: str) -> None:
    here, there = pair
    session_id = here.open()
    errors = []
    for replica in pair:
        for name in (session_id, "never-existed", session_id[:-1] + ("A" if session_id[-1] != "A" else "B")):
            with pytest.raises(SessionNotFound) as refused:
                replica.go_on(name, NEIGHBOURS[neighbour])
            errors.append((type(refused.value), refused.value.detail, refused.value.public))
    assert len(set(errors)) == 1
    assert len(there.sessions) == 0
    assert there.go_on(session_id).id == session_id, "its owner goes on"


def test_without_an_id_there_is_nothing_to_go_on_with(pair: tuple[Replica, Replica]) -> None:
    for name in (None, ""):
        with pytest.raises(SessionRequired):
            pair[1].go_on(name)


def test_a_session_ends_everywhere_when_its_time_is_over(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    session_id = here.open()
    for replica in pair:
        replica.clock.seconds += LIFETIME_S - 1
    there.go_on(session_id)
    here.go_on(session_id)
    for replica in pair:
        replica.clock.seconds += 1
        for _ in range(2):
            with pytest.raises(SessionNotFound):
                replica.go_on(session_id)
    assert [len(replica.sessions) for replica in pair] == [0, 0]


def test_an_idle_session_gives_its_place_away_and_is_taken_up_again(pair: tuple[Replica, Replica]) -> None:
    here, _ = pair
    session_id = here.open()
    here.clock.seconds += IDLE_S + 1
    assert not here.sessions.lasts(session_id, here.clock.monotonic())
    assert here.go_on(session_id).initialized
    assert here.ended.take_untold() == ()


def test_delete_ends_it_here_at_once_and_elsewhere_when_it_is_told(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    session_id = here.open()
    there.go_on(session_id)
    here.end(session_id)
    with pytest.raises(SessionNotFound):
        here.go_on(session_id)
    with pytest.raises(SessionNotFound):
        here.end(session_id)
    late = Replica(there.keys, there.clock)
    told = here.ended.take_untold()
    for replica in (there, late):
        replica.ended.learn(told)
        assert len(replica.sessions) == 0
        with pytest.raises(SessionNotFound):
            replica.go_on(session_id)
        assert replica.ended.take_untold() == (), "it is not told again"


def test_what_made_room_does_not_come_back(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    small = Replica(here.keys, here.clock, per_identity=2)
    first, second, third = (here.open() for _ in range(3))
    for session_id in (first, second, third):
        small.go_on(session_id)
    with pytest.raises(SessionNotFound):
        small.go_on(first)
    assert len(small.sessions) == 2
    assert there.go_on(first).id == first, "another replica has room"


def test_one_identity_that_brings_many_sessions_along_takes_no_place_of_another(pair: tuple[Replica, Replica]) -> None:
    here, _ = pair
    small = Replica(here.keys, here.clock, per_identity=2, total=3)
    other = here.open(NEIGHBOURS["user"])
    small.go_on(other, NEIGHBOURS["user"])
    for session_id in [here.open() for _ in range(8)]:
        small.go_on(session_id)
    assert small.go_on(other, NEIGHBOURS["user"]).id == other
    assert len(small.sessions) == 3


def test_where_every_place_is_in_use_a_session_from_elsewhere_is_refused(pair: tuple[Replica, Replica]) -> None:
    here, _ = pair
    small = Replica(here.keys, here.clock, per_identity=1)
    first, second = here.open(), here.open()
    with small.sessions.calling(small.go_on(first), small.clock.monotonic), pytest.raises(TooManySessions):
        small.go_on(second)
    assert small.go_on(second).id == second


def test_a_suspension_ends_sessions_for_good(pair: tuple[Replica, Replica]) -> None:
    here, there = pair
    session_id = here.open()
    there.go_on(session_id)
    for replica in pair:
        replica.sessions.close_all(lambda session: session.key == ANN.key)
        with pytest.raises(SessionNotFound):
            replica.go_on(session_id)
    assert [len(replica.sessions) for replica in pair] == [0, 0]
