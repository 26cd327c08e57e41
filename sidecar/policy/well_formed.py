"""Whether a question about a call is well-formed: what ``policies/platform/input_check.rego`` says, said here.

The memo of answers leaves parts of a question out of account that no rule uses (``sidecar.opa.memo``). Each is looked
at by ``input_check`` all the same, so only answers about well-formed questions may stand for each other. This may say
no where the rules say yes, and then OPA is asked; it never says yes where they say no (tests/policy/test_well_formed.py
holds both against each other on a real OPA).
"""

import math
from typing import Any, Final

from sidecar.model import AccessKind, JsonObject, TargetKind, Trait

_KINDS: Final[frozenset[str]] = frozenset(AccessKind)
_TRAITS: Final[frozenset[str]] = frozenset(Trait)
_TARGETS: Final[frozenset[str]] = frozenset(TargetKind)
_MOST_ACCESSES: Final = 256
_LARGEST: Final = 9223372036854775807
_QUESTION: Final = frozenset({"v", "subject", "actor", "action", "accesses", "command", "context"})
_SUBJECT: Final = frozenset({"type", "id", "issuer", "groups", "roles", "scopes", "claims"})
_ACTOR: Final = frozenset({"type", "id", "chain"})
_ACTION: Final = frozenset({"method", "tool"})
_CONTEXT: Final = frozenset({"time_ns", "client_ip", "protocol", "environment", "approval"})
_COMMAND: Final = frozenset({"traits", "stages", "fields", "limit"})
_ACCESS: Final = frozenset({"kind", "database", "collection", "via"})


def is_well_formed(question: JsonObject) -> bool:
    """Whether the platform's rules take a decision question for one that they were written for."""
    if question.keys() != _QUESTION or type(question["v"]) is not int or question["v"] != 1:
        return False
    return (
        _subject(question["subject"])
        and _actor(question["actor"])
        and _action(question["action"])
        and _context(question["context"])
        and _accesses(question["accesses"])
        and _command(question["command"])
    )


def _subject(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and (
            value.keys() == _SUBJECT
            or (value.keys() - {"several_issuers"} == _SUBJECT and value["several_issuers"] is True)
        )
        and value["type"] in ("user", "service")
        and _named(value["id"])
        and _named(value["issuer"])
        and _texts(value["groups"])
        and _texts(value["roles"])
        and _texts(value["scopes"])
        and isinstance(value["claims"], dict)
    )


def _actor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _ACTOR
        and value["type"] == "agent"
        and _named(value["id"])
        and _texts(value["chain"])
    )


def _action(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == _ACTION and _named(value["method"]) and _named(value["tool"])


def _context(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _CONTEXT
        and _natural(value["time_ns"])
        and isinstance(value["client_ip"], str)
        and isinstance(value["protocol"], str)
        and isinstance(value["environment"], str)
        and (value["approval"] is None or isinstance(value["approval"], dict))
    )


def _accesses(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= _MOST_ACCESSES and all(map(_access, value))


def _access(value: Any) -> bool:
    if not isinstance(value, dict) or not _one_of(_KINDS, value.get("kind")):
        return False
    database, collection = value.get("database"), value.get("collection")
    if not (isinstance(database, str) and isinstance(collection, str) and isinstance(value.get("via"), str)):
        return False
    rest = value.keys() - _ACCESS
    if not rest:
        return database != "" or collection == ""
    if rest == {"via_view"}:
        return database != "" and _view(value["via_view"])
    return rest == {"target"} and database == "" and collection == "" and _target(value["target"])


def _view(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"database", "collection"}
        and _named(value["database"])
        and _named(value["collection"])
    )


def _target(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"kind", "id"}
        and _one_of(_TARGETS, value["kind"])
        and isinstance(value["id"], str)
    )


def _command(value: Any) -> bool:
    if (
        not isinstance(value, dict)
        or not value.keys() >= _COMMAND
        or value.keys() - _COMMAND - {"amplifiers", "arguments"}
    ):
        return False
    fields = value["fields"]
    return (
        isinstance(value["traits"], list)
        and all(_one_of(_TRAITS, trait) for trait in value["traits"])
        and _texts(value["stages"])
        and isinstance(fields, dict)
        and fields.keys() == {"filtered", "returned"}
        and _texts(fields["filtered"])
        and (fields["returned"] == "all" or _texts(fields["returned"]))
        and (value["limit"] is None or _natural(value["limit"]))
        and ("amplifiers" not in value or _amplifiers(value["amplifiers"]))
        and ("arguments" not in value or _arguments(value["arguments"]))
    )


def _amplifiers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(one, dict)
            and one.keys() == {"construct", "number", "at"}
            and isinstance(one["construct"], str)
            and isinstance(one["at"], str)
            and (one["number"] is None or _is_number(one["number"]))
            for one in value
        )
    )


def _arguments(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            place.startswith("/") and (one is None or isinstance(one, str | bool) or _is_number(one))
            for place, one in value.items()
        )
    )


def _one_of(known: frozenset[str], value: Any) -> bool:
    return isinstance(value, str) and value in known


def _named(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _natural(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))
