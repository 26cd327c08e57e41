"""Which connection ends where there is no place for the next, as pure rules and over real sockets."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.edge.connections import CROWDED_S, ConnectionLimits, Connections, Ending, address_of
from sidecar.edge.server import ServerLimits
from tests.edge.endpoint import INITIALIZE, encoded, head, request, running, token
from tests.patience import HANG_S


class Wire:
    """A connection that remembers how it ended."""

    def __init__(self, connections: Connections, address: str = "192.0.2.1") -> None:
        self.address = address
        self.ended: Ending | None = None
        self._connections = connections
        connections.opened(self)

    def end(self, reason: Ending) -> None:
        self.ended = reason
        self._connections.count(reason)
        self._connections.closed(self)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(total: int = 3, per_address: int = 3) -> tuple[Connections, list[Ending], Clock]:
    ended: list[Ending] = []
    clock = Clock()
    limits = ConnectionLimits(total=total, per_address=per_address)
    return Connections(limits, clock, ended.append), ended, clock


def served(connections: Connections, wire: Wire, *, well: bool = True) -> None:
    connections.busy(wire)
    connections.idle(wire, served=well)


def test_the_one_that_was_silent_longest_makes_room() -> None:
    connections, ended, _ = made()
    wires = [Wire(connections) for _ in range(4)]
    assert [wire.ended for wire in wires] == [Ending.EVICTED, None, None, None]
    assert (len(connections), ended) == (3, [Ending.EVICTED])


def test_one_that_was_served_outlives_silent_and_refused_ones() -> None:
    connections, _, _ = made()
    first, second, third = (Wire(connections) for _ in range(3))
    served(connections, first)
    served(connections, second, well=False)
    fourth = Wire(connections)
    fifth = Wire(connections)
    assert (first.ended, second.ended, third.ended) == (None, Ending.EVICTED, Ending.EVICTED)
    served(connections, fourth)
    served(connections, fifth)
    Wire(connections)
    assert first.ended is Ending.EVICTED, "the longest idle of those that were served"


def test_one_with_a_request_under_way_never_makes_room() -> None:
    connections, _, _ = made()
    busy = [Wire(connections) for _ in range(3)]
    for wire in busy:
        connections.busy(wire)
    newcomer = Wire(connections)
    assert newcomer.ended is Ending.REFUSED
    assert not any(wire.ended for wire in busy)


def test_an_address_makes_room_among_its_own() -> None:
    connections, _, _ = made(total=10, per_address=2)
    other = Wire(connections, "192.0.2.9")
    first, second, third = (Wire(connections) for _ in range(3))
    assert [wire.ended for wire in (other, first, second, third)] == [None, Ending.EVICTED, None, None]
    for wire in (second, third):
        connections.busy(wire)
    assert Wire(connections).ended is Ending.REFUSED
    assert other.ended is None


def test_it_is_crowded_near_the_bound_and_a_while_after_one_had_to_end() -> None:
    connections, _, clock = made(total=10, per_address=10)
    wires = [Wire(connections) for _ in range(8)]
    seen = [connections.crowded]
    wires += [Wire(connections) for _ in range(3)]
    for wire in wires:
        connections.closed(wire)
    seen.append(connections.crowded)
    clock.now += CROWDED_S
    seen.append(connections.crowded)
    assert seen == [False, True, False]


@given(
    st.lists(st.tuples(st.sampled_from(["open", "busy", "idle", "close"]), st.integers(0, 9), st.booleans())),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_the_bounds_hold_whatever_happens(steps: list[tuple[str, int, bool]], total: int, per_address: int) -> None:
    connections, _, _ = made(total, per_address)
    wires: list[Wire] = []
    for step, which, flag in steps:
        if step == "open":
            wires.append(Wire(connections, f"192.0.2.{which % 3}"))
        elif wires and (wire := wires[which % len(wires)]).ended is None:
            match step:
                case "busy":
                    connections.busy(wire)
                case "idle":
                    connections.busy(wire)
                    connections.idle(wire, served=flag)
                case _:
                    wires.remove(wire)
                    connections.closed(wire)
        living = [wire.address for wire in wires if wire.ended is None]
        assert len(connections) == len(living) <= total
        assert all(living.count(address) <= per_address for address in living)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (None, ""),
        ("", ""),
    ],
)
def test_an_ipv6_client_counts_by_the_network_that_it_chooses_addresses_from(peer: object, address: str) -> None:
    assert address_of(peer) == address


def limits(**changes: float) -> ServerLimits:
    fields = {"total": 5, "per_address": 5, "first_byte_s": 30.0, "head_s": 30.0} | changes
    return ServerLimits(shutdown_s=1.0, lingering_s=0.2, connections=ConnectionLimits(**fields))  # type: ignore[arg-type]


async def silent(port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    return [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]


async def closed_by_the_server(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(HANG_S):
            return await reader.read() == b""
    except ConnectionError:
        return True


async def test_a_client_with_a_token_gets_in_past_silent_ones(tmp_path: Path) -> None:
    async with running(tmp_path, limits()) as endpoint:
        idle = await silent(endpoint.port, 12)
        assert (await endpoint.ask(body=encoded(INITIALIZE))).status == 200
        assert all([await closed_by_the_server(reader) for reader, _ in idle[:7]])
        for _, writer in idle:
            writer.close()


async def test_refused_strangers_do_not_push_out_a_client_that_was_served(tmp_path: Path) -> None:
    async with running(tmp_path, limits()) as endpoint:
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        ask = request("POST", "/mcp", encoded(INITIALIZE), Connection=None)
        writer.write(ask)
        assert b" 200 " in await reader.readline()
        strangers = await silent(endpoint.port, 12)
        for other, wire in strangers[-4:]:
            wire.write(request("POST", "/mcp", encoded(INITIALIZE), Connection=None, Authorization=None))
            assert b" 401 " in await other.readline()
        strangers += await silent(endpoint.port, 8)
        await reader.readuntil(b"}}")
        writer.write(ask)
        assert b" 200 " in await reader.readline()
        for _, wire in [*strangers, (reader, writer)]:
            wire.close()


async def test_an_open_stream_is_not_pushed_out(tmp_path: Path) -> None:
    async with running(tmp_path, limits()) as endpoint:
        session = await endpoint.open_session()
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)
        writer.write(request("GET", "/mcp", Mcp_Session_Id=session, Accept="text/event-stream"))
        await reader.readuntil(b": keep-alive\n\n")
        idle = await silent(endpoint.port, 12)
        endpoint.pep.tools_changed()
        async with asyncio.timeout(HANG_S):
            assert await reader.readuntil(b"list_changed")
        for _, wire in [*idle, (reader, writer)]:
            wire.close()


async def test_who_says_nothing_or_stops_within_a_head_is_cut_off_and_a_slow_body_is_not(tmp_path: Path) -> None:
    body = encoded(INITIALIZE)
    async with running(tmp_path, limits(first_byte_s=0.3, head_s=0.3)) as endpoint:
        (mute, mute_writer), (half, half_writer), (slow, slow_writer) = await silent(endpoint.port, 3)
        half_writer.write(head("POST", "/mcp"))
        slow_writer.write(head("POST", "/mcp", Authorization=f"Bearer {token()}"))
        slow_writer.write(b"Content-Length: %d\r\n\r\n" % len(body))
        assert await closed_by_the_server(mute)
        assert await closed_by_the_server(half)
        await asyncio.sleep(0.4)
        slow_writer.write(body)
        async with asyncio.timeout(HANG_S):
            assert b" 200 " in await slow.readline()
        for writer in (mute_writer, half_writer, slow_writer):
            writer.close()


@pytest.mark.parametrize(
    ("files", "asked", "printed"), [(1024, 10_000, "736"), (1024, 100, "100"), (352, 100, "64"), (351, 100, "refused")]
)
def test_connections_stay_below_the_limit_of_files_with_a_reserve(files: int, asked: int, printed: str) -> None:
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))
from sidecar.errors import ConfigurationError
from sidecar.lifecycle import connections_allowed
try:
    print(connections_allowed({asked}))
except ConfigurationError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
