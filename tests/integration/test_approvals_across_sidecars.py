"""Approvals of two sidecars with one shared store, and a second person whose token is bound to a key (DPoP)."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests import parts
from tests.integration.deployment import Deployment, deployed, search_path
from tests.integration.test_approvals import AGENT, DECISION, LEAD, asked_for, call, delete, with_approvals
from tests.oauth.proofs import thumbprint
from tests.patience import HANG_S

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def of_store(folder, uri: str, name: str) -> str:
    (folder / "store").write_text(uri)
    return (
        f'[approvals]\nstore = "mongodb:approvals"\n'
        f'[mongodb]\nuri_file = "{folder}/store"\ndatabase = "{name}"\ntimeout_ms = 5000\n'
    )


@pytest.fixture
def pair(tmp_path, database, database_name):
    here, there, policies = tmp_path / "here", tmp_path / "there", tmp_path / "policies"
    for folder in (here, there, policies):
        folder.mkdir()
    proofs = 'dpop = "allowed"\ndpop_nonce = true'
    shared = with_approvals(policies)
    with (
        deployed(here, database, extra=of_store(here, database, database_name), policies=shared) as first,
        deployed(
            there, database, extra=of_store(there, database, database_name), policies=shared, of_issuer=proofs
        ) as second,
    ):
        with first.database() as client:
            client.staging.orders.delete_many({})
            client.staging.orders.insert_many([{"_id": number, "old": number < 3} for number in range(5)])
        yield first, second


def command(deployment: Deployment, *words: str, token: str, key: Any = None) -> subprocess.CompletedProcess[str]:
    more = []
    if key is not None:
        file = deployment.folder / "proof-key.pem"
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        more = ["--proof-key-file", str(file)]
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "approvals", *words, "--token-file", "-", *more],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        input=token,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


async def test_a_call_waits_at_one_is_approved_with_a_proof_at_the_other_and_passes_once(pair) -> None:
    first, second = pair
    wanted = delete("across")
    approval = await asked_for(first, wanted)
    bound = second.token(LEAD, confirmation={"jkt": thumbprint(KEY)})

    for shown in ({"token": bound}, {"token": bound, "key": OTHER_KEY}):
        refused = command(second, "approve", approval, **shown)
        assert refused.returncode == 1, refused.stdout
        assert bound not in refused.stderr
    assert (await call(first, AGENT, wanted))["result"]["_meta"][DECISION]["approval"]["state"] == "waiting"

    assert approval in command(second, "list", token=bound, key=KEY).stdout
    done = command(second, "approve", approval, "--reason", "month end", token=bound, key=KEY)
    assert (done.returncode, done.stdout.split(",")[0]) == (0, f"approved: {approval}"), done.stderr

    other = replace(AGENT, user="bob")
    assert (await call(first, other, wanted))["result"]["_meta"][DECISION]["approval"]["id"] != approval
    results = [await call(one, AGENT, wanted) for one in (first, second, first)]
    passed = [not answer["result"].get("isError", False) for answer in results]
    assert passed == [True, False, False], "once, wherever it is made again"
    with first.database() as client:
        assert client.staging.orders.count_documents({}) == 2
    [spent] = [
        one["approval"]
        for one in first.records()
        if (one.get("approval") or {}).get("action") == "spent" and one["event"] == "intent"
    ]
    assert (spent["id"], spent["approver"]["id"]) == (approval, LEAD.user)
    [decided] = [
        one for one in second.records() if one["event"] == "approval" and one["approval"]["action"] == "approved"
    ]
    assert decided["approval"]["reason"] == "month end"
