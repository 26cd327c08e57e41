"""No interleaving lets one identity use another's session, and there is a bound to how many there are."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sidecar.errors import SessionNotFound, SessionRequired, TooManySessions
from sidecar.mcp.revision import McpRevision
from sidecar.mcp.session import IdentityKey, Session, Sessions

ISSUER = "https://idp.example"
ALICE = (ISSUER, "alice", "desktop")
NEIGHBOURS = [
    (ISSUER, "bob", "desktop"),
    (ISSUER, "alice", "other-agent"),
    ("https://idp.example/", "alice", "desktop"),
    (ISSUER, "Alice", "desktop"),
]
CLIENT = "probe"
IDLE_S = 10.0


def opened(*, max_total: int = 3, max_per_identity: int = 2, idle_s: float = IDLE_S) -> Sessions:
    sessions = Sessions(max_total, max_per_identity, idle_s)
    sessions.open("s1", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
    return sessions


def use(sessions: Sessions, verb: str, session_id: str | None, key: IdentityKey, now: float) -> Session:
    return {"find": sessions.find, "initialized": sessions.initialized, "close": sessions.close}[verb](
        session_id, key, now
    )


verbs = pytest.mark.parametrize("verb", ["find", "initialized", "close"])


@verbs
def test_the_owner_may_use_the_session(verb):
    assert use(opened(), verb, "s1", ALICE, 1.0).key == ALICE


@verbs
@pytest.mark.parametrize("key", NEIGHBOURS)
def test_another_identity_is_answered_exactly_as_for_a_session_that_never_was(verb, key):
    sessions = opened()
    with pytest.raises(SessionNotFound) as foreign:
        use(sessions, verb, "s1", key, 1.0)
    with pytest.raises(SessionNotFound) as unknown:
        use(sessions, verb, "s2", key, 1.0)
    assert (str(foreign.value), foreign.value.detail) == (str(unknown.value), unknown.value.detail)
    assert sessions.find("s1", ALICE, 1.0).key == ALICE


@verbs
@pytest.mark.parametrize("missing", [None, ""])
def test_no_session_id_is_told_from_an_unknown_one(verb, missing):
    with pytest.raises(SessionRequired):
        use(opened(), verb, missing, ALICE, 1.0)


def test_a_closed_session_is_gone():
    sessions = opened()
    sessions.close("s1", ALICE, 1.0)
    with pytest.raises(SessionNotFound):
        sessions.find("s1", ALICE, 1.0)
    assert len(sessions) == 0


@verbs
def test_a_session_ends_when_it_was_idle_for_the_limit_and_not_before(verb):
    assert use(opened(), verb, "s1", ALICE, IDLE_S - 0.001).id == "s1"
    sessions = opened()
    with pytest.raises(SessionNotFound):
        use(sessions, verb, "s1", ALICE, IDLE_S)
    assert len(sessions) == 0


def test_every_end_of_a_session_is_told_once_however_it_came():
    sessions = opened(max_total=3, max_per_identity=2)
    told: list[str] = []
    sessions.on_end(told.append)
    sessions.open("s2", ALICE, McpRevision.V2025_11_25, CLIENT, 1.0)
    assert told == []
    sessions.open("s3", ALICE, McpRevision.V2025_11_25, CLIENT, 2.0)
    assert told == ["s1"], "it made room"
    sessions.close("s2", ALICE, 2.0)
    assert told == ["s1", "s2"]
    sessions.open("s4", NEIGHBOURS[0], McpRevision.V2025_11_25, CLIENT, 2.0)
    assert [one.id for one in sessions.close_all(lambda session: session.key == NEIGHBOURS[0])] == ["s4"]
    sessions.evict(IDLE_S + 2.0)
    assert told == ["s1", "s2", "s4", "s3"]


def test_a_foreign_knock_does_not_keep_a_session_alive():
    sessions = opened()
    with pytest.raises(SessionNotFound):
        sessions.find("s1", NEIGHBOURS[0], IDLE_S - 1)
    with pytest.raises(SessionNotFound):
        sessions.find("s1", ALICE, IDLE_S)


def lasts(sessions: Sessions, name: str, now: float) -> bool:
    """Whether a session is open; looking is no use of it."""
    session = sessions._open.get(name)
    return session is not None and not sessions._idle(session, now)


def names(sessions: Sessions, *candidates: str) -> list[str]:
    return [name for name in candidates if lasts(sessions, name, 0.0)]


def clock() -> float:
    return 0.0


def test_the_least_recently_used_session_of_an_identity_makes_room_for_its_next():
    sessions = opened()
    sessions.open("s2", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
    sessions.find("s1", ALICE, 0.0)
    sessions.open("s3", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
    assert names(sessions, "s1", "s2", "s3") == ["s1", "s3"]


def test_in_total_the_user_with_most_sessions_makes_room_and_nobody_else():
    sessions = opened()
    other_agent = (ALICE[0], ALICE[1], "another")
    sessions.open("s2", NEIGHBOURS[0], McpRevision.V2025_11_25, CLIENT, 0.0)
    sessions.open("s3", other_agent, McpRevision.V2025_11_25, CLIENT, 0.0)
    sessions.find("s1", ALICE, 0.0)
    bob = ("https://idp.corp.example", "bob", "another")
    sessions.open("s4", bob, McpRevision.V2025_11_25, CLIENT, 0.0)
    assert names(sessions, "s1", "s2", "s3", "s4") == ["s1", "s2", "s4"]


def test_a_session_with_a_stream_makes_room_last_and_one_with_a_call_never():
    sessions = opened()
    first = sessions.find("s1", ALICE, 0.0)
    second = sessions.open("s2", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
    with sessions.streaming(first, clock):
        sessions.open("s3", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
        assert names(sessions, "s1", "s2", "s3") == ["s1", "s3"]
    with sessions.calling(first, clock):
        third = sessions.open("s4", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
        assert names(sessions, "s1", "s3", "s4") == ["s1", "s4"]
        with sessions.calling(third, clock), pytest.raises(TooManySessions):
            sessions.open("s5", ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)
    with sessions.streaming(second, clock):
        assert not lasts(sessions, "s2", 0.0), "using a session that has ended does not bring it back"


@pytest.mark.parametrize("use", ["calling", "streaming"])
def test_a_session_that_is_in_use_does_not_idle_and_idles_from_then_on(use):
    sessions = opened()
    session = sessions.find("s1", ALICE, 0.0)
    with getattr(sessions, use)(session, lambda: 5 * IDLE_S):
        sessions.evict(3 * IDLE_S)
        assert lasts(sessions, "s1", 4 * IDLE_S)
        sessions.find("s1", ALICE, 4 * IDLE_S)
    assert lasts(sessions, "s1", 6 * IDLE_S - 1)
    assert not lasts(sessions, "s1", 6 * IDLE_S)


def test_what_makes_room_is_counted_and_what_ends_by_itself_is_not():
    evicted: list[str] = []
    sessions = opened()
    sessions.on_evicted(lambda: evicted.append("one"))
    sessions.open("s2", ALICE, McpRevision.V2025_11_25, CLIENT, 1.0)
    assert evicted == []
    sessions.open("s3", ALICE, McpRevision.V2025_11_25, CLIENT, 2.0)
    assert evicted == ["one"]
    sessions.close("s3", ALICE, 3.0)
    sessions.evict(2 * IDLE_S)
    assert evicted == ["one"]


def test_idle_sessions_make_room():
    sessions = opened(max_total=1, max_per_identity=1)
    sessions.open("s2", ALICE, McpRevision.V2025_11_25, CLIENT, IDLE_S)
    assert len(sessions) == 1


@pytest.mark.parametrize("session_id", ["", "s1", "a b", "a\n", "ü", "\x7f"])
def test_a_session_id_is_new_and_of_visible_ascii(session_id):
    with pytest.raises(ValueError):
        opened().open(session_id, ALICE, McpRevision.V2025_11_25, CLIENT, 0.0)


@pytest.mark.parametrize("bounds", [{"max_total": 0}, {"max_per_identity": 0}, {"idle_s": 0}, {"idle_s": float("nan")}])
def test_a_registry_without_bounds_cannot_be_made(bounds):
    with pytest.raises(ValueError):
        opened(**bounds)


def test_the_handshake_is_noted():
    sessions = opened()
    assert not sessions.find("s1", ALICE, 1.0).initialized
    assert sessions.initialized("s1", ALICE, 1.0).initialized
    assert sessions.find("s1", ALICE, 2.0).initialized


class SessionMachine(RuleBasedStateMachine):
    """Several identities open, use, close and let lapse; a plain dictionary says what must be true."""

    ids = Bundle("ids")
    identities = st.sampled_from([ALICE, *NEIGHBOURS])

    def __init__(self) -> None:
        super().__init__()
        self.sessions = Sessions(max_total=4, max_per_identity=2, idle_s=IDLE_S)
        self.now = 0.0
        self.count = 0
        self.alive: dict[str, tuple[IdentityKey, float]] = {}

    def owned(self, session_id: str, key: IdentityKey) -> bool:
        owner, used = self.alive.get(session_id, (None, 0.0))
        return owner == key and self.now - used < IDLE_S

    def living(self) -> dict[str, IdentityKey]:
        return {name: owner for name, (owner, used) in self.alive.items() if self.now - used < IDLE_S}

    @rule(target=ids, key=identities)
    def open(self, key):
        self.count += 1
        name = f"s{self.count}"
        living = self.living()
        full = len(living) >= 4 or list(living.values()).count(key) >= 2
        self.sessions.open(name, key, McpRevision.V2025_06_18, CLIENT, self.now)
        ended = {other for other in living if not lasts(self.sessions, other, self.now)}
        assert len(ended) == full
        if list(living.values()).count(key) >= 2:
            assert {living[other] for other in ended} == {key}
        for other in ended:
            del self.alive[other]
        self.alive[name] = (key, self.now)
        return name

    @rule(name=ids, key=identities, verb=st.sampled_from(["find", "initialized"]))
    def use(self, name, key, verb):
        mine = self.owned(name, key)
        try:
            session = use(self.sessions, verb, name, key, self.now)
        except SessionNotFound:
            assert not mine
        else:
            assert mine
            assert (session.id, session.key) == (name, key)
            self.alive[name] = (key, self.now)

    @rule(name=consumes(ids), key=identities)
    def close(self, name, key):
        mine = self.owned(name, key)
        try:
            self.sessions.close(name, key, self.now)
        except SessionNotFound:
            assert not mine
        else:
            assert mine
            del self.alive[name]

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def bounded(self):
        assert len(self.living()) <= len(self.sessions) <= 4


TestSessionMachine = SessionMachine.TestCase
