"""Every advisory of the table is refused or carries a trait that the shipped policy closes."""

from dataclasses import replace
from typing import Final

import msgspec
import pytest

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, JsonValue, Namespace, ToolCall, Trait
from tests.parts import ROOT
from tools.virtual_patches import PAGE, PATCHES, How, Patch, render

SHIPPED: Final = msgspec.json.decode((ROOT / "policies" / "platform" / "data.json").read_bytes())["mcp"]["platform"]
COLL: Final[dict[str, JsonValue]] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


def call(tool: str, patch: Patch) -> ToolCall:
    pipeline: JsonValue = [*patch.example]
    if tool == "aggregate":
        return ToolCall(name=tool, arguments={**COLL, "pipeline": pipeline})
    wrapped: list[JsonValue] = [{"name": "aggregate", "arguments": {"pipeline": pipeline}}]
    return ToolCall(name=tool, arguments={**COLL, "method": wrapped})


@pytest.mark.parametrize("tool", ["aggregate", "explain"])
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.number)
def test_its_construct_does_not_get_through(patch: Patch, tool: str) -> None:
    if patch.how is How.REFUSED:
        with pytest.raises(CommandNotDerivable):
            derive(call(tool, patch))
        return
    if patch.how is How.ADMINISTRATIVE:
        whole = Access(kind=AccessKind.ADMIN, namespace=Namespace(), via="")
        assert whole in {replace(access, via="") for access in derive(call(tool, patch)).command.accesses}
        return
    trait = Trait.SERVER_SIDE_JS if patch.how is How.CLOSED else Trait.AMPLIFYING
    assert trait in derive(call(tool, patch)).command.traits
    assert trait not in SHIPPED["traits"]


def test_each_advisory_is_there_once_and_the_page_says_so() -> None:
    numbers = [patch.number for patch in PATCHES]
    assert len(set(numbers)) == len(numbers)
    assert PAGE.read_text(encoding="utf-8") == render()
