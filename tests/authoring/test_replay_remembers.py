"""A replay evaluates once what the rules cannot tell apart: calls of two seconds where none looks at the time."""

import tempfile
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from typing_extensions import override

from sidecar.authoring.replayed_evidence import FOR_EVER_S
from sidecar.authoring.replaying import ReplayWanted, replay
from sidecar.authoring.taped import BATCH
from sidecar.commands.derive import derive
from sidecar.model import Actor, Command, Identity, JsonObject, ToolCall
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from tests import parts
from tests.authoring.traffic import ANALYST, POLICIES, SERVERS, Book, Call, decided, text

DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Load(Call):
    """What the nightly loader does on weekdays."""

    @property
    @override
    def identity(self) -> Identity:
        known = super().identity
        principal = replace(known.principal, scopes=("mongodb:read", "mongodb:write"))
        return replace(known, principal=principal, actor=Actor(id="nightly-loader"))

    @property
    @override
    def command(self) -> Command:
        place = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
        return derive(ToolCall(name="insert-many", arguments={**place, "documents": [{"x": 1}]})).command


LOADER = Load(subject="lou", groups=("loaders",), tool="insert-many")


class Watched:
    """A real OPA; notes which evaluations its answers name."""

    def __init__(self, managed: ManagedOpa) -> None:
        self._managed = managed
        self.evaluations: set[str] = set()
        self.asked = 0

    @property
    def revision(self) -> str:
        return self._managed.revision

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        answer = await self._managed.ask(question, document)
        self.asked += 1
        self.evaluations.add(answer.decision_id)
        return answer

    async def healthy(self) -> bool:
        return await self._managed.healthy()


async def test_what_depends_on_the_day_is_told_apart_and_what_does_not_is_evaluated_once() -> None:
    week = [replace(LOADER, second=LOADER.second + day * DAY) for day in range(7)]
    queries = [replace(ANALYST, second=ANALYST.second + hour * 3600) for hour in range(200)]
    known = await decided([*week, *queries])
    assert {known[text(call)].allow for call in week} == {True, False}, "on weekdays only"
    book = Book()
    for call in (*week, *queries):
        book.call(call, known[text(call)])
    with tempfile.TemporaryDirectory() as directory:
        binary, folder = str(parts.installed("opa")), Path(directory) / "opa"
        async with ManagedOpa(binary, POLICIES, directory=folder, timeout_s=20, memo_s=FOR_EVER_S) as managed:
            watched = Watched(managed)
            wanted = ReplayWanted(limit=10)
            found = await replay(BytesIO(book.content), watched, servers=SERVERS, titles={}, wanted=wanted)
    assert (found.ok, found.compared) == (True, len(week) + len(queries)), found.document()
    assert watched.asked == len(week) + len(queries)
    assert len(watched.evaluations) <= len(week) + BATCH, (
        "those that are asked at the same time do not know of each other"
    )
