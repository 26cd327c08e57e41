"""An operator's command when what keeps or records it fails: taking away holds all the same, giving back does not."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from sidecar.audit.chain import verify
from sidecar.enforcement import (
    EnforcementPoint,
    EnforcementRules,
    KillSwitch,
    OperatorCommandFailed,
    Ports,
    Suspensions,
)
from sidecar.errors import AuditUnavailable
from sidecar.mcp import Sessions
from sidecar.model import JsonObject
from sidecar.ports import AuditReceipt
from sidecar.store import FileAuditSink, FileSuspensions
from sidecar.system import RandomIdentifiers, SystemClock
from sidecar.telemetry import OtelMetrics

ISSUERS = ("https://idp.example", "https://other.example")
ANN: JsonObject = {"kind": "user", "issuer": ISSUERS[0], "subject": "ann", "reason": "r"}


@dataclass
class Disk:
    """A disk that can be full."""

    full: bool = False

    def flush(self, _fd: int) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


@dataclass
class StagedSink:
    """An audit store that can fail."""

    real: FileAuditSink
    fails: bool = False

    async def append(self, record: JsonObject) -> AuditReceipt:
        if self.fails:
            raise AuditUnavailable("staged")
        return await self.real.append(record)


@dataclass
class Operated:
    folder: Path
    issuers: tuple[str, ...] = ISSUERS
    disk: Disk = field(default_factory=Disk)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.sink = StagedSink(FileAuditSink(self.folder / "audit"))
        self.store = FileSuspensions(self.folder / "kept", flush=self.disk.flush)
        self.table = Suspensions(clock, asyncio.run(self.store.load()))
        metrics = OtelMetrics(methods=(), tools=(), servers=(), endpoint_configured=False, protocol="", version="0")
        nothing = cast("Any", None)
        ports = Ports(
            verifier=nothing,
            decisions=nothing,
            audit=self.sink,
            upstreams={},
            clock=clock,
            identifiers=RandomIdentifiers(),
            tracer=nothing,
            metrics=metrics,
            suspensions=self.table,
        )
        pep = EnforcementPoint(ports, EnforcementRules(environment="test", server_version="0"), Sessions(8, 8, 60))
        self.switch = KillSwitch(
            pep,
            self.table,
            self.store,
            self.sink,
            clock,
            RandomIdentifiers(),
            issuers=self.issuers,
            forget=lambda: self.forgotten.append("memo"),
        )

    def names(self) -> list[object]:
        listed = self.switch.suspended()["suspended"]
        assert isinstance(listed, list)
        return [entry["subject"] for entry in listed if isinstance(entry, dict)]


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Operated]:
    one = Operated(tmp_path)
    yield one
    one.store.close()
    asyncio.run(one.sink.real.close())


def test_a_full_disk_keeps_nobody_from_being_suspended_and_is_told(operated: Operated) -> None:
    operated.disk.full = operated.sink.fails = True
    done = asyncio.run(operated.switch.suspend(ANN, "o"))
    assert (done["stored"], done["recorded"]) == (False, False)
    assert operated.names() == ["ann"]
    assert operated.forgotten == ["memo"]


@pytest.mark.parametrize("broken", ["disk", "audit"])
def test_what_cannot_be_stored_or_recorded_is_not_given_back(operated: Operated, broken: str) -> None:
    asyncio.run(operated.switch.suspend(ANN, "o"))
    operated.disk.full, operated.sink.fails = broken == "disk", broken == "audit"
    with pytest.raises(OperatorCommandFailed, match="not resumed"):
        asyncio.run(operated.switch.resume(ANN, "o"))
    assert operated.names() == ["ann"]
    operated.disk.full = operated.sink.fails = False
    asyncio.run(operated.switch.resume(ANN, "o"))
    assert operated.names() == []
    assert verify((operated.folder / "audit").read_bytes().splitlines(keepends=True)).holds


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": ""}, "name the issuer"),
        ({"issuer": "https://third.example"}, "unknown issuer"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 257}, "reason"),
        ({"until": 1}, "past"),
        ({"until": "tomorrow"}, "seconds"),
        ({"kind": "session", "issuer": "", "subject": "", "digest": "a" * 16}, "no session"),
        ({"kind": "everybody"}, "kinds"),
    ],
)
def test_what_cannot_be_meant_changes_nothing(operated: Operated, changes: JsonObject, why: str) -> None:
    with pytest.raises(OperatorCommandFailed) as refused:
        asyncio.run(operated.switch.suspend({**ANN, **changes}, "o"))
    assert why in refused.value.detail
    assert operated.names() == []


def test_a_suspension_can_be_made_longer_and_not_shorter(operated: Operated) -> None:
    asyncio.run(operated.switch.suspend({**ANN, "until": 2**34}, "first"))
    with pytest.raises(OperatorCommandFailed, match="already suspended by first"):
        asyncio.run(operated.switch.suspend({**ANN, "until": 2**34 - 1}, "second"))
    done = asyncio.run(operated.switch.suspend(ANN, "second"))
    assert done["extended"] is True
    with pytest.raises(OperatorCommandFailed, match="already suspended by second"):
        asyncio.run(operated.switch.suspend(ANN, "first"))


def test_there_is_a_bound_and_the_one_too_many_is_told(operated: Operated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.enforcement.killswitch.MOST_SUSPENSIONS", 2)
    for name in ("ann", "bob"):
        asyncio.run(operated.switch.suspend({**ANN, "subject": name}, "o"))
    with pytest.raises(OperatorCommandFailed, match="the most"):
        asyncio.run(operated.switch.suspend({**ANN, "subject": "cid"}, "o"))
    asyncio.run(operated.switch.resume({**ANN, "subject": "bob"}, "o"))
    asyncio.run(operated.switch.suspend({**ANN, "subject": "cid"}, "o"))
    assert operated.names() == ["ann", "cid"]
