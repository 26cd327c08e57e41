"""Several issuers with an OPA of the operator's own: bundles say for which issuers their entries count."""

import asyncio
import json
from pathlib import Path

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from sidecar.opa.client import OpaClient
from sidecar.policyset import bundle_writer
from tests.integration.deployment import deployed
from tests.integration.test_two_issuers import PARTNER, Partner, call, say
from tests.opa.test_external_opa import (
    PATIENT_S,
    Run,
    eventually,
    joined,
    policies,  # noqa: F401 - a fixture
    revision_of,
    run_opa,  # noqa: F401 - a fixture
    served,
)


async def test_the_same_names_of_another_issuer_reach_nothing(
    policies: Path,  # noqa: F811
    tmp_path: Path,
    opa_binary: str,
    run_opa: Run,  # noqa: F811
    database: str,
) -> None:
    out, folder = tmp_path / "out", tmp_path / "deployment"
    folder.mkdir()
    partner = Partner(folder)
    file = policies / "platform/data.json"
    document = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    say(document["mcp"]["platform"])
    file.write_text(json.dumps(document))
    built = await bundle_writer.build(policies, out, opa_binary)
    async with served(out) as source:
        url = run_opa(source)
        async with OpaClient(url, timeout_s=PATIENT_S) as client:

            async def serves() -> bool:
                return await revision_of(client) == joined(built)

            await eventually(serves)
        running = deployed(
            folder,
            database,
            extra=f'[[issuers]]\nissuer = "{PARTNER}"\njwks_file = "{partner.keys}"\nalgorithms = ["ES256"]',
            environment={"SIDECAR_OPA__URL": url, "SIDECAR_OPA__TIMEOUT_MS": "5000"},
        )
        deployment = await asyncio.to_thread(running.__enter__)
        try:
            await demo_database.seed(database)
            home = deployment.token(ANALYST)
            answer = await call(deployment, home)
            assert len(answer.result["structuredContent"]["documents"]) == 2
            before = deployment.all_reached()
            refused = await call(deployment, partner.token(home))
            assert refused.body["error"]["message"] == "Unknown tool."
            record = deployment.records()[-1]
            assert record["subject"]["issuer"] == PARTNER
            assert {reason["code"] for reason in record["decision"]["reasons"]} == {"not_delegated"}
            assert deployment.all_reached() == before
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)
