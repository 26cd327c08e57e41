"""The table of exports: whose they are, for how long, how many, and under which spellings."""

import json

import pytest

from sidecar.enforcement.exports import KEPT_S, MAX_CALLERS, MAX_OF_CALLER, Exports
from sidecar.mcp import Conversation, Era, McpRevision, Session
from sidecar.mcp.resources import normalised
from sidecar.model import Access, AccessKind, Command, Namespace

COMMAND = Command(
    tool="export",
    accesses=(Access(kind=AccessKind.READ, namespace=Namespace(database="d", collection="c"), via="/name"),),
)


def talk(user: str = "ann", session: str = "s1", agent: str = "desk") -> Conversation:
    key = ("https://idp.example", user, agent)
    if not session:
        return Conversation(era=Era.STATELESS, revision=McpRevision.V2025_11_25, client_name="", key=key)
    revision = McpRevision.V2025_11_25
    return Conversation.within(Session(id=session, key=key, revision=revision, client_name="c", initialized=True))


def result(*uris: str) -> bytes:
    links = [{"type": "resource_link", "name": "n.json", "uri": uri} for uri in uris]
    return json.dumps({"content": [{"type": "text", "text": "exported-data://text.json"}, *links]}).encode()


def uri(number: int) -> str:
    return f"exported-data://{number:024x}.json"


class Gone(list[tuple[str, str]]):
    """What left the table before its time."""

    def note(self, server: str, uri: str) -> None:
        self.append((server, uri))


def noted(exports: Exports, whose: Conversation, *numbers: int, now: float = 0.0) -> None:
    for number in numbers:
        exports.note(whose, result(uri(number)), COMMAND, "ro", now)


def test_an_export_is_found_by_the_session_that_made_it_and_no_other():
    exports = Exports()
    noted(exports, talk(), 1)
    found = exports.find(talk(), uri(1), 1.0)
    assert found is not None
    assert (found.uri, found.server, found.command) == (uri(1), "ro", COMMAND)
    for other in (talk("bob"), talk(session="s2"), talk(agent="other"), talk(session="")):
        assert exports.find(other, uri(1), 1.0) is None
        assert exports.of(other, 1.0) == ()


def test_without_sessions_an_export_is_the_callers_only():
    exports = Exports()
    noted(exports, talk(session=""), 1)
    assert exports.find(talk(session=""), uri(1), 1.0) is not None
    assert exports.find(talk("bob", session=""), uri(1), 1.0) is None
    assert exports.find(talk(), uri(1), 1.0) is None


def test_an_export_expires_when_the_server_drops_it():
    exports = Exports()
    noted(exports, talk(), 1, now=10.0)
    assert exports.find(talk(), uri(1), 10.0 + KEPT_S - 0.1) is not None
    assert exports.find(talk(), uri(1), 10.0 + KEPT_S) is None


def test_what_has_expired_leaves_the_table_whoever_uses_it():
    exports = Exports()
    for number in range(20):
        noted(exports, talk(f"user {number}"), number, now=float(number))
    assert len(exports) == 20
    assert exports.of(talk("somebody else"), KEPT_S + 9.0) == ()
    assert len(exports) == 10, "those of users 0 to 9 have expired"
    assert exports.find(talk("user 10"), uri(10), KEPT_S + 9.5) is not None
    assert exports.of(talk("user 19"), 2 * KEPT_S) == ()
    assert len(exports) == 0


def test_of_one_caller_what_has_expired_goes_and_what_was_made_again_stays():
    exports = Exports()
    noted(exports, talk(), 1, 2, now=0.0)
    noted(exports, talk(session="s2"), 3, now=50.0)
    noted(exports, talk(), 1, now=100.0)
    assert [one.uri for one in exports.of(talk(), KEPT_S)] == [uri(1)]
    assert len(exports) == 2
    noted(exports, talk(session="s2"), 4, now=KEPT_S + 200.0)
    assert len(exports) == 1


@pytest.mark.parametrize("spelling", [str.upper, lambda text: text.replace("0", "%30"), lambda text: text + "?x=1"])
def test_only_what_the_server_takes_to_be_the_same_is_the_same(spelling):
    exports = Exports()
    noted(exports, talk(), 1)
    same = normalised(spelling(uri(1))) == normalised(uri(1))
    assert (exports.find(talk(), spelling(uri(1)), 1.0) is not None) is same


@pytest.mark.parametrize(
    "wrong",
    ["config://config", "exported-data://a/b", "exported-data://", "exported-data://a b", "x" * 300, "debug://x"],
)
def test_a_link_to_anything_else_is_not_noted(wrong):
    exports = Exports()
    exports.note(talk(), result(wrong), COMMAND, "ro", 0.0)
    exports.note(talk(), b'{"content": 1}', COMMAND, "ro", 0.0)
    exports.note(talk(), b"[" * 5000, COMMAND, "ro", 0.0)
    assert exports.of(talk(), 0.0) == ()


def test_a_caller_keeps_the_newest_and_takes_no_place_of_others():
    exports = Exports()
    noted(exports, talk("bob"), 0)
    for session in range(40):
        noted(exports, talk(session=f"s{session}"), *range(session * 10 + 1, session * 10 + 11))
    kept = [one for session in range(40) for one in exports.of(talk(session=f"s{session}"), 0.0)]
    assert len(kept) == MAX_OF_CALLER
    assert kept[-1].uri == uri(400)
    assert exports.find(talk("bob"), uri(0), 0.0) is not None


def test_the_caller_that_was_quiet_for_longest_goes_first():
    exports = Exports()
    for number in range(MAX_CALLERS + 1):
        noted(exports, talk(f"u{number}"), number)
    assert exports.find(talk("u0"), uri(0), 0.0) is None
    assert exports.find(talk("u1"), uri(1), 0.0) is not None


def test_an_export_that_the_server_has_lost_is_forgotten():
    exports = Exports()
    noted(exports, talk(), 1, 2)
    found = exports.find(talk(), uri(1), 0.0)
    assert found is not None
    exports.forget(talk(), found)
    exports.forget(talk("bob"), found)
    assert [one.uri for one in exports.of(talk(), 0.0)] == [uri(2)]


def test_the_exports_of_a_session_go_with_it_and_no_others():
    gone = Gone()
    exports = Exports(gone.note)
    noted(exports, talk(), 1, 2)
    noted(exports, talk(session="s2"), 3)
    noted(exports, talk(session=""), 4)
    noted(exports, talk("bob", session="s3"), 5)
    exports.end("s1")
    exports.end("s1")
    exports.end("")
    exports.end("never was")
    assert gone == [("ro", uri(1)), ("ro", uri(2))]
    assert exports.of(talk(), 0.0) == ()
    assert [exports.find(talk(session="s2"), uri(3), 0.0) is not None, len(exports)] == [True, 3]


def test_what_makes_room_for_newer_ones_goes_too():
    gone = Gone()
    exports = Exports(gone.note)
    noted(exports, talk(), *range(MAX_OF_CALLER + 2))
    assert gone == [("ro", uri(0)), ("ro", uri(1))]
    for number in range(MAX_CALLERS):
        noted(exports, talk(f"u{number}"), 1000 + number)
    assert gone[2:] == [("ro", uri(number)) for number in range(2, MAX_OF_CALLER + 2)]


def test_what_is_made_in_a_session_that_is_over_by_then_goes_at_once():
    gone = Gone()
    exports = Exports(gone.note, lambda session_id: session_id != "s1")
    noted(exports, talk(), 1)
    noted(exports, talk(session="s2"), 2)
    assert gone == [("ro", uri(1))]
    assert exports.find(talk(), uri(1), 0.0) is None
    assert len(exports) == 1


def test_what_is_linked_by_an_answer_that_goes_to_nobody_goes():
    gone = Gone()
    Exports(gone.note).withheld(result(uri(1), "config://config"), "ro")
    Exports(gone.note).withheld(b"", "ro")
    assert gone == [("ro", uri(1))]


def test_what_has_expired_is_left_to_the_server_and_what_it_lost_is_told_once():
    gone = Gone()
    exports = Exports(gone.note)
    noted(exports, talk(), 1)
    assert exports.of(talk(), KEPT_S) == ()
    assert gone == []
    noted(exports, talk(), 2)
    found = exports.find(talk(), uri(2), 0.0)
    assert found is not None
    exports.forget(talk(), found)
    exports.forget(talk(), found)
    assert gone == [("ro", uri(2))]


def test_an_export_made_again_is_not_taken_for_gone():
    gone = Gone()
    exports = Exports(gone.note)
    noted(exports, talk(), 1)
    noted(exports, talk(), 1)
    assert gone == []
    exports.end("s1")
    assert gone == [("ro", uri(1))]
