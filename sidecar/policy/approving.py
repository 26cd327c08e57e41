"""The question whether a person may give the approval that a call waits for, and the reading of its answer.

Its form is ``policies/schema/approving.json``; the tests hold both sides to it.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import Identity, JsonObject, JsonValue, RequestContext
from sidecar.policy.document import STEP_NS, VERSION, actor_document, context_document, subject_document

_KEYS: Final = frozenset({"v", "may", "revision"})


class ApproverVerdict(NamedTuple):
    """What policy says of one person and one call."""

    may: bool
    revision: str
    """The policy set that says so."""


def approver_document(
    approver: Identity,
    context: RequestContext,
    *,
    server: str,
    requester: tuple[str, str, str],
    accesses: Sequence[JsonObject],
    step_ns: int = STEP_NS,
) -> JsonObject:
    """Render the question.

    Args:
        approver: who wants to approve.
        context: what is true of that request.
        server: where the call goes.
        requester: issuer, subject and agent of the call.
        accesses: those that wait for an approval, as ``Access.document`` renders them.
        step_ns: nanoseconds that ``context.time_ns`` is truncated to.
    """
    issuer, subject, agent = requester
    return {
        "v": VERSION,
        "subject": subject_document(approver.principal),
        "actor": actor_document(approver.actor),
        "action": {"method": "approvals"},
        "server": server,
        "requester": {"issuer": issuer, "id": subject, "agent": agent},
        "accesses": [*accesses],
        "context": context_document(context, step_ns),
    }


def read_approver(result: JsonValue, *, revision: str = "") -> ApproverVerdict:
    """Accept OPA's answer.

    Args:
        result: the value of ``data.mcp.main.approver``.
        revision: what the PDP says of its policy set, used where the answer itself does not say.

    Raises:
        DecisionUnavailable: the answer is not exactly of the contract.
    """
    if not isinstance(result, dict) or result.keys() != _KEYS:
        raise DecisionUnavailable("not an answer about an approver", fault=PdpFault.CONTRACT)
    version, may, said = result["v"], result["may"], result["revision"]
    if type(version) is not int or version != VERSION or not isinstance(may, bool) or not isinstance(said, str):
        raise DecisionUnavailable("an answer about an approver of other types", fault=PdpFault.WRONG_TYPE)
    return ApproverVerdict(may=may, revision=said or revision)
