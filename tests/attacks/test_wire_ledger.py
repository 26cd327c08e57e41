"""The ledger of the wire: malformed, ambiguous and hostile requests of both eras, and the near misses beside them.

What counts is what reached a server: the real MongoDB MCP server, behind a pipe that writes down every line. A request
that was not decided is not forwarded, and neither is any part of it; one that is, is forwarded as it was decided.
"""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo.identities import ANALYST, Person
from tests.attacks.attacker import Attacker, Reply
from tests.ledger import wire
from tests.mcp.requirements import REQUIREMENTS, Hole
from tests.parts import ROOT
from tests.patience import HANG_S

ANOTHER_USER = Person(user="anna", agent="claude-desktop", groups=("analysts",), scopes=("mongodb:read",))
ANOTHER_AGENT = Person(user="alice", agent="other-agent", groups=("analysts",), scopes=("mongodb:read",))
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
USUAL = {
    "Host": "127.0.0.1",
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "Connection": "close",
    "Authorization": "Bearer {token}",
}
MIRRORED = {"MCP-Protocol-Version": wire.STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": "find"}
OF_THE_SIDECAR = {"initialize", "notifications/initialized", "tools/list", "ping", "server/discover"}
ROWS = {row.title: row for row in wire.rows()}
FAMILIES: dict[str, list[wire.Row]] = {}
for one in wire.rows():
    FAMILIES.setdefault(one.title.partition(": ")[0], []).append(one)


class Wire:
    """A deployment with sessions of every revision, and one request at a time.

    Args:
        attacker: the deployment's.
    """

    def __init__(self, attacker: Attacker) -> None:
        self.attacker = attacker
        self._read: dict[Path, int] = {}
        self.sessions = {revision: attacker.open(ANALYST, revision) for revision in REVISIONS}
        deployment = attacker.deployment
        token, another = deployment.token(ANALYST), deployment.token(ANOTHER_USER)
        ended = attacker.open(ANALYST)
        assert attacker.send(ANALYST, method="DELETE", session=ended).status == 204
        self.words = {
            "token": token,
            "other_token": another,
            "other_agent": deployment.token(ANOTHER_AGENT),
            "elsewhere": deployment.token(ANALYST, audience="https://other.example/mcp"),
            "unsigned": token.rpartition(".")[0] + ".",
            "mixed": ".".join([*token.split(".")[:2], another.rpartition(".")[2]]),
            "other": attacker.open(ANOTHER_USER),
            "ended": ended,
            "port": str(deployment.port),
        }

    def send(self, row: wire.Row) -> Reply:
        """Send the request of a row and read its whole answer."""
        usual, words = dict(USUAL), dict(self.words)
        if row.era == wire.STATELESS:
            usual |= MIRRORED
        elif row.era != "none":
            usual["Mcp-Session-Id"] = "{session}"
        session = self.sessions.get(row.era, self.sessions["2025-11-25"])
        words |= {"session": session, "SESSION": session.swapcase()}
        with socket.create_connection(("127.0.0.1", self.attacker.deployment.port), timeout=HANG_S) as connection:
            with contextlib.suppress(ConnectionError):  # it was refused before it was read to its end
                connection.sendall(wire.request(row.sent, usual, words))
            response = HTTPResponse(connection, method=row.sent.get("method"))
            response.begin()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def forwarded(self) -> list[dict[str, Any]]:
        """What reached the servers since this was asked last, and was not the sidecar's own."""
        folder = self.attacker.deployment.folder
        lines = [line for name in ("demo-ro", "demo-rw") for line in self._new(folder / f"{name}.stdin")]
        messages = [json.loads(line) for line in lines]  # noqa: TID251 - what the sidecar sent
        return [message for message in messages if message.get("method") not in OF_THE_SIDECAR]

    def records(self) -> list[dict[str, Any]]:
        """The evidence since this was asked last."""
        return [json.loads(line) for line in self._new(self.attacker.deployment.audit_file)]  # noqa: TID251 - our own

    def _new(self, file: Path) -> list[bytes]:
        with file.open("rb") as opened:
            opened.seek(self._read.get(file, 0))
            text = opened.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read[file] = self._read.get(file, 0) + len(whole)
        return whole.splitlines()


@pytest.fixture(scope="module")
def ledger(deployment: Any) -> Iterator[Wire]:
    attacker = Attacker(deployment)
    made = Wire(attacker)
    yield made
    assert deployment.ready(), "a request left the product unready"
    for revision, session in made.sessions.items():
        pinged = attacker.send(ANALYST, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, session=session)
        assert pinged.json == {"jsonrpc": "2.0", "id": 1, "result": {}}, f"the session of {revision} is over"


def said(reply: Reply) -> int | None:
    """Return the JSON-RPC code of an answer; 0 for the refusal of a call, None for anything else."""
    if reply.headers.get("content-type") != "application/json" or not reply.body:
        return None
    answers = reply.json if isinstance(reply.json, list) else [reply.json]
    codes = {answer.get("error", {}).get("code") for answer in answers}
    refused = [answer.get("result", {}).get("isError") for answer in answers]
    return 0 if all(refused) else codes.pop() if len(codes) == 1 else None


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_not_decided_was_not_forwarded(ledger: Wire, family: str) -> None:
    ledger.forwarded(), ledger.records()
    wrong = {row.title: fault for row in FAMILIES[family] if (fault := fault_of(ledger, row)) is not None}
    assert not wrong


def fault_of(ledger: Wire, row: wire.Row) -> object | None:
    """Send a row; return what is other than it says, or None."""
    reply = ledger.send(row)
    messages, records = ledger.forwarded(), ledger.records()
    if len(messages) != row.forwarded or not all(map(is_decided, messages)):
        return messages
    if (reply.status, said(reply)) != (row.status, row.code):
        return reply
    if row.recorded is not None and len(records) != row.recorded:
        return records
    if row.era == wire.STATELESS and row.forwarded:
        result = reply.json["result"]
        named = result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]
        sessions = {(record["session"], record["protocol"]) for record in records}
        if (result["resultType"], named, sessions) != ("complete", "mcp-sidecar", {(None, wire.STATELESS)}):
            return reply
        return reply if "mcp-session-id" in reply.headers else None
    return None


def is_decided(message: dict[str, Any]) -> bool:
    """Whether a message is the one call that policy grants here, and nothing else."""
    if message.keys() != {"jsonrpc", "id", "method", "params"} or message["method"] != "tools/call":
        return False
    target = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}.items()
    return bool(message["params"]["name"] == "find" and message["params"]["arguments"].items() >= target)


REFUSED_UNREAD = ("stateless twice: header", "stateless leg: ", "stateless state: no token")
"""Refused before the body is read, so that no id is known."""
UNREAD = {
    "stateless revision: two in one header",
    "stateless revision: two alike in one header",
    "stateless shape: no streams accepted",
}


def test_every_answer_names_its_request_where_that_was_readable(ledger: Wire) -> None:
    """MCP 2026-07-28, basic, error responses; clients of 2025-11-25 cannot tell whose answer another one is."""
    nameless = []
    for row in ROWS.values():
        message: Any = row.sent.get("message")
        if not isinstance(message, dict) or "method" not in message or type(message.get("id")) is not int:
            continue
        read = row.status == HTTPStatus.OK or (row.era == wire.STATELESS and row.title not in UNREAD)
        if read and not row.title.startswith(REFUSED_UNREAD) and ledger.send(row).json.get("id") != message["id"]:
            nameless.append(row.title)
    assert not nameless


def test_the_ledger_has_as_many_rows_as_it_should_and_no_two_are_alike() -> None:
    refused = [row for row in wire.rows() if not row.forwarded]
    assert len(refused) >= 300
    assert len(ROWS) == len(wire.rows())
    told = {"title", "of", "status", "code", "recorded"}
    sent = {json.dumps({name: said for name, said in row.sent.items() if name not in told}) for row in wire.rows()}
    assert len(sent) == len(ROWS)
    assert {row.era for row in wire.rows()} == {wire.STATELESS, *REVISIONS, "none"}
    assert len(wire.rows()) - len(refused) >= 30, "near misses"


NOT_OF_A_REQUEST = frozenset(
    {"V-08", "V-09", "M-07", "M-08", "M-10", "M-22", "M-23", "M-24", "M-34", "M-40", "M-41", "M-53", "M-54", "M-56"}
    | {"M-59", "M-60", "M-61", "M-62", "M-64", "L-08", "L-10", "S-01", "S-02", "S-03", "S-04", "S-05", "G-06", "G-07"}
    | {"G-08", "G-09"}
)
"""What no single request can break: answers, streams, time, and the side of the server. Other tests hold them."""


def test_every_requirement_is_named_by_a_row_or_held_by_another_test() -> None:
    """``tests/mcp/test_requirements.py`` holds the table to the page and to the tests that there are."""
    named = {name for row in wire.rows() for name in row.of}
    assert named <= REQUIREMENTS.keys() | wire.THREATS.keys()
    assert REQUIREMENTS.keys() - named <= NOT_OF_A_REQUEST
    assert not [name for name, held in REQUIREMENTS.items() if isinstance(held, Hole)]
    held_elsewhere = {name: REQUIREMENTS[name] for name in NOT_OF_A_REQUEST - {"G-09"}}
    assert not [name for name, row in held_elsewhere.items() if isinstance(row, Hole) or not row.tests]


def test_every_attack_on_the_wire_that_is_known_is_named_by_a_row() -> None:
    page = (ROOT / "docs/reference/threats.md").read_text()
    sections = re.split(r"^## ", page, flags=re.MULTILINE)[1:4]
    attacks = [line[2:] for section in sections[:2] for line in section.splitlines() if line.startswith("| ")]
    attacks = [attack for attack in attacks if not attack.startswith("Attack ")]
    known = {text: name for name, text in wire.THREATS.items()}
    assert all(any(attack.startswith(text) for text in known) for attack in attacks), attacks
    assert all(any(attack.startswith(text) for attack in attacks) or text in sections[2] for text in known)
    named = {name for row in wire.rows() for name in row.of}
    assert wire.THREATS.keys() <= named
    published = set(re.findall(r"CVE-\d{4}-\d+|GHSA(?:-[a-z0-9]{4}){3}", sections[2]))
    assert published - known.keys() == wire.ELSEWHERE.keys()
    for test in wire.ELSEWHERE.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), test
