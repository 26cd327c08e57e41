"""A way to the database that stalls, cuts, and answers insertions as a primary that steps down (MongoDB, OP_MSG).

As a program, ``unsteady_way.py URI SEED``: prints its port, and changes its mood at random until standard input ends.
"""

import asyncio
import random
import struct
import sys
from enum import StrEnum
from typing import Any, Final

import bson
from typing_extensions import override

from tests.store.shared_database import Way

_OP_MSG: Final = 2013
_HEADER: Final = struct.Struct("<iiii")


class Mood(StrEnum):
    """What the way does."""

    OPEN = "open"
    STALLED = "stalled"
    """Nothing passes until it is open again."""
    CUT = "cut"
    """Connections end."""
    NO_PRIMARY = "no primary"
    """Insertions are refused: the member is no primary any more."""
    STEPPING_DOWN = "stepping down"
    """Insertions are carried out, and answered as if they were interrupted."""


def refusal(request: int, code: int, name: str) -> bytes:
    """The answer of a member that is not the primary (any more)."""
    document = bson.encode({"ok": 0.0, "errmsg": "not primary", "code": code, "codeName": name})
    body = struct.pack("<i", 0) + b"\0" + document
    return _HEADER.pack(_HEADER.size + len(body), 1, request, _OP_MSG) + body


class UnsteadyWay(Way):
    """A way with a mood."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.mood = Mood.OPEN
        self._interrupted: set[int] = set()
        self.closed_to = b""
        """Where a request has this text, its connection ends."""
        self.insertions: list[dict[str, Any]] = []
        """The commands, without their documents."""

    def become(self, mood: Mood) -> None:
        """Change the mood."""
        self.mood = mood
        if mood is Mood.STALLED:
            self.open.clear()
        else:
            self.open.set()
        if mood is Mood.CUT:
            for writer in self._writers:
                writer.close()
            self._writers.clear()

    @override
    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool = False) -> None:
        try:
            while True:
                head = await source.readexactly(_HEADER.size)
                length, number, asked, _ = _HEADER.unpack(head)
                message = head + await source.readexactly(length - _HEADER.size)
                await self.open.wait()
                if not answers and self.closed_to and self.closed_to in message:
                    break
                if answers and asked in self._interrupted:
                    self._interrupted.discard(asked)
                    message = refusal(asked, 11602, "InterruptedDueToReplStateChange")
                if not answers and b"insert\0" in message[:64]:
                    begin = _HEADER.size + 5
                    self.insertions.append(
                        bson.decode(message[begin : begin + int.from_bytes(message[begin : begin + 4], "little")])
                    )
                    if self.mood is Mood.NO_PRIMARY:
                        break  # a member that steps down ends connections
                    if self.mood is Mood.STEPPING_DOWN:
                        self._interrupted.add(number)
                sink.write(message)
                await sink.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            sink.close()


async def main() -> None:
    """Change the mood until there is no more input."""
    way = UnsteadyWay(sys.argv[1])
    chance = random.Random(int(sys.argv[2]))  # noqa: S311 - a seed reproduces a run
    await way.appear()
    print(way.port, flush=True)  # noqa: T201 - read by the test
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    while not ended.done():
        way.become(Mood.OPEN)
        await asyncio.wait([ended], timeout=0.1 + chance.random() / 4)
        way.become(chance.choice([*Mood]))
        await asyncio.wait([ended], timeout=chance.random() / 2)
    await way.vanish()


if __name__ == "__main__":
    asyncio.run(main())
