"""Whatever two users do beside each other, in any order: no message reaches another identity, session or call.

A state machine: two users with disjoint rights, their sessions, equal request ids, slow calls, progress, cancellation,
lost connections, resumption, general streams, the end of sessions, and requests of MCP 2026-07-28 without sessions. The
endpoint, the policies with their OPA and the evidence are the product's; the server behind holds a call for as long as
the machine wants (``crossing``).
"""

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from typing_extensions import override

from sidecar.model import JsonObject
from sidecar.opa.managed import ManagedOpa
from sidecar.upstream.process import StdioUpstream
from tests import examples
from tests.enforcement.crossing import USERS, Held, Opened, Reader, World, answer_of, says
from tests.enforcement.streaming import message
from tests.patience import HANG_S
from tests.policy_sets import served

pytestmark = pytest.mark.real

STEPS_OF_ONE = 50
IN_FAST = 10_000
"""Steps that a run for every change has at least."""
MOST_ROUNDS = 3
"""The machine is played again while steps are too few or of too few kinds: both are chance."""
MOST_SESSIONS, MOST_STREAMS, MOST_HELD = 6, 30, 8
"""Below every bound of the product, of which other tests are."""
REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
WITHDRAWN = "The request was cancelled"

LEGS = ("ping", "call", "list", "cancel", "GET", "DELETE")
STEPS = {
    *(f"{leg} in another user's session" for leg in LEGS),
    *(f"a call {kind}, {end}" for kind in ("in a session", "stateless") for end in ("allowed", "refused")),
    *(f"{step} a call, {end}" for step in ("answer", "cancel") for end in ("read", "left")),
    *(f"{step} call, {kind}" for step in ("begin a slow", "leave a") for kind in ("in a session", "stateless")),
    *(f"resume a call, {state}" for state in ("under way", "answered")),
    *(f"resume with an event id of {whose} session" for whose in ("own other", "another user's")),
    *(f"tell of a call, {how}" for how in ("asked", "unasked")),
    *(f"lists change, {count} listen" for count in (1, 2)),
    *(f"cancel {what}" for what in ("an id of no call", "another session's id")),
    *("open a session", "end a session", "list tools", "an id that is in flight", "listen", "listen again"),
    *("leave a general stream", "resume a general stream", "use an ended session"),
}
"""What the machine does."""

user = st.sampled_from(USERS)
number = st.integers(0, 63)
request_ids = st.sampled_from([1, 2, "1", "2"])
tokens = st.sampled_from([None, 1, "1"])


def other(name: str) -> str:
    return next(one for one in USERS if one != name)


class Crossing(RuleBasedStateMachine):
    """Two users at once; what a rule expects is what the protocol gives them, and nothing else may come."""

    world: ClassVar[World]
    visits: ClassVar[Counter[str]] = Counter()
    states: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Opened] = []
        self.ended: list[Opened] = []
        self.held: list[Held] = []
        self.answered: list[Held] = []
        """Calls that are over and whose streams can be read again."""
        self.orphans: list[Held] = []
        """Calls whose session ended while they were under way."""
        self.forwarded: set[str] = set()
        self.world.forget()

    # --- what is there ------------------------------------------------------------------------------------------------

    def pick(self, among: list[Any], at: int) -> Any:
        return among[at % len(among)]

    def visited(self, what: str) -> None:
        self.visits[what] += 1
        kinds = {
            "sessions": len(self.sessions),
            "held": len(self.held),
            "general": sum(one.general is not None for one in self.sessions),
            "left": sum(held.reader is None for held in self.held),
        }
        self.states[" ".join(f"{kind}={min(count, 2)}{'+' * (count > 1)}" for kind, count in kinds.items())] += 1

    def reading(self) -> int:
        readers = [held.reader for held in self.held] + [one.general for one in self.sessions]
        return sum(reader is not None for reader in readers)

    async def settled(self) -> None:
        """Wait until the server knows which connections are left."""
        pep = self.world.run.pep
        await self.world.until(
            lambda: pep._notices.reading == self.reading(), f"{self.reading()} streams that are read"
        )

    # --- sessions -----------------------------------------------------------------------------------------------------

    @initialize()
    def both_have_a_session(self) -> None:
        for name in USERS:
            self.open_session(name, REVISIONS[0])

    @precondition(lambda self: len(self.sessions) < MOST_SESSIONS)
    @rule(name=user, revision=st.sampled_from(REVISIONS))
    def opens(self, name: str, revision: str) -> None:
        self.open_session(name, revision)
        self.visited("open a session")

    def open_session(self, name: str, revision: str) -> None:
        opened = self.world.do(self.world.run.open(name, revision))
        assert opened not in {one.id for one in self.sessions + self.ended}
        self.sessions.append(Opened(name, opened, revision))

    @precondition(lambda self: len(self.sessions) > 2)
    @rule(at=number)
    def ends(self, at: int) -> None:
        self.world.do(self.end(self.pick(self.sessions, at)))
        self.visited("end a session")

    async def end(self, session: Opened) -> None:
        run = self.world.run
        async with self.world.http.delete(run.url, headers=run.headers(session.id, session.user)) as answer:
            assert answer.status == 204
        self.sessions.remove(session)
        self.ended.append(session)
        readers = [held.reader for held in session.held.values()] + [session.general]
        for reader in filter(None, readers):
            assert reader.task is not None
            await asyncio.wait({reader.task})
        for held in session.held.values():
            self.held.remove(held)
            self.orphans.append(held)
        self.answered = [one for one in self.answered if one.session is not session]
        await self.settled()

    @rule(at=number, foreign=st.booleans(), leg=st.sampled_from(LEGS))
    def uses_what_is_not_theirs(self, at: int, *, foreign: bool, leg: str) -> None:
        """Another user's session, or an own one that has ended, is one that never was."""
        found = self.sessions if foreign or not self.ended else self.ended
        session = self.pick(found, at)
        name = other(session.user) if found is self.sessions else session.user
        last = next((held.ids[-1] for held in self.held if held.ids), "x.1")
        assert self.world.do(self.tries(name, session.id, leg, last)) == self.world.do(
            self.tries(name, "never-was", leg, last)
        )
        self.visited(f"{leg} in another user's session" if found is self.sessions else "use an ended session")

    async def tries(self, name: str, session_id: str, leg: str, last: str) -> tuple[int, Any]:
        world, run = self.world, self.world.run
        headers = run.headers(session_id, name, **{"Last-Event-ID": last})
        match leg:
            case "GET" | "DELETE":
                async with world.http.request(leg, run.url, headers=headers) as answer:
                    assert answer.status == 404
                    return answer.status, await answer.json()
            case "ping":
                body = message("ping", number=1)
            case "list":
                body = message("tools/list", number=1)
            case "cancel":
                body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            case _:
                body = world.find(name, "", 1, token=None)
        status, said = await world.said(name, session_id, body)
        assert status == 404
        return status, said

    # --- calls --------------------------------------------------------------------------------------------------------

    @rule(at=number, name=user, request_id=request_ids, token=tokens, stateless=st.booleans(), may=st.booleans())
    def calls(self, at: int, name: str, request_id: Any, token: Any, *, stateless: bool, may: bool) -> None:
        """A call that is answered at once: what may be is forwarded, once; what may not never is."""
        session = None if stateless else self.pick(self.sessions, at)
        if session is not None and (request_id in session.held or session.streams >= MOST_STREAMS):
            return
        name = name if session is None else session.user
        mark = self.world.mark(name)
        body = self.world.find(name, mark, request_id, may=may, token=token)
        _, said = self.world.do(self.world.said(name, session.id if session else None, body))
        assert (said["id"], type(said["id"])) == (request_id, type(request_id))
        if session is not None:
            session.streams += 1
        if may:
            self.forwarded.add(mark)
            assert says(said) == answer_of(mark)
        else:
            assert said["result"]["isError"], "refused"
        kind = "stateless" if stateless else "in a session"
        self.visited(f"a call {kind}, {'allowed' if may else 'refused'}")

    @precondition(lambda self: any(one.held and one.streams < MOST_STREAMS for one in self.sessions))
    @rule(at=number, which=number)
    def repeats_an_id(self, at: int, which: int) -> None:
        """A call whose id another call of its session still has is answered with an error, and disturbs neither."""
        session = self.pick([one for one in self.sessions if one.held and one.streams < MOST_STREAMS], at)
        request_id = self.pick([*session.held], which)
        body = self.world.find(session.user, self.world.mark(session.user), request_id, token=None)
        _, said = self.world.do(self.world.said(session.user, session.id, body))
        session.streams += 1
        assert "error" in said
        self.visited("an id that is in flight")

    @rule(at=number)
    def lists(self, at: int) -> None:
        session = self.pick(self.sessions, at)
        _, said = self.world.do(self.world.said(session.user, session.id, message("tools/list", number=2)))
        assert said["id"] == 2
        assert {"find", "count"} <= {tool["name"] for tool in said["result"]["tools"]}
        self.visited("list tools")

    @precondition(lambda self: len(self.held) < MOST_HELD)
    @rule(
        at=number, name=user, request_id=request_ids, token=tokens, how=st.sampled_from(["stay", "leave", "stateless"])
    )
    def begins(self, at: int, name: str, request_id: Any, token: Any, how: str) -> None:
        """A call that its server does not answer yet, and whose client may lose the connection at once."""
        stateless = how == "stateless"
        session = None if stateless else self.pick(self.sessions, at)
        if session is not None and (request_id in session.held or session.streams >= MOST_STREAMS):
            return
        name = name if session is None else session.user
        held = Held(name, self.world.mark(name), request_id, token, session)
        self.world.do(self.begin(held))
        self.visited("begin a slow call, " + ("stateless" if stateless else "in a session"))
        if how == "leave":
            self.world.do(self.leave(held))
            self.visited("leave a call, in a session")

    async def begin(self, held: Held) -> None:
        world, session = self.world, held.session
        body = world.find(held.user, held.mark, held.request_id, slow=True, token=held.token)
        response = await world.post(held.user, session.id if session else None, body)
        assert (response.status, response.content_type) == (200, "text/event-stream")
        held.reader = world.of_call(response, held)
        await world.until(lambda: held.mark in world.gates, "the call to reach its server")
        self.forwarded.add(held.mark)
        self.held.append(held)
        if session is not None:
            session.held[held.request_id] = held
            session.streams += 1
            if session.revision == REVISIONS[0]:
                await world.until(lambda: held.ids, "the event that a stream begins with")
        await self.settled()

    @precondition(lambda self: self.held)
    @rule(at=number)
    def tells(self, at: int) -> None:
        held = self.pick(self.held, at)
        self.world.do(self.tell(held))
        self.visited("tell of a call, " + ("asked" if held.token is not None else "unasked"))

    async def tell(self, held: Held) -> None:
        told = self.world.reached[held.mark].tell
        assert (told is None) is (held.token is None)
        if told is None:
            return
        held.told += 1
        told("notifications/progress", {"progress": held.told, "message": held.mark})
        reader = held.reader
        if reader is not None:
            have = len(reader.messages)
            await self.world.until(lambda: len(reader.messages) > have, "progress")

    @precondition(lambda self: self.held)
    @rule(at=number)
    def answers(self, at: int) -> None:
        held = self.pick(self.held, at)
        self.visited("answer a call, " + ("read" if held.reader else "left"))
        held.final = answer_of(held.mark)
        self.world.gates[held.mark].set_result(None)
        self.world.do(self.finish(held))

    @precondition(lambda self: any(held.session for held in self.held))
    @rule(at=number)
    def cancels(self, at: int) -> None:
        held = self.pick([one for one in self.held if one.session], at)
        self.visited("cancel a call, " + ("read" if held.reader else "left"))
        held.final = WITHDRAWN
        self.world.do(self.cancel(held.session, held.request_id))
        self.world.do(self.finish(held))
        assert held.mark in self.world.withdrawn

    @precondition(lambda self: self.held)
    @rule(at=number, request_id=request_ids)
    def cancels_in_vain(self, at: int, request_id: Any) -> None:
        """An id of another session's call, also of the same user's, is nothing in this one."""
        session = self.pick(self.sessions, at)
        if request_id not in session.held:
            self.world.do(self.cancel(session, request_id))
            same = any(held.request_id == request_id for held in self.held)
            self.visited("cancel " + ("another session's id" if same else "an id of no call"))

    async def cancel(self, session: Opened, request_id: Any) -> None:
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}
        assert (await self.world.said(session.user, session.id, body))[0] == 202

    async def finish(self, held: Held) -> None:
        """Wait until a call is over, and see that its reader got all of it."""
        pep = self.world.run.pep
        self.held.remove(held)
        if held.session is not None:
            del held.session.held[held.request_id]
            self.answered.append(held)
        reader, held.reader = held.reader, None
        if reader is not None and reader.task is not None:
            await asyncio.wait({reader.task}, timeout=HANG_S)
            assert reader.over
            assert reader.messages, "it ended with the answer"
            assert reader.messages[-1].get("id") == held.request_id
        await self.world.until(lambda: len(pep._calls._in_flight) == self.flights, "the call to be over")
        await self.world.until(lambda: len(pep._answering._under_way) == self.flights, "its stream to be complete")
        await self.settled()

    @property
    def flights(self) -> int:
        return len(self.held) + len(self.orphans)

    # --- connections that are lost, and found again -------------------------------------------------------------------

    @precondition(lambda self: any(held.reader for held in self.held))
    @rule(at=number)
    def leaves_a_call(self, at: int) -> None:
        """In a session that is no cancellation; without one it is."""
        held = self.pick([one for one in self.held if one.reader], at)
        self.world.do(self.leave(held))
        self.visited("leave a call, " + ("in a session" if held.session else "stateless"))

    async def leave(self, held: Held) -> None:
        reader, held.reader = held.reader, None
        assert reader is not None
        await reader.close()
        if held.session is None:
            await self.world.until(lambda: held.mark in self.world.withdrawn, "the call to be withdrawn")
            await self.finish(held)
        else:
            await self.settled()
            assert held.mark not in self.world.withdrawn

    @precondition(lambda self: any(one.session and one.ids for one in self.held + self.answered))
    @rule(at=number, event=number)
    def resumes_a_call(self, at: int, event: int) -> None:
        held = self.pick([one for one in self.held + self.answered if one.session and one.ids], at)
        self.visited("resume a call, " + ("under way" if held in self.held else "answered"))
        self.world.do(self.resume(held, self.pick(held.ids, event)))

    async def resume(self, held: Held, after: str) -> None:
        """Whoever resumes gets what followed: all of it, in order, and the earlier reader nothing more."""
        world = self.world
        assert held.session is not None
        response = await world.run_listen(held.session, after)
        assert response.status == 200
        earlier = held.reader
        reader = world.of_call(response, held)
        missed = held.told - int(after.rpartition(".")[2])
        if held in self.held:
            held.reader = reader
            if earlier is not None and earlier.task is not None:
                await asyncio.wait({earlier.task})
            await world.until(lambda: len(reader.messages) >= missed, "what was missed")
            progress = [one["params"]["progress"] for one in reader.messages]
        else:
            assert reader.task is not None
            await asyncio.wait({reader.task}, timeout=HANG_S)
            progress = [one["params"]["progress"] for one in reader.messages if "method" in one]
            assert len(reader.messages) == max(missed, -1) + 1
        assert progress == [*range(held.told - max(missed, 0) + 1, held.told + 1)]
        await self.settled()

    @precondition(lambda self: any(one.ids for one in self.held + self.answered))
    @rule(at=number, event=number, of=number)
    def resumes_what_is_not_theirs(self, at: int, event: int, of: int) -> None:
        """An event id of another session, whose-ever, begins a new stream with nothing of the other in it."""
        held = self.pick([one for one in self.held + self.answered if one.ids], of)
        session = self.pick([one for one in self.sessions if one is not held.session], at)
        if session.streams >= MOST_STREAMS:
            return
        same = "own other" if session.user == held.user else "another user's"
        self.visited(f"resume with an event id of {same} session")
        self.world.do(self.listen(session, self.pick(held.ids, event)))

    @rule(at=number)
    def listens(self, at: int) -> None:
        session = self.pick(self.sessions, at)
        if session.streams < MOST_STREAMS:
            self.visited("listen" + (" again" if session.general else ""))
            self.world.do(self.listen(session, None))

    @precondition(lambda self: any(one.resumable_general for one in self.sessions))
    @rule(at=number)
    def resumes_the_general_stream(self, at: int) -> None:
        session = self.pick([one for one in self.sessions if one.resumable_general], at)
        self.visited("resume a general stream")
        self.world.do(self.listen(session, session.general_ids[-1]))

    async def listen(self, session: Opened, after: str | None) -> None:
        response = await self.world.run_listen(session, after)
        assert (response.status, response.content_type) == (200, "text/event-stream")
        earlier = session.general
        session.general = self.world.listening(response, session)
        session.streams += 1
        if earlier is not None and earlier.task is not None:
            await asyncio.wait({earlier.task})
        await self.settled()

    @precondition(lambda self: any(one.general for one in self.sessions))
    @rule(at=number)
    def leaves_the_general_stream(self, at: int) -> None:
        session = self.pick([one for one in self.sessions if one.general], at)
        self.visited("leave a general stream")
        self.world.do(self.leave_general(session))

    async def leave_general(self, session: Opened) -> None:
        reader, session.general = session.general, None
        assert reader is not None
        await reader.close()
        await self.settled()

    @precondition(lambda self: any(one.general for one in self.sessions))
    @rule()
    def the_lists_change(self) -> None:
        listening = [one.general for one in self.sessions if one.general]
        have = [len(reader.messages) for reader in listening]
        self.world.run.pep.tools_changed()
        self.world.do(self.heard(listening, have))
        self.visited(f"lists change, {min(len(listening), 2)} listen")

    async def heard(self, listening: list[Reader], have: list[int]) -> None:
        news = [*zip(listening, have, strict=True)]
        await self.world.until(lambda: all(len(one.messages) > before for one, before in news), "the news")

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def nothing_crossed(self) -> None:
        assert self.world.crossed == []
        assert self.world.twice == []
        assert set(self.world.reached) == self.forwarded, "what was decided is what was forwarded"
        kept = {held.mark for held in [*self.held, *self.orphans]}
        gates = self.world.gates
        assert {mark for mark, gate in gates.items() if not gate.done()} == kept, "no call was withdrawn by another"

    @override
    def teardown(self) -> None:
        self.world.do(self.close())
        self.nothing_crossed()
        assert {what: count for what, count in self.world.left.items() if count} == {}
        whose = {permit.request_id: mark.partition("-")[0] for mark, permit in self.world.reached.items()}
        intents = [record for record in self.world.evidence() if record["event"] == "intent"]
        assert {record["request_id"]: record["subject"]["id"] for record in intents} == whose
        assert len(intents) == len(whose)

    async def close(self) -> None:
        for session in [*self.sessions]:
            await self.end(session)
        for held in [*self.held]:
            await self.leave(held)
        for held in self.orphans:
            self.world.gates[held.mark].set_result(None)
        self.orphans = []
        await self.world.until(lambda: not any(self.world.left.values()), f"all to be over: {self.world.left}")


@pytest.fixture(scope="module")
def world(mcp_server_command: list[str], opa_binary: str) -> Iterator[World]:
    """One endpoint for all examples: each leaves nothing behind, or fails."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="opa-") as folder:
        offered = runner.run(tools_of(mcp_server_command))
        opa = ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0)
        runner.run(opa.__aenter__())
        started = World(runner)
        try:
            runner.run(started.start(opa, offered))
            yield started
            runner.run(started.stop())
        finally:
            runner.run(opa.__aexit__(None, None, None))


async def tools_of(command: list[str]) -> tuple[JsonObject, ...]:
    server = StdioUpstream("demo-ro", command, {"MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:1/"}, timeout_s=30.0)
    await server.start()
    try:
        return await server.tools()
    finally:
        await server.stop()


@pytest.mark.timeout(3_600)
def test_no_message_crosses(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints how often it took each step, and from which states: how many of each there were at the time."""
    Crossing.world = world
    most = examples.examples(260, deep=2_000)
    for _ in range(MOST_ROUNDS):
        run_state_machine_as_test(
            Crossing,
            settings=settings(
                max_examples=most,
                stateful_step_count=STEPS_OF_ONE,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        if examples.PROFILE == "glance" or (Crossing.visits.total() >= IN_FAST and Crossing.visits.keys() >= STEPS):
            break
    assert Crossing.visits.keys() - STEPS == set()
    with capsys.disabled():
        sys.stdout.write(f"\n{Crossing.visits.total()} steps\n")
        for counted in (Crossing.visits, Crossing.states):
            sys.stdout.writelines(f"{count:7} {what}\n" for what, count in sorted(counted.items()))
    if examples.PROFILE != "glance":
        assert Crossing.visits.total() >= IN_FAST
        assert STEPS - Crossing.visits.keys() == set(), "every kind of step is taken"
