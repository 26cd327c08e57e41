"""What a check finds of the platform's data stands for the rule that each question would ask otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigurationError
from sidecar.policyset.checks import ApprovedSet
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.workshop import workshop
from tests.policyset.opa_eval import opa_eval

pytestmark = pytest.mark.real

RULE = "data.mcp.platform.configuration.in_form"
OF_NO_FORM: dict[str, object] = {"refused_kinds": ["conect"], "limits": [{"id": "all"}], "approvers": {}}
OF_ITS_FORM: dict[str, object] = {"limits": []}


async def vetted(opa_binary: str, folder: Path) -> ApprovedSet:
    async with workshop(opa_binary) as checker:
        return await checker.vet(PolicySet.read(folder))


def change(policies: Path, **tables: object) -> None:
    file = policies / "platform" / "data.json"
    document: dict[str, Any] = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    document["mcp"]["platform"] |= tables
    file.write_text(json.dumps(document))


async def test_a_check_finds_data_usable_where_the_rule_does_and_only_there(policies: Path, opa_binary: str) -> None:
    """With a schema that refuses nothing: so that it is the rule alone that finds it."""
    (policies / "schema" / "platform.json").write_text("{}")
    kept = (policies / "platform" / "data.json").read_bytes()
    for name, value in (*OF_NO_FORM.items(), *OF_ITS_FORM.items()):
        (policies / "platform" / "data.json").write_bytes(kept)
        change(policies, **{name: value})
        approved = await vetted(opa_binary, policies)
        options = [word for bundle in approved.policies.bundles for word in ("-d", str(policies / bundle))]
        asked = bool(opa_eval(opa_binary, f"[1 | {RULE}]", {}, *options))
        assert approved.sound is asked, name
        assert asked is (value == []), name


async def test_of_other_rules_nothing_is_said_at_load(policies: Path, opa_binary: str) -> None:
    with (policies / "platform" / "main.rego").open("a") as module:
        module.write("# another\n")
    assert not (await vetted(opa_binary, policies)).sound


async def test_without_data_nothing_was_examined(policies: Path, opa_binary: str) -> None:
    (policies / "platform" / "data.json").unlink()
    assert not (await vetted(opa_binary, policies)).sound


async def test_data_in_the_place_of_the_rule_is_refused(policies: Path, opa_binary: str) -> None:
    (policies / "schema" / "platform.json").write_text("{}")
    change(policies, configuration={"in_form": True}, servers="x")
    with pytest.raises(ConfigurationError, match="conflicting rule"):
        await vetted(opa_binary, policies)


async def test_one_check_says_nothing_of_the_next_set(policies: Path, opa_binary: str) -> None:
    (policies / "schema" / "platform.json").write_text("{}")
    async with workshop(opa_binary) as checker:
        assert (await checker.vet(PolicySet.read(policies))).sound
        change(policies, windows=["always"])
        assert not (await checker.vet(PolicySet.read(policies))).sound
