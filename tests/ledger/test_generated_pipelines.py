"""No form, depth or mutation hides the forbidden collection from the derivation."""

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from sidecar.commands.derive import derive
from sidecar.errors import ParseError, SidecarError
from sidecar.mcp.jsonrpc import decode
from sidecar.model import Access, Command, ToolCall
from tests.examples import examples
from tests.ledger.generator import SECRETS, Case, Spot, cases, mentions, mutants

EXAMPLES = examples(300)


def attempt(tool: str, arguments: dict[str, Any]) -> Command | None:
    try:
        return derive(ToolCall(name=tool, arguments=arguments)).command
    except SidecarError:
        return None


def covers(command: Command, spot: Spot, databases: tuple[str, ...]) -> bool:
    """Whether every kind of the spot is derived, in one of these databases."""
    if not spot.database:
        return any(access.target is not None and access.kind in spot.kinds for access in command.accesses)
    used = {(access.namespace.database, access.kind) for access in command.accesses if _is_forbidden(access)}
    return any({(database, kind) for kind in spot.kinds} <= used for database in databases)


def _is_forbidden(access: Access) -> bool:
    return access.namespace.collection == SECRETS


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_a_forbidden_collection_is_derived_at_any_depth_and_in_every_form(case: Case) -> None:
    command = attempt(case.tool, case.arguments)
    assert command is not None
    assert [spot for spot in case.spots if not covers(command, spot, (spot.database,))] == []


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_the_pointer_of_a_derived_access_leads_to_the_forbidden_name(case: Case) -> None:
    command = attempt(case.tool, case.arguments)
    assert command is not None
    forbidden = [access for access in command.accesses if _is_forbidden(access)]
    assert forbidden or not any(spot.database for spot in case.spots)
    for access in forbidden:
        said = follow(access.via, {"name": case.tool, "arguments": case.arguments})
        assert said is True or SECRETS in json.dumps(said)  # true: ``upsert`` and ``dropTarget`` add kinds


def follow(pointer: str, value: Any) -> Any:
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.filter_too_much])  # nine of ten are refused
@given(pair=mutants())
def test_a_mutated_call_is_refused_or_loses_no_access(pair: tuple[Case, dict[str, Any]]) -> None:
    case, arguments = pair
    command = attempt(case.tool, arguments)
    assume(command is not None)
    assert command is not None
    moved = databases(arguments) != databases(case.arguments)
    # A mutation that moved the name of a database moved the collection with it.
    anywhere = tuple(strings(arguments)) if moved else ()
    mentioned = [spot for spot in case.spots if mentions(arguments, spot)]
    assert [spot for spot in mentioned if not covers(command, spot, anywhere or (spot.database,))] == []


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_the_order_of_keys_changes_nothing(case: Case) -> None:
    command, reversed_command = (attempt(case.tool, form(case.arguments)) for form in (copy.deepcopy, backwards))
    assert command is not None
    assert reversed_command is not None
    assert set(command.accesses) == set(reversed_command.accesses)
    assert command.traits == reversed_command.traits


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_a_key_said_twice_is_not_decoded(case: Case) -> None:
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"arguments": case.arguments}})
    keys = [key for key in ("from", "coll", "into", "pipeline", "collection") if f'"{key}": ' in text]
    assert keys
    for key in keys:
        doubled = text.replace(f'"{key}": ', f'"{key}": "orders", "{key}": ', 1).encode()
        with pytest.raises(ParseError):
            decode(doubled)


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [word for child in children for word in strings(child)]


def databases(value: Any) -> list[Any]:
    """Everything under a key that names a database, in the order of reading."""
    if isinstance(value, list):
        return [name for child in value for name in databases(child)]
    if not isinstance(value, dict):
        return []
    own = [child for key, child in value.items() if key in ("database", "db")]
    return own + [name for child in value.values() for name in databases(child)]
