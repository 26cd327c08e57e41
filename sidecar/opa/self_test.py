"""The known-answer test that an OPA passes before its first real question.

A healthy OPA with the wrong policies, an old contract or another deployment's data is worse than none. ``/health``
cannot tell; four questions can: one whose answer is known, one that must fail, one that every policy set must deny, and
one that every policy set must understand.
"""

import contextlib
import secrets
from typing import Final

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import (
    Access,
    AccessKind,
    AccessRequest,
    Actor,
    Amplifier,
    Command,
    FieldUse,
    Identity,
    JsonObject,
    Namespace,
    Principal,
    RequestContext,
    Target,
    TargetKind,
    Trait,
)
from sidecar.policy import decision_document, is_called_malformed, read_decision, read_selftest
from sidecar.ports import DecisionPoint, Question

_DATABASE: Final = "mcp_sidecar_self_test"
_NAME: Final = "self-test"


async def self_test(pdp: DecisionPoint) -> None:
    """Ask what must be answered in one way only.

    - ``SELF_TEST`` with a fresh nonce: the answer is computed by this policy set from this question, not cached and
      not another service's constant.
    - ``SELF_TEST`` with ``fail``: a builtin error must fail the question. Where something on the way drops the query
      string, errors are not strict, and a ``deny`` rule that meets one silently disappears.
    - ``DECISION`` with an empty document: a well-formed deny (law 3, empty is an error).
    - ``DECISION`` with every kind, trait and part that this version may ask about: any answer but "not a question".
      Under a set of another version every call is refused and every list of tools empty, while all else looks well.

    Raises:
        ConfigurationError: OPA answers something else; its policy set must not serve.
        DecisionUnavailable: OPA does not answer.
    """
    nonce = secrets.token_hex(16)
    known = await pdp.ask(Question.SELF_TEST, {"nonce": nonce})
    empty = await pdp.ask(Question.DECISION, {})
    try:
        read_selftest(known.result, nonce=nonce)
        decision = read_decision(empty.result, accesses=0, servers=())
    except DecisionUnavailable as error:
        raise ConfigurationError(f"the policy set fails the self-test: {error.detail}") from error
    if decision.allow:
        raise ConfigurationError("the policy set fails the self-test: it allows the empty question")
    if await _is_not_understood(pdp):
        message = "the policy set is of another version: it takes this version's questions for malformed"
        raise ConfigurationError(f"the policy set fails the self-test: {message}")
    try:
        await pdp.ask(Question.SELF_TEST, {"nonce": nonce, "fail": True})
    except DecisionUnavailable as error:
        if error.fault is PdpFault.STATUS:
            return
        raise  # no answer, or a question that was not sent, is not the answer that it must have
    raise ConfigurationError("the policy set fails the self-test: builtin errors are not strict")


async def _is_not_understood(pdp: DecisionPoint) -> bool:
    """Whether the set says so. Other failures are no sign: a team whose prefix fits the name may have its own."""
    with contextlib.suppress(DecisionUnavailable):
        return is_called_malformed((await pdp.ask(Question.DECISION, whole_question())).result)
    return False


def whole_question() -> JsonObject:
    """Return a question that has everything which a question of this version can have."""
    namespace = Namespace(database=_DATABASE, collection=_NAME)
    somewhere = [Access(kind=kind, namespace=namespace, via="/name") for kind in AccessKind]
    through = Access(kind=AccessKind.READ, namespace=namespace, via="/name", via_view=namespace)
    whole = Access(kind=AccessKind.METADATA, namespace=Namespace(), via="/name")
    targets = [
        Access(kind=AccessKind.ADMIN, namespace=Namespace(), via="/name", target=Target(kind=kind, id=_NAME))
        for kind in TargetKind
    ]
    command = Command(
        tool=_NAME,
        accesses=(*somewhere, through, whole, *targets),
        traits=frozenset(Trait),
        stages=("$match",),
        fields=FieldUse(filtered=("a",), returned=("a.b",)),
        limit=1,
        amplifiers=(Amplifier(construct="growth", number=1.5, at="/arguments"),),
        arguments={"/a": "text", "/b": 1, "/c": True, "/d": None},
    )
    subject = Principal(
        issuer=_NAME,
        subject=_NAME,
        several_issuers=True,
        groups=(_NAME,),
        roles=(_NAME,),
        scopes=(_NAME,),
        claims={"a": [1]},
    )
    identity = Identity(principal=subject, actor=Actor(id=_NAME, chain=(_NAME,)), expires_at=0)
    context = RequestContext(time_ns=0, client_ip="", protocol="", environment="")
    return decision_document(AccessRequest(identity=identity, method="tools/call", command=command, context=context))
