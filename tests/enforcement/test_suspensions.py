"""Who is suspended: exact names, their near misses, and the end of a suspension."""

from dataclasses import dataclass, replace

import pytest

from sidecar.audit.record import session_digest
from sidecar.enforcement.suspensions import Suspensions
from sidecar.errors import CallerSuspended, SuspensionsUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity.suspension import Suspendable, Suspension, SuspensionTarget, names_of, read_suspension
from sidecar.model import Actor, Identity, Principal

ISSUER = "https://idp.example"
DIGEST = "0123456789abcdef" * 2
ANN = Identity(
    principal=Principal(issuer=ISSUER, subject="ann"),
    actor=Actor(id="desk", chain=("relay",)),
    expires_at=2_000_000_000,
    token=DIGEST,
)


@dataclass
class Hours:
    """A clock that is set."""

    seconds: int = 1_000

    def time_ns(self) -> int:
        return self.seconds * 10**9

    def monotonic(self) -> float:
        return float(self.seconds)


def suspension(**parts: str) -> Suspension:
    target = SuspensionTarget(kind=Suspendable(parts.pop("kind")), **parts)
    return Suspension(target=target, until=None, reason="r", operator="o", since=1)


def is_suspended(table: Suspensions, identity: Identity = ANN, session_id: str = "") -> bool:
    try:
        table.require(identity, session_id)
    except CallerSuspended:
        return True
    return False


USER = suspension(kind="user", issuer=ISSUER, subject="ann")


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "user", "issuer": ISSUER, "subject": "ann"},
        {"kind": "agent", "issuer": ISSUER, "agent": "desk"},
        {"kind": "agent", "issuer": ISSUER, "agent": "relay"},
        {"kind": "pair", "issuer": ISSUER, "subject": "ann", "agent": "desk"},
        {"kind": "pair", "issuer": ISSUER, "subject": "ann", "agent": "relay"},
        {"kind": "session", "digest": session_digest("s1")},
    ],
)
def test_every_name_of_a_caller_suspends_them(parts: dict[str, str]) -> None:
    with pytest.raises(CallerSuspended):
        Suspensions(Hours(), [suspension(**parts)]).require(ANN, "s1")


@pytest.mark.parametrize(
    "parts",
    [
        {"kind": "user", "issuer": "https://other.example", "subject": "ann"},
        {"kind": "user", "issuer": ISSUER, "subject": "Ann"},
        {"kind": "user", "issuer": ISSUER, "subject": "desk"},
        {"kind": "agent", "issuer": ISSUER, "agent": "ann"},
        {"kind": "agent", "issuer": ISSUER, "agent": "des"},
        {"kind": "agent", "issuer": "https://other.example", "agent": "desk"},
        {"kind": "pair", "issuer": ISSUER, "subject": "bob", "agent": "desk"},
        {"kind": "pair", "issuer": ISSUER, "subject": "ann", "agent": "other"},
        {"kind": "pair", "issuer": ISSUER, "subject": "desk", "agent": "ann"},
        {"kind": "token", "digest": DIGEST[:-1] + "0"},
        {"kind": "token", "digest": DIGEST[:16]},
        {"kind": "session", "digest": session_digest("s2")},
        {"kind": "session", "digest": DIGEST},
    ],
)
def test_a_name_that_is_nearly_theirs_does_not(parts: dict[str, str]) -> None:
    assert not is_suspended(Suspensions(Hours(), [suspension(**parts)]), ANN, "s1")


def test_a_suspended_token_is_no_token_any_more_and_another_one_may_be() -> None:
    table = Suspensions(Hours(), [suspension(kind="token", digest=DIGEST)])
    with pytest.raises(TokenRejected) as refused:
        table.require(ANN)
    assert refused.value.fault is TokenFault.SUSPENDED
    assert not is_suspended(table, replace(ANN, token="f" * 32))


def test_a_caller_without_a_digest_answers_to_no_token() -> None:
    assert all(name[0] != "token" for name in names_of(replace(ANN, token="")))


def test_a_suspension_ends_at_its_moment_and_not_before() -> None:
    clock = Hours()
    table = Suspensions(clock, [replace(USER, until=1_010)])
    clock.seconds = 1_009
    with pytest.raises(CallerSuspended):
        table.require(ANN)
    clock.seconds = 1_010
    assert not is_suspended(table)
    assert table.all() == ()


def test_what_nobody_knows_refuses_everybody() -> None:
    with pytest.raises(SuspensionsUnavailable):
        Suspensions(Hours(), known=False).require(ANN)


def test_a_suspension_is_read_as_it_was_written() -> None:
    for one in (USER, replace(USER, until=5), suspension(kind="session", digest="a" * 16)):
        assert read_suspension(one.document()) == one


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "team"},
        {"kind": "agent"},
        {"kind": ["user"]},
        {"issuer": ""},
        {"subject": ""},
        {"subject": 1},
        {"subject": "x" * 1025},
        {"agent": "desk"},
        {"digest": "a" * 16},
        {"until": 1.5},
        {"until": True},
        {"until": -1},
        {"since": None},
        {"operator": None},
        {"more": 1},
    ],
)
def test_a_document_of_another_form_is_no_suspension(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_suspension({**USER.document(), **changes})  # type: ignore[dict-item]
