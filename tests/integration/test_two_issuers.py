"""A second issuer that signs the same users, groups and agents gets what the platform says of it, and no more."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST
from tests.changed_policies import platform_data
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed
from tests.signer import ISSUER

PARTNER = "https://partner.demo.invalid"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders", "filter": {}, "limit": 2}


class Partner:
    """The second issuer: it copies every claim of the first one's tokens, and signs with a key of its own."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.keys = folder / "partner.json"
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        self.keys.write_text(json.dumps({"keys": [{**public, "kid": "demo", "use": "sig", "alg": "ES256"}]}))

    def token(self, home: str, issuer: str = PARTNER) -> str:
        claims = jwt.decode(home, options={"verify_signature": False})
        return jwt.encode(
            claims | {"iss": issuer}, self._key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "demo"}
        )


@pytest.fixture(scope="module")
def partner(folder: Path) -> Partner:
    return Partner(folder)


def say(platform: dict[str, Any]) -> None:
    """Let the tables count for the home issuer, but for one route and the default agents: those are open to both."""
    held = platform["deployments"]["demo"]
    holdings = [*held["databases"].values(), *held["prefixes"].values(), *held["targets"].values(), held["whole"]]
    delegated = [entry for holding in holdings for entry in holding["delegated"]]
    home = [*platform["grants"], *platform["agents"]["registered"].values(), *platform["traits"].values(), *delegated]
    for entry in home:
        entry["issuers"] = [ISSUER]
    for entry in (*platform["routes"], platform["agents"]["default"], *platform["traits"].values()):
        entry["issuers"] = ["*"]
    for agent in platform["agents"]["registered"].values():
        agent["issuers"] = ["*"]
    platform["scope_issuers"] = {scope: ["*"] for scope in platform["scopes"]}
    platform["routes"][1].pop("issuers")


@pytest.fixture(scope="module")
def deployment(folder: Path, database: str, partner: Partner) -> Iterator[Deployment]:
    policies = policies_on(folder)
    with platform_data(policies) as platform:
        say(platform)
    extra = f'[[issuers]]\nissuer = "{PARTNER}"\njwks_file = "{partner.keys}"\nalgorithms = ["ES256"]'
    with deployed(folder, database, extra=extra, policies=policies) as running:
        yield running


async def call(deployment: Deployment, token: str) -> Any:
    async with DemoClient(deployment.url, token, "test") as client:
        await client.initialize()
        return await client.call("find", ORDERS)


async def test_the_home_issuers_caller_reads(deployment: Deployment, samples: Any) -> None:
    answer = await call(deployment, deployment.token(ANALYST))
    assert len(answer.result["structuredContent"]["documents"]) == 2


async def test_the_same_names_of_another_issuer_reach_no_teams_database(
    deployment: Deployment, samples: Any, partner: Partner
) -> None:
    before = deployment.all_reached()
    answer = await call(deployment, partner.token(deployment.token(ANALYST)))
    assert answer.body["error"]["message"] == "Unknown tool."
    record = deployment.records()[-1]
    assert (record["subject"]["issuer"], record["tool"]) == (PARTNER, "find")
    assert {reason["code"] for reason in record["decision"]["reasons"]} == {"not_delegated"}
    assert deployment.all_reached() == before


async def test_a_key_of_one_issuer_proves_nothing_of_another(deployment: Deployment, partner: Partner) -> None:
    async with DemoClient(deployment.url, partner.token(deployment.token(ANALYST), ISSUER), "test") as client:
        answer = await client.initialize()
    assert answer.status == 401
    assert deployment.records()[-1]["outcome"]["error"] == "token_signature"


def test_what_says_nothing_is_told_at_the_start_with_file_and_line(deployment: Deployment) -> None:
    told = re.findall(
        r"platform/data\.json:\d+: (\S+): counts for no caller, because 2 issuers are trusted",
        deployment.log_file.read_text(),
    )
    assert sorted(told) == ["/mcp/platform/approvers/0", "/mcp/platform/routes/1"]
