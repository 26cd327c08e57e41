"""``mcp-sidecar decide``: one question put to a policy folder, or to the OPA that is configured.

``decision`` is what OPA answers, ``enforcement`` what a sidecar that serves would make of it: an answer that is not of
the contract, and an allow under an obligation that it cannot discharge, are refusals with a reason of its own. What is
left out is what only a running deployment knows: views, and whether the server's tool is the reviewed one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from sidecar.authoring.engine import Engine
from sidecar.authoring.explain import explain
from sidecar.authoring.question import DerivedQuestion, QuestionRefused, read_question
from sidecar.authoring.switched_off import Servers
from sidecar.commands import CATALOG, GenericTools, ToolGroup, generic, groups_off, off_everywhere
from sidecar.enforcement import OWN_SOURCE
from sidecar.errors import ConfigurationError, DecisionUnavailable, ObligationNotSupported, ToolGroupOff
from sidecar.identity import ApprovalRequired, IdentityRules
from sidecar.model import Decision, JsonObject, JsonValue, Reason, RequestContext
from sidecar.obligations import plan
from sidecar.policy import command_document, read_decision
from sidecar.ports import DecisionPoint, Question

_NOT_IN_A_NAME: Final = re.compile(r"[\W_]+")
_NONE: Final[Mapping[str, GenericTools]] = MappingProxyType({})
_DECISION: Final = "data.mcp.main.decision"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionReport:
    """What came of a question."""

    allow: bool
    document: JsonObject


async def decide_with_folder(
    engine: Engine,
    text: bytes,
    rules: IdentityRules | None,
    context: RequestContext,
    servers: Servers | None = None,
    *,
    explained: bool,
    named: Mapping[str, GenericTools] = _NONE,
) -> DecisionReport:
    """Decide one question with a policy folder.

    Args:
        engine: over the folder.
        text: the question, as it was given.
        rules: how the issuer's tokens are read; None takes the usual ones.
        context: what is true of the request.
        servers: those that are configured; None where nothing is, and all that the platform's data knows will do, with
            every group of tools.
        explained: say which grant or why none.
        named: the tools outside of the catalog, by server.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    try:
        asked = read_question(text, rules, context, generic.everywhere(named.values()))
    except QuestionRefused as refused:
        return DecisionReport(allow=False, document=refused.document())
    answer = await engine.value(_DECISION, asked.question)
    if servers is None:
        known = await engine.value("object.keys(data.mcp.platform.servers)", {})
        names = known if isinstance(known, list) else []
        servers = {str(name): frozenset(ToolGroup) for name in names}
        if groups := groups_off(asked.command.tool, ()):
            note = f"needs tool_groups {', '.join(groups)} of its server, which are off unless settings turn them on"
            asked = replace(asked, notes=(*asked.notes, note))
    decided = _decided(asked, answer, servers, engine.policies.revision, named)
    if explained and isinstance(answer, dict) and "error" not in decided.document:
        why = await explain(engine, asked.question, answer, asked.arguments)
        return DecisionReport(allow=decided.allow, document={**decided.document, "explanation": why})
    return decided


async def decide_with_service(
    pdp: DecisionPoint,
    text: bytes,
    rules: IdentityRules | None,
    context: RequestContext,
    servers: Servers,
    named: Mapping[str, GenericTools] = _NONE,
) -> DecisionReport:
    """Decide one question with an OPA that serves.

    Raises:
        DecisionUnavailable: it does not answer.
    """
    try:
        asked = read_question(text, rules, context, generic.everywhere(named.values()))
    except QuestionRefused as refused:
        return DecisionReport(allow=False, document=refused.document())
    answer = await pdp.ask(Question.DECISION, asked.question)
    return _decided(asked, answer.result, servers, answer.revision, named)


def golden_case(decided: DecisionReport, title: str) -> JsonObject:
    """Return what was decided as the content of one file of ``policies/cases``: ``{name: case}``.

    The name is made of the title. ``revision`` is empty, as it is where cases are decided again.

    Raises:
        ConfigurationError: policy was not asked, or its answer is not of the contract.
    """
    document = decided.document
    decision = document.get("decision")
    if "refused" in document or "error" in document or not isinstance(decision, dict):
        why: Any = document.get("refused") or document.get("error")
        reason = f"{why['code']}: {why['message']}" if isinstance(why, dict) else why
        raise ConfigurationError(f"--as-case: this call has no decision to keep: {reason}")
    name = _NOT_IN_A_NAME.sub("-", title.lower()).strip("-")
    if not name:
        raise ConfigurationError("--as-case: the title must have letters or digits")
    return {name: {"title": title, "input": document["question"], "data": {}, "decision": {**decision, "revision": ""}}}


def _decided(
    asked: DerivedQuestion, answer: JsonValue, servers: Servers, revision: str, named: Mapping[str, GenericTools]
) -> DecisionReport:
    document: JsonObject = {"command": command_document(asked.command), "question": asked.question, "decision": answer}
    if isinstance(answer, dict):
        document["decision"] = {**answer, "revision": answer.get("revision") or revision}
    if asked.notes:
        document["notes"] = [*asked.notes]
    decision = None
    try:
        decision = read_decision(answer, accesses=len(asked.command.accesses), servers=servers.keys())
    except DecisionUnavailable as error:
        # What the sidecar would not believe is a deny, and the author should hear why.
        document["error"] = f"not of the contract: {error.detail}"
        reasons: tuple[Reason, ...] = (Reason(code=error.label, source=f"opa.{error.fault}"),)
    else:
        reasons, plan_document = _enforced(decision, asked)
        document.update(plan_document)
    if off := (*_off(asked.command.tool, servers, decision), *_unnamed(asked.command.tool, decision, named)):
        document["tools"] = [*off]
        reasons = (Reason(code=ToolGroupOff.label, source=OWN_SOURCE),)
    document["enforcement"] = {
        "allow": not reasons,
        "reasons": [{"code": one.code, "source": one.source, "access": one.access} for one in reasons],
    }
    return DecisionReport(allow=not reasons, document=document)


def _off(tool: str, servers: Servers, decision: Decision | None) -> Iterator[str]:
    """Say which groups keep the tool off: on every server (policy is then not asked), or on the chosen one."""
    chosen = decision.server if decision is not None and decision.allow else ""
    names = servers if off_everywhere(tool, servers) else [name for name in servers if name == chosen]
    for name in names:
        for group in groups_off(tool, servers[name]):
            yield f"tool group {group} is off on server {name}"


def _unnamed(tool: str, decision: Decision | None, named: Mapping[str, GenericTools]) -> Iterator[str]:
    """Say that the settings of the chosen server do not name a tool that is outside of the catalog."""
    if tool not in CATALOG and decision is not None and decision.allow and tool not in named.get(decision.server, {}):
        yield f"generic_tools of server {decision.server} does not name {tool}"


def _enforced(decision: Decision, asked: DerivedQuestion) -> tuple[tuple[Reason, ...], JsonObject]:
    """Return why the sidecar refuses after this decision, how the call is changed, and what it waits for.

    There is no reason if it forwards (a deny always has one). A call that waits is refused until it has its approval.
    """
    if not decision.allow:
        return decision.reasons, {}
    try:
        todo = plan(decision, asked.call, asked.derivation)
    except ObligationNotSupported as error:
        own = Reason(code=error.label, source=OWN_SOURCE)
        return (own,), {"unmet": error.because or error.detail}
    document: JsonObject = {} if todo.call is None else {"forwarded": todo.call.arguments}
    if todo.find_of and todo.call is not None:
        document["forwarded_tool"] = todo.call.name
    if todo.probes:
        document["asked_first"] = [{"name": one.call.name, "arguments": one.call.arguments} for one in todo.probes]
    if todo.indexes is not None or todo.names:
        document["cut_down"] = "names" if todo.indexes is None else "indexes"
    if not todo.waits:
        return (), document
    first = min((*todo.waits.confirm, *todo.waits.second_person))
    document["waits"] = {kind.value: [*indices] for kind, indices in todo.waits.by_kind() if indices}
    return (Reason(code=ApprovalRequired.label, source=OWN_SOURCE, access=first),), document
