"""From OPA's answer to a Decision, or to nothing.

An answer is untrusted until it is exactly of the contract (``policies/schema/decision.json``): exact keys, exact
types, one entry per access. Everything else is ``DecisionUnavailable``, which is a refusal. Reading is strict on
purpose: engines and clients have been measured to lose keys, to widen types and to turn errors into values, and an
obligation that got lost on the way must never read as "no obligation".
"""

import re
from collections.abc import Collection, Mapping

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import AccessVerdict, AmplifierBound, Decision, JsonObject, JsonValue, Reason, StepUp, VisibleTools
from sidecar.usage import UsageLimit, UsagePart, UsageUnit

_ANSWER_KEYS = frozenset({"v", "allow", "reasons", "server", "accesses", "approval", "revision"})
_OPTIONAL_KEYS = frozenset({"step_up", "limits"})
_ACCESS_KEYS = frozenset({"owner", "grants", "filter", "mask", "max_documents", "max_time_ms"})
_MASK_KEYS = frozenset({"field", "as"})
_REACHABLE = "reachable"
"""The only choice of names that there is (``policies/schema/decision.json``)."""

_OPTIONAL_OBLIGATIONS = frozenset({"names", "max_affected", "max_bytes", "no_collection_scan"})
_REASON_KEYS = frozenset({"code", "source", "access"})
_BOUND_KEYS = frozenset({"construct", "most"})
_STEP_UP_KEYS = frozenset({"missing", "held"})
_LIMIT_KEYS = frozenset({"id", "per", "team", "window_s", *UsageUnit})
_VISIBILITY_KEYS = frozenset({"v", "tools", "servers"})
_SELFTEST_KEYS = frozenset({"v", "ok", "echo", "known"})

_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CONSTRUCT = re.compile(r"\$?[A-Za-z]{1,32}(?:\.[A-Za-z]{1,32})?")
_SOURCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SCOPE = re.compile(r"[!#-\[\]-~]{1,128}")
"""A scope (RFC 6749 section 3.3); clients are shown it in a header."""
_LONGEST_WINDOW = 86_400
_MOST_COUNTED = 2**53 - 1
"""Above it OPA's numbers are no longer exact in every reader of JSON."""
_MOST_SCOPES = 16
"""One for each kind and one for the route are the most that a call can need."""
_MOST = 2_147_483_647
"""The largest number that MongoDB takes for a limit (32-bit) and that an obligation may name."""

KNOWN_ANSWERS: Mapping[str, JsonValue] = {
    "min_of_numbers": 55,
    "max_of_numbers": 1000,
    "sort_of_numbers": [9, 55, 1000],
    "roles_of_one_user": ["reader"],
    "string_is_not_below_number": [False, True],
    "null_is_below_false": [True],
    "rfc3339_with_z": 1704067200000000000,
    "length_of_escaped_text": 4,
    "escape_is_the_character": [True],
    "unions_are_deep": {"a": {"b": 1, "c": 2}},
    "unknown_package": "undefined",
    "every_of_undefined": False,
    "negation_of_undefined": False,
    "hash": "39a012772dd5c3accbc56923093422896d41ac882e3cd66914bc584c7aac966f",
    "glob_spans_dots": True,
    "integers_are_exact": 9007199254740992,
    "index_of_rules": ["array", "set", "with a condition"],
    "text_stays_text": 'x", "allow": true, "z":"',
}
"""What OPA 1.22.4 answers (``policies/platform/facts.rego``); an engine that answers otherwise is never asked again."""


def read_decision(
    result: JsonValue,
    *,
    accesses: int,
    servers: Collection[str],
    revision: str = "",
    decision_id: str = "",
) -> Decision:
    """Accept OPA's answer on one call.

    Args:
        result: the value of ``data.mcp.main.decision``.
        accesses: how many accesses were asked about; at least one.
        servers: the names of the configured MCP server instances.
        revision: what the PDP says of its policy set, used where the answer itself does not say.
        decision_id: OPA's own id of the decision.

    Raises:
        DecisionUnavailable: the answer is not exactly of the contract.
    """
    step_up: StepUp | None = None
    limits: tuple[UsageLimit, ...] = ()
    if isinstance(result, dict) and not result.keys().isdisjoint(_OPTIONAL_KEYS):
        result = dict(result)
        step_up = _step_up(result.pop("step_up")) if "step_up" in result else None
        limits = _limits(result.pop("limits")) if "limits" in result else ()
    answer = _object(result, _ANSWER_KEYS, "answer")
    _version(answer)
    allow = answer["allow"]
    _demand(isinstance(allow, bool), "allow is not a boolean", PdpFault.WRONG_TYPE)
    reasons = tuple(_reason(item, accesses) for item in _array(answer["reasons"], "reasons"))
    verdicts = tuple(_access(item) for item in _array(answer["accesses"], "accesses"))
    decision = Decision(
        allow=allow is True,
        reasons=reasons,
        server=_text(answer["server"], "server"),
        accesses=verdicts,
        revision=_text(answer["revision"], "revision") or revision,
        approval=_approval(answer["approval"], accesses),
        step_up=step_up,
        decision_id=decision_id,
        limits=limits,
    )
    (_demand_allow if decision.allow else _demand_deny)(decision, accesses, servers)
    return decision


def is_called_malformed(result: JsonValue) -> bool:
    """Whether an answer says that the question is none: it is of a version that the policies were not written for."""
    match result:
        case {"allow": False, "reasons": [{"code": "invalid_input", "source": "platform"}]}:
            return True
        case _:
            return False


def read_visibility(result: JsonValue, *, tools: Collection[str], servers: Collection[str]) -> VisibleTools:
    """Accept OPA's answer on the list of tools: what the caller may see, and of which servers.

    Args:
        result: the value of ``data.mcp.main.visibility``.
        tools: the names that were asked about.
        servers: the names of the configured MCP server instances.

    Raises:
        DecisionUnavailable: the answer is not exactly of the contract, or names what was not asked about.
    """
    answer = _object(result, _VISIBILITY_KEYS, "answer")
    _version(answer)
    visible = _texts(answer["tools"], "tools")
    reached = _texts(answer["servers"], "servers")
    _demand(set(visible) <= set(tools), "a tool that was not asked about")
    _demand(set(reached) <= set(servers), "a server that is not configured")
    _demand(bool(reached) or not visible, "tools without a server")
    return VisibleTools(tools=frozenset(visible), servers=frozenset(reached))


def read_selftest(result: JsonValue, *, nonce: str) -> None:
    """Accept OPA's answer to the known-answer self-test.

    Args:
        result: the value of ``data.mcp.main.selftest``.
        nonce: what was asked; it comes back unchanged or the engine treats text as code.

    Raises:
        DecisionUnavailable: a known answer differs, is missing, or there is one more.
    """
    answer = _object(result, _SELFTEST_KEYS, "answer")
    _version(answer)
    _demand(answer["ok"] is True, "the self-test is not ok")
    _demand(bool(nonce) and answer["echo"] == nonce, "the self-test echoes something else")
    known = _object(answer["known"], frozenset(KNOWN_ANSWERS), "known answers")
    wrong = [name for name, value in KNOWN_ANSWERS.items() if not _same(known[name], value)]
    _demand(not wrong, f"the engine answers wrongly: {', '.join(wrong)}")


def _demand_allow(decision: Decision, accesses: int, servers: Collection[str]) -> None:
    """Hold an allow to its own rules; law 3: nothing asked, nothing granted, is never an allow."""
    _demand(not decision.reasons, "an allow with reasons", PdpFault.CONTRADICTION)
    _demand(decision.step_up is None, "an allow that lacks scopes", PdpFault.CONTRADICTION)
    one_each = accesses > 0 and len(decision.accesses) == accesses
    _demand(one_each, "an allow without one entry per access", PdpFault.WRONG_ACCESSES)
    granted = all(verdict.owner and verdict.grants for verdict in decision.accesses)
    _demand(granted, "an allow without owner or grant", PdpFault.CONTRADICTION)
    _demand(decision.server in servers, "an allow without a configured server", PdpFault.UNKNOWN_SERVER)


def _demand_deny(decision: Decision, accesses: int, servers: Collection[str]) -> None:
    """Hold a deny to its own rules: it says why, and its server, where it names one, is configured."""
    _demand(bool(decision.reasons), "a deny without a reason", PdpFault.CONTRADICTION)
    _demand(decision.approval is None, "a deny with an approval", PdpFault.CONTRADICTION)
    _demand(not decision.limits, "a deny that counts towards limits", PdpFault.CONTRADICTION)
    some = len(decision.accesses) not in {0, accesses}
    _demand(not some, "a deny with entries for some accesses", PdpFault.WRONG_ACCESSES)
    known = not decision.server or decision.server in servers
    _demand(known, "a deny with an unknown server", PdpFault.UNKNOWN_SERVER)


def _reason(value: JsonValue, accesses: int) -> Reason:
    bound = None
    if isinstance(value, dict) and "bound" in value:
        value = dict(value)
        bound = _bound(value.pop("bound"))
    fields = _object(value, _REASON_KEYS, "reason")
    code, source, access = _text(fields["code"], "code"), _text(fields["source"], "source"), fields["access"]
    _demand(_CODE.fullmatch(code) is not None, "a reason's code is not an identifier")
    _demand(_SOURCE.fullmatch(source) is not None, "a reason's source is not an identifier")
    return Reason(code=code, source=source, access=None if access is None else _index(access, accesses), bound=bound)


def _bound(value: JsonValue) -> AmplifierBound:
    """Accept a bound; its name is short and of letters, because the caller is shown it."""
    fields = _object(value, _BOUND_KEYS, "bound")
    construct, most = _text(fields["construct"], "construct"), fields["most"]
    _demand(_CONSTRUCT.fullmatch(construct) is not None, "a bound's construct is not a name")
    if isinstance(most, bool) or not isinstance(most, int | float):
        raise DecisionUnavailable("a bound is not a number", fault=PdpFault.WRONG_TYPE)
    _demand(most >= 0, "a bound is below zero")
    return AmplifierBound(construct=construct, most=most)


def _step_up(value: JsonValue) -> StepUp:
    fields = _object(value, _STEP_UP_KEYS, "step_up")
    missing, held = _texts(fields["missing"], "missing scopes"), _texts(fields["held"], "held scopes")
    _demand(0 < len(missing) <= _MOST_SCOPES, "no missing scope, or too many")
    _demand(set(missing).isdisjoint(held), "a scope that is missing and held", PdpFault.CONTRADICTION)
    _demand(all(_SCOPE.fullmatch(scope) for scope in (*missing, *held)), "a scope of no scope's form")
    return StepUp(missing=missing, held=held)


def _limits(value: JsonValue) -> tuple[UsageLimit, ...]:
    """Accept the limits that a call counts towards; one that got lost on the way would be none."""
    limits = tuple(_usage_limit(item) for item in _array(value, "limits"))
    _demand(bool(limits), "limits without a limit")
    _demand(len({(one.id, one.team) for one in limits}) == len(limits), "a limit twice")
    return limits


def _usage_limit(value: JsonValue) -> UsageLimit:
    """Accept one limit; its name is of letters that can be shown, because the caller is told it."""
    fields = _object(value, _LIMIT_KEYS, "limit")
    name, team, per = _text(fields["id"], "id"), _text(fields["team"], "team"), _texts(fields["per"], "per")
    window = _integer(fields["window_s"], "window")
    _demand(_SOURCE.fullmatch(name) is not None, "a limit's id is not an identifier")
    _demand(not set(per) - {*UsagePart}, "a limit counts by something that is not known")
    _demand((UsagePart.TEAM in per) is bool(team), "a limit's team is there where it counts by team")
    _demand(not team or _SOURCE.fullmatch(team) is not None, "a limit's team is not an identifier")
    _demand(0 < window <= _LONGEST_WINDOW, "a limit's window is not of 1 to 86400 seconds")
    most = tuple((unit, _integer(amount, unit)) for unit in UsageUnit if (amount := fields[unit]) is not None)
    _demand(bool(most) and all(0 < amount <= _MOST_COUNTED for _, amount in most), "a limit without an amount from 1")
    return UsageLimit(id=name, per=tuple(map(UsagePart, per)), team=team, window_s=window, most=most)


def _access(value: JsonValue) -> AccessVerdict:
    reachable = unscanned = False
    further: dict[str, int | None] = {}
    if isinstance(value, dict) and not value.keys().isdisjoint(_OPTIONAL_OBLIGATIONS):
        value = dict(value)
        if "names" in value:
            _demand(value.pop("names") == _REACHABLE, "a choice of names that is not known")
            reachable = True
        if "no_collection_scan" in value:
            _demand(value.pop("no_collection_scan") is True, "no_collection_scan is not true")
            unscanned = True
        further = {name: _limit(value.pop(name), name) for name in ("max_affected", "max_bytes") if name in value}
        _demand(None not in further.values(), "a number that is null where it may be left out")
    fields = _object(value, _ACCESS_KEYS, "access")
    return AccessVerdict(
        owner=_text(fields["owner"], "owner"),
        grants=_texts(fields["grants"], "grants"),
        filter=_filter(fields["filter"]),
        mask=_mask(fields["mask"]),
        max_documents=_limit(fields["max_documents"], "max_documents"),
        max_time_ms=_limit(fields["max_time_ms"], "max_time_ms"),
        max_affected=further.get("max_affected"),
        max_bytes=further.get("max_bytes"),
        no_collection_scan=unscanned,
        reachable_names=reachable,
    )


def _filter(value: JsonValue) -> JsonObject | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DecisionUnavailable("a filter is not an object", fault=PdpFault.WRONG_TYPE)
    _demand(bool(value) and all(value), "a filter without conditions")
    return value


def _mask(value: JsonValue) -> tuple[JsonValue, ...]:
    """Accept masked fields: paths of those that must not be seen, and objects that say what may be seen instead."""
    entries = tuple(_array(value, "mask"))
    for entry in entries:
        parts = [entry]
        if isinstance(entry, dict):
            parts = [*_object(entry, _MASK_KEYS, "mask").values()]
        _demand(all(_text(part, "mask") for part in parts), "mask: empty")
    _demand(len(set(map(repr, entries))) == len(entries), "mask: repeated")
    return entries


def _limit(value: JsonValue, name: str) -> int | None:
    if value is None:
        return None
    number = _integer(value, name)
    _demand(1 <= number <= _MOST, f"{name} is not a whole number from 1")
    return number


def _approval(value: JsonValue, accesses: int) -> JsonObject | None:
    if value is None:
        return None
    entries = _array(_object(value, frozenset({"accesses"}), "approval")["accesses"], "approval")
    _demand(bool(entries), "an approval of nothing")
    asking = []
    for entry in entries:
        fields = _object(entry, frozenset({"access", "codes"}), "approval")
        asking.append(_index(fields["access"], accesses))
        _demand(bool(_texts(fields["codes"], "codes")), "an approval without a code")
    _demand(len(set(asking)) == len(asking), "an access asks for approval twice")
    return {"accesses": entries}


def _index(value: JsonValue, accesses: int) -> int:
    index = _integer(value, "an index")
    _demand(0 <= index < accesses, "an index of no access")
    return index


def _version(answer: JsonObject) -> None:
    _demand(_integer(answer["v"], "v") == 1, "another version")


def _object(value: JsonValue, keys: frozenset[str], name: str) -> JsonObject:
    if not isinstance(value, dict):
        raise DecisionUnavailable(f"{name}: not an object", fault=PdpFault.WRONG_TYPE)
    _demand(value.keys() <= keys, f"{name}: a key that is not known", PdpFault.UNKNOWN_KEY)
    _demand(value.keys() == keys, f"{name}: a key is missing", PdpFault.MISSING_KEY)
    return value


def _array(value: JsonValue, name: str) -> list[JsonValue]:
    if not isinstance(value, list):
        raise DecisionUnavailable(f"{name}: not an array", fault=PdpFault.WRONG_TYPE)
    return value


def _integer(value: JsonValue, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DecisionUnavailable(f"{name}: not a whole number", fault=PdpFault.WRONG_TYPE)
    return value


def _text(value: JsonValue, name: str) -> str:
    if not isinstance(value, str):
        raise DecisionUnavailable(f"{name}: not a string", fault=PdpFault.WRONG_TYPE)
    return value


def _texts(value: JsonValue, name: str) -> tuple[str, ...]:
    """Strings that say something, each once."""
    texts = tuple(_text(item, name) for item in _array(value, name))
    _demand(all(texts) and len(set(texts)) == len(texts), f"{name}: empty or repeated")
    return texts


def _same(left: JsonValue, right: JsonValue) -> bool:
    """Equal and of the same types all the way down; in Python ``True == 1`` and ``1 == 1.0``."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


def _demand(condition: bool, what: str, fault: PdpFault = PdpFault.CONTRACT) -> None:  # noqa: FBT001 - as in assert
    if not condition:
        raise DecisionUnavailable(what, fault=fault)
