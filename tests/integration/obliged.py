"""A caller whose grants oblige the sidecar to something, in a real deployment on the sample database ``sales``."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from sidecar.demo.identities import Person
from tests.changed_policies import grant_more, platform_data
from tests.hours import policies_on
from tests.integration.deployment import Deployment

SALES = {"connectionId": "preconfigured", "database": "sales"}
KINDS = ("read", "metadata", "insert", "update", "delete", "export")
TRAITS = ("writes_via_pipeline", "exports_file", "whole_collection")


def policies_for(
    folder: Path, person: Person, rules: str, *, kinds: Collection[str] = KINDS, traits: Collection[str] = TRAITS
) -> Path:
    """The shipped policies with more rules of the team of ``sales``, whose platform lets the person do all of it.

    Args:
        folder: where they are copied to.
        person: their first group gets a route, and their agent a ceiling.
        rules: Rego.
        kinds: what the team may grant and the agent do.
        traits: what anybody may use.
    """
    copy = policies_on(folder)
    grant_more(copy, "analytics", rules)
    with platform_data(copy) as platform:
        route = platform["routes"][1]
        route["groups"].append(person.groups[0])
        route["scopes"] = ["*"]
        route["kinds"].append("export")
        platform["deployments"]["demo"]["databases"]["sales"]["delegated"][0]["kinds"] = [*kinds]
        ceiling = {"kinds": [*kinds], "servers": ["*"], "deployments": ["*"]}
        platform["agents"]["registered"][person.agent] = ceiling
        for trait in traits:
            platform["traits"][trait] = {"groups": ["*"]}
    return copy


async def call_as(person: Person, deployment: Deployment, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool on ``sales`` in a session of its own; return the result as it came."""
    async with deployment.plain(person) as client:
        await client.initialize()
        result: dict[str, Any] = (await client.call(tool, {**SALES, **arguments})).result
        return result
