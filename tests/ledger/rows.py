"""The ledger of attacks: its rows, and what the sidecar makes of one.

``attacks.json`` holds one row a line. A row names the passage it comes from (``server``: the reference of the MongoDB
MCP server; ``threats``: the reference of attacks) and has an attack with its expectation, and a near miss: the benign
neighbour, with its own. A row is a ``tools/call`` (``call``) or a whole JSON-RPC body (``body``, or ``body_hex`` where
the bytes are not text). An expectation is one of

- ``{"refused": code, "path": pointer}``; ``path`` may be left out;
- ``{"accesses": [[kind, database, collection], [kind, "", "", "target kind:id"], …], "traits": […]}``: at least these
  for an attack, exactly these for a near miss. ``absent`` accesses must not be there; ``filtered`` and ``not_filtered``
  fields must and must not be among those looked at; ``returned`` is the fields given back, or ``"all"``;
- ``{"members": [expectation, …]}`` for a batch.

Expectations were written down from the references, not from what the code does.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from sidecar.commands.derive import derive
from sidecar.errors import CallRefused, SidecarError
from sidecar.mcp.jsonrpc import Batch, Notification, Request, Response, decode
from sidecar.mcp.methods import Treatment, classify
from sidecar.mcp.revision import Era
from sidecar.mcp.tools import parse_call
from sidecar.model import Access, Command, ToolCall

Row = dict[str, Any]
Outcome = dict[str, Any]
"""What became of a row, in the words of an expectation."""

_FILE = Path(__file__).with_name("attacks.json")


@cache
def rows() -> tuple[Row, ...]:
    """Every row, in the order of the file."""
    found: list[Row] = json.loads(_FILE.read_text("utf-8"))  # noqa: TID251 - our own file
    return tuple(found)


def body_of(row: Row) -> bytes | None:
    """The attack as a JSON-RPC body, if it is one."""
    if "body_hex" in row:
        return bytes.fromhex(row["body_hex"])
    return row["body"].encode() if "body" in row else None


def as_json(value: Row) -> bytes:
    """A message as JSON text, with everything outside ASCII escaped: lone surrogates and all."""
    return json.dumps(value).encode()


def outcome_of_attack(row: Row) -> Outcome:
    """What the sidecar's core makes of the attack."""
    body = body_of(row)
    return _outcome_of_call(row["call"]) if body is None else _outcome_of_body(body)


def outcome_of_near_miss(row: Row) -> Outcome:
    """What the sidecar's core makes of the near miss."""
    if "near_miss_body" in row:
        return _outcome_of_body(row["near_miss_body"].encode())
    return _outcome_of_call(row["near_miss"])


def _outcome_of_body(body: bytes) -> Outcome:
    try:
        message = decode(body)
    except SidecarError as error:
        return {"refused": error.label, "path": ""}
    if isinstance(message, Batch):
        return {"members": [_outcome_of_message(member) for member in message.members]}
    return _outcome_of_message(message)


_OFFERED = frozenset({"resources", "prompts", "completion"})
"""Families of methods that are refused where no server has exports, prompts or resources, as in the ledger's
deployment (``sidecar.enforcement.offers``; the ledger is played against it end to end)."""


def _outcome_of_message(message: Request | Notification | Response) -> Outcome:
    if isinstance(message, Response):
        return {"refused": "response", "path": ""}
    unconfigured = message.method.partition("/")[0] in _OFFERED
    if unconfigured or classify(message, Era.HANDSHAKE) is Treatment.REFUSE:
        return {"refused": "method_refused", "path": ""}
    try:
        call = parse_call(message.params)
    except SidecarError as error:
        return {"refused": error.label, "path": ""}
    return _outcome_of_call({"name": call.name, "arguments": call.arguments})


def _outcome_of_call(call: Row) -> Outcome:
    try:
        command = derive(ToolCall(name=call["name"], arguments=call["arguments"])).command
    except CallRefused as refusal:
        return {"refused": refusal.reason, "path": refusal.path}
    except SidecarError as error:
        return {"refused": error.label, "path": ""}
    return _in_words(command)


def _in_words(command: Command) -> Outcome:
    returned = command.fields.returned
    return {
        "accesses": [_access(access) for access in command.accesses],
        "traits": sorted(command.traits),
        "filtered": list(command.fields.filtered),
        "returned": "all" if returned is None else list(returned),
        "via": [access.via for access in command.accesses],
    }


def _access(access: Access) -> list[str]:
    words = [access.kind.value, access.namespace.database, access.namespace.collection]
    return words if access.target is None else [*words, f"{access.target.kind.value}:{access.target.id}"]


def faults(expected: Row, found: Outcome, *, exact: bool) -> list[str]:
    """Say in what an outcome differs from an expectation; nothing if it does not."""
    if "members" in expected:
        members = found.get("members", [])
        if len(members) != len(expected["members"]):
            return [f"a batch of {len(expected['members'])}: {found}"]
        pairs = zip(expected["members"], members, strict=True)
        return [fault for wanted, member in pairs for fault in faults(wanted, member, exact=exact)]
    if "refused" in expected:
        wrong = [key for key in ("refused", "path") if key in expected and found.get(key) != expected[key]]
        return [f"{key}: {found.get(key)!r} instead of {expected[key]!r} in {found}" for key in wrong]
    if "accesses" not in found:
        return [f"refused: {found}"]
    return _access_faults(expected, found, exact=exact) + _field_faults(expected, found)


def _access_faults(expected: Row, found: Outcome, *, exact: bool) -> list[str]:
    wanted, got = ({tuple(access) for access in side["accesses"]} for side in (expected, found))
    wrong = [f"access lost: {access}" for access in sorted(wanted - got)]
    wrong += [f"trait lost: {trait}" for trait in sorted(set(expected["traits"]) - set(found["traits"]))]
    wrong += [f"access to be absent: {access}" for access in expected.get("absent", ()) if tuple(access) in got]
    if exact:
        wrong += [f"access too many: {access}" for access in sorted(got - wanted)]
        wrong += [f"trait too many: {trait}" for trait in sorted(set(found["traits"]) - set(expected["traits"]))]
    return wrong


def _field_faults(expected: Row, found: Outcome) -> list[str]:
    used = found["filtered"]
    wrong = [
        f"field not seen: {field!r}" for field in expected.get("filtered", ()) if field not in used and "" not in used
    ]
    wrong += [f"field seen that is not used: {field!r}" for field in expected.get("not_filtered", ()) if field in used]
    if "returned" in expected and _as_set(expected["returned"]) != _as_set(found["returned"]):
        wrong.append(f"returned: {found['returned']} instead of {expected['returned']}")
    return wrong


def _as_set(returned: str | list[str]) -> set[str]:
    return {"(all)"} if returned == "all" else set(returned)
