"""``mcp-sidecar decide``: one question put to a policy folder, or to the OPA that is configured."""

from dataclasses import dataclass
from typing import Final

from sidecar.authoring.asked import Asked, Refused, read_question
from sidecar.authoring.engine import Engine
from sidecar.authoring.explain import FACTS, explain
from sidecar.errors import DecisionUnavailable
from sidecar.identity.claims import ClaimMap
from sidecar.model import Decision, JsonObject, JsonValue, RequestContext
from sidecar.policy.document import command_document
from sidecar.policy.verdict import read_decision
from sidecar.ports import DecisionPoint, Question

_DECISION: Final = "data.mcp.main.decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What came of a question."""

    allow: bool
    document: JsonObject


async def decide_with_folder(
    engine: Engine, text: bytes, claim_map: ClaimMap | None, context: RequestContext, *, explained: bool
) -> Decided:
    """Decide one question with a policy folder.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    try:
        asked = read_question(text, claim_map, context)
    except Refused as refused:
        return Decided(allow=False, document=refused.document())
    answer = await engine.value(_DECISION, asked.question)
    servers = await engine.value("data.authoring.facts.routing_of_call.servers", asked.question, "-d", FACTS)
    names = [str(name) for name in servers] if isinstance(servers, list) else []
    decided = _decided(asked, answer, names, engine.policies.revision)
    if explained and isinstance(answer, dict) and "error" not in decided.document:
        why = await explain(engine, asked.question, answer)
        return Decided(allow=decided.allow, document={**decided.document, "explanation": why})
    return decided


async def decide_with_service(
    pdp: DecisionPoint, text: bytes, claim_map: ClaimMap | None, context: RequestContext, servers: list[str]
) -> Decided:
    """Decide one question with an OPA that serves.

    Raises:
        DecisionUnavailable: it does not answer.
    """
    try:
        asked = read_question(text, claim_map, context)
    except Refused as refused:
        return Decided(allow=False, document=refused.document())
    answer = await pdp.ask(Question.DECISION, asked.question)
    return _decided(asked, answer.result, servers, answer.revision)


def _decided(asked: Asked, answer: JsonValue, servers: list[str], revision: str) -> Decided:
    document: JsonObject = {"command": command_document(asked.command), "question": asked.question, "decision": answer}
    if isinstance(answer, dict):
        document["decision"] = {**answer, "revision": answer.get("revision") or revision}
    if asked.notes:
        document["notes"] = [*asked.notes]
    try:
        decision = _read(asked, answer, servers)
    except DecisionUnavailable as error:
        # What the sidecar would not believe is a deny, and the author should hear why.
        return Decided(allow=False, document={**document, "error": f"not of the contract: {error.detail}"})
    return Decided(allow=decision.allow, document=document)


def _read(asked: Asked, answer: JsonValue, servers: list[str]) -> Decision:
    return read_decision(answer, accesses=len(asked.command.accesses), servers=servers)
