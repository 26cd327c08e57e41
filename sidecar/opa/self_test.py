"""The known-answer test that an OPA passes before its first real question.

A healthy OPA with the wrong policies, an old contract or another deployment's data is worse than none. ``/health``
cannot tell; three questions can: one whose answer is known, one that must fail, and one that every policy set must
deny.
"""

import secrets

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.policy import read_decision, read_selftest
from sidecar.ports import DecisionPoint, Question


async def self_test(pdp: DecisionPoint) -> None:
    """Ask what must be answered in one way only.

    - ``SELF_TEST`` with a fresh nonce: the answer is computed by this policy set from this question, not cached and
      not another service's constant.
    - ``SELF_TEST`` with ``fail``: a builtin error must fail the question. Where something on the way drops the query
      string, errors are not strict, and a ``deny`` rule that meets one silently disappears.
    - ``DECISION`` with an empty document: a well-formed deny (law 3, empty is an error).

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
    try:
        await pdp.ask(Question.SELF_TEST, {"nonce": nonce, "fail": True})
    except DecisionUnavailable:
        return
    raise ConfigurationError("the policy set fails the self-test: builtin errors are not strict")
