"""Why a call is decided as it is, access by access: which team's grant matched, or which condition of a rule failed."""

from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar.authoring.constructs import constructs
from sidecar.authoring.engine import Engine
from sidecar.authoring.trace import PolicyExpression, RuleRun, data_of, missing_of, read_trace, values_of
from sidecar.model import JsonObject, JsonValue
from sidecar.policyset import OBLIGATIONS, places_of_reason

FACTS: Final = str(Path(__file__).with_name("facts.rego"))
_TRACED: Final = ("--explain=full", "--disable-indexing")
_REASONS: Final = "reasons.json"
_BROKEN: Final = "team_policy_error"


async def explain(
    engine: Engine, question: JsonObject, decision: JsonObject, arguments: JsonValue = None
) -> JsonObject:
    """Return the explanation of a decision.

    Args:
        engine: OPA on the policy folder that decided.
        question: the input of the decision.
        decision: OPA's answer.
        arguments: those of the call, to find what gives it a trait.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    facts = await engine.value("data.authoring.facts", question, "-d", FACTS)
    known: dict[str, Any] = facts if isinstance(facts, dict) else {}
    accesses = question["accesses"] if isinstance(question["accesses"], list) else []
    verdicts: Any = decision["accesses"] or [{} for _ in accesses]
    holdings: list[Any] = known.get("holdings_of_call", [])
    explained = []
    for index, (access, verdict) in enumerate(zip(accesses, verdicts, strict=True)):
        held = holdings[index] if index < len(holdings) and len(holdings) == len(accesses) else {}
        approval, broken = _approvals(decision, index, held), _is_broken(decision, index)
        verdict_and_approvals = {**verdict, "approval": approval, "broken": broken}
        explained.append(await _access(engine, question, access, verdict_and_approvals, held))
    await _with_data(engine, explained)
    return {
        "call": _call(known.get("routing_of_call", {}), question),
        "reasons": [_reason(engine, reason) for reason in _listed(decision["reasons"])],
        "accesses": [*explained],
        "traits": [
            {"trait": trait, "found": [*constructs(trait, question, arguments)]}
            for trait in known.get("closed_traits", [])
        ],
    }


async def _with_data(engine: Engine, explained: list[JsonObject]) -> None:
    """Say beside each condition what the tables of data held that it names; one evaluation for all of them."""
    conditions: list[dict[str, Any]] = [
        condition
        for access in explained
        for one in _listed(access["not_granted"])
        if isinstance(one, dict)
        for condition in (one["failed"], one["because"])
        if isinstance(condition, dict)
    ]
    paths = sorted({path for condition in conditions for path in condition["data"]})
    if not paths:
        return
    query = ", ".join(f"{msgspec.json.encode(path).decode()}: [value | value := {path}]" for path in paths)
    values: Any = await engine.value(f"{{{query}}}", {})
    for condition in conditions:
        for path in condition.pop("data"):
            if values[path]:
                condition["values"][path] = values[path][0]
            else:
                condition["missing"].append(path)


def _call(routing: dict[str, Any], question: JsonObject) -> JsonObject:
    actor: Any = question["actor"]
    return {
        "kinds": routing.get("kinds", []),
        "routes_of_caller": routing.get("routes", []),
        "route": next(iter(routing.get("route", [])), None),
        "server": routing.get("server", ""),
        "deployment": next(iter(routing.get("deployment", [])), None),
        "agent": {
            "id": actor["id"],
            "registered": routing.get("agent_registered", False),
            "kinds": routing.get("agent_kinds", []),
        },
        "kinds_of_scopes": routing.get("scoped_kinds", []),
    }


def _reason(engine: Engine, reason: Any) -> JsonObject:
    said = vocabulary(engine).get(reason["code"], {})
    return {
        **reason,
        "title": said.get("title", ""),
        "remedy": said.get("remedy", ""),
        "at": [*places_of_reason(engine.policies, reason["code"], "")],
    }


def vocabulary(engine: Engine) -> dict[str, dict[str, Any]]:
    """Return what the set's reason codes mean, as ``schema/reasons.json`` says; nothing where it does not."""
    for path, content in engine.policies.aside:
        if path.endswith(_REASONS):
            try:
                return msgspec.json.decode(content, type=_Vocabulary).reasons
            except msgspec.DecodeError:
                return {}
    return {}


class _Vocabulary(msgspec.Struct):
    reasons: dict[str, dict[str, Any]] = {}


async def _access(
    engine: Engine, question: JsonObject, access: JsonValue, verdict: dict[str, Any], held: dict[str, Any]
) -> JsonObject:
    owner = verdict.get("owner") or held.get("owner", "")
    asked = {key: value for key, value in question.items() if key != "accesses"} | {"access": access}
    granted: list[str] = verdict.get("grants", [])
    runs = await _runs(engine, owner, asked) if owner and held.get("covered") else []
    grants = [run for run in runs if run.rule == "grant"]
    return {
        "access": access,
        "owner": owner,
        "looked_up": held.get("looked_up", False),
        "delegated": held.get("delegated", []),
        "covered": held.get("covered", False),
        "granted": [_granted(name, grants) for name in granted],
        "denied": [_held(run) for run in runs if run.rule == "deny" and run.held],
        "not_granted": [_failed(run, asked) for run in sorted(grants, key=lambda run: -run.fulfilled) if not run.held],
        "obligations": {key: verdict.get(key) for key in OBLIGATIONS},
        "unsound": [
            {**one, "at": _lines_of(one["grant"], grants)}
            for one in (await _unsound(engine, owner, asked) if verdict["broken"] else [])
        ],
    }


async def _unsound(engine: Engine, owner: str, asked: JsonObject) -> list[dict[str, Any]]:
    """Return what of the owner's answer is not of the contract, grant by grant."""
    document: JsonObject = {"owner": owner, "question": asked}
    found: Any = await engine.value("data.authoring.facts.unsound", document, "-d", FACTS)
    return found if isinstance(found, list) else []


def _lines_of(name: str, grants: list[RuleRun]) -> list[JsonValue]:
    return [run.head.at for run in grants if run.held and run.label in {name, ""}]


def _approvals(decision: JsonObject, index: int, held: dict[str, Any]) -> list[JsonValue]:
    """Return the codes of the approvals that an access waits for.

    A decision says them where it allows. Where it does not, they are what the access's own grants would ask for.
    """
    if decision["allow"] is not True:
        return [*held.get("approvals", [])]
    approval: Any = decision.get("approval") or {}
    return [code for one in approval.get("accesses", []) if one["access"] == index for code in one["codes"]]


def _is_broken(decision: JsonObject, index: int) -> bool:
    """Whether the owner's answer on an access is not of the contract."""
    reasons: Any = decision["reasons"]
    return any((one["code"], one["access"]) == (_BROKEN, index) for one in reasons)


async def _runs(engine: Engine, owner: str, asked: JsonObject) -> list[RuleRun]:
    if f"teams/{owner}" not in engine.policies.bundles:
        return []
    team = f"data.mcp.teams[{msgspec.json.encode(owner).decode()}]"
    query = f"[[rules | rules := {team}.grant], [rules | rules := {team}.deny]]"
    answer = await engine.evaluate(query, asked, *_TRACED)
    return read_trace(answer.get("explanation", []), f"teams/{owner}/", engine.lines)


def _granted(name: str, grants: list[RuleRun]) -> JsonObject:
    places = [run.head.at for run in grants if run.held and run.label in {name, ""}]
    return {"grant": name, "at": [*places]}


def _held(run: RuleRun) -> JsonObject:
    return {"code": run.label, "at": run.head.at, "text": run.head.text}


def _failed(run: RuleRun, asked: JsonObject) -> JsonObject:
    return {
        "grant": run.label,
        "at": run.head.at,
        "conditions_held": run.fulfilled,
        "failed": _condition(run.failed, asked),
        "because": _condition(run.because, asked),
    }


def _condition(place: PolicyExpression | None, asked: JsonObject) -> JsonObject | None:
    if place is None:
        return None
    return {
        "at": place.at,
        "text": place.text,
        "values": values_of(place, asked),
        "missing": [*missing_of(place, asked)],
        "data": [*data_of(place)],
    }


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
