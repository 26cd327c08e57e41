"""An OPA that somebody else runs, fed with our bundles over HTTP, as docs/external-opa.md says."""

import asyncio
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.opa.client import OpaClient
from sidecar.opa.self_test import self_test
from sidecar.policyset import bundle_writer
from sidecar.policyset.folder import PolicySet
from sidecar.ports import Question
from tests import parts
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S
from tests.policy_sets import quick_copy

pytestmark = pytest.mark.real

PATIENT_S = HANG_S
KEY_ID = "platform"


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A copy of the repository's policies that a test may edit."""
    return quick_copy(tmp_path / "policies")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """Private key file and public key, of the right signer and of another."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name in ("right", "wrong"):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        file = folder / f"{name}.pem"
        form = serialization.PrivateFormat.PKCS8
        file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        made[name] = (file, public.decode())
    return made


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[str]:
    """A plain file server."""
    application = web.Application()
    application.router.add_static("/", folder)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Run = Callable[..., str]


@pytest.fixture
def run_opa(opa_binary: str, tmp_path: Path) -> Iterator[Run]:
    """Starts an OPA that polls a file server for the platform's bundle and the teams'; returns its URL."""
    running: list[subprocess.Popen[bytes]] = []

    def run(source: str, *, public_key: str = "", **more: Any) -> str:
        polling = {"min_delay_seconds": 1, "max_delay_seconds": 1}
        entry: dict[str, Any] = {"service": "files", "polling": polling}
        config: dict[str, Any] = {**more, "services": {"files": {"url": source}}}
        if public_key:
            config["keys"] = {KEY_ID: {"algorithm": "RS256", "key": public_key}}
            entry["signing"] = {"keyid": KEY_ID}
        names = ["platform", *(f"teams/{team.name}" for team in sorted((parts.ROOT / "policies/teams").iterdir()))]
        config["bundles"] = {name: {**entry, "resource": f"{name}.tar.gz"} for name in names}
        port = parts.free_port()
        file = tmp_path / f"opa-{port}.json"
        file.write_text(json.dumps(config))
        flags = ["--authorization=basic", "--skip-version-check", "--log-level=error"]
        command = [opa_binary, "run", "--server", f"--addr=127.0.0.1:{port}", f"--config-file={file}", *flags]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path))
        return f"http://127.0.0.1:{port}"

    yield run
    for process in running:
        parts.stop(process)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's, there is no event
            await asyncio.sleep(0.05)


async def revision_of(client: OpaClient) -> str:
    try:
        return (await client.ask(Question.DECISION, {})).revision
    except DecisionUnavailable:
        return ""


def joined(built: list[bundle_writer.Bundle]) -> str:
    return ",".join(sorted(bundle.revision for bundle in built))


async def test_bundles_are_served_self_tested_and_followed(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run
) -> None:
    out = tmp_path / "out"
    first = joined(await bundle_writer.build(policies, out, opa_binary))
    async with served(out) as source, OpaClient(run_opa(source), timeout_s=PATIENT_S) as client:

        async def answers_as(revision: str) -> bool:
            return await revision_of(client) == revision

        await eventually(lambda: answers_as(first))
        assert await client.healthy()
        await self_test(client)
        file = policies / "teams" / "people" / "data.json"
        edited = file.read_text()
        file.write_text(edited.replace('"people": {', '"people": {"edited": true, ', 1))
        assert file.read_text() != edited
        second = await bundle_writer.build(policies, out, opa_binary, only=["teams/people"])
        assert [bundle.name for bundle in second] == ["teams/people"]
        both = joined(await bundle_writer.build(policies, tmp_path / "again", opa_binary))
        assert second[0].revision in both
        assert both != first
        await eventually(lambda: answers_as(both))
        await self_test(client)


async def test_a_signature_of_another_key_never_serves(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run, keys: dict[str, tuple[Path, str]]
) -> None:
    """The near miss is the same archive under the right key."""
    out = tmp_path / "out"
    built = await bundle_writer.build(policies, out, opa_binary, signing=bundle_writer.SigningKey(key=keys["right"][0]))
    async with served(out) as source:
        urls = {name: run_opa(source, public_key=public) for name, (_, public) in keys.items()}
        async with (
            OpaClient(urls["right"], timeout_s=PATIENT_S) as right,
            OpaClient(urls["wrong"], timeout_s=PATIENT_S) as wrong,
        ):

            async def serves() -> bool:
                return await revision_of(right) == joined(built)

            await eventually(serves)
            await self_test(right)
            assert not await wrong.healthy()
            with pytest.raises(DecisionUnavailable):
                await self_test(wrong)


async def test_an_unsigned_or_edited_bundle_does_not_pass_for_a_signed_one(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run, keys: dict[str, tuple[Path, str]]
) -> None:
    out = tmp_path / "out"
    key, public = keys["right"]
    built = await bundle_writer.build(policies, out, opa_binary, signing=bundle_writer.SigningKey(key=key))
    first = joined(built)
    async with served(out) as source, OpaClient(run_opa(source, public_key=public), timeout_s=PATIENT_S) as client:

        async def serves() -> bool:
            return await revision_of(client) == first

        await eventually(serves)
        people = next(bundle for bundle in built if bundle.name == "teams/people")
        with tarfile.open(out / "teams" / "people.tar.gz") as tar:
            files = [(entry.name, stream.read()) for entry in tar if (stream := tar.extractfile(entry)) is not None]
        edited = [(path, text + b"\n# edited" if path.endswith(".rego") else text) for path, text in files]
        for forged in (edited, people.files):
            (out / "teams" / "people.tar.gz").write_bytes(bundle_writer.archive(forged))
            await asyncio.sleep(1.5)  # one poll at least; that nothing changes has no event to wait for
            assert await revision_of(client) == first


async def test_the_same_set_gives_the_same_bytes_and_no_tests(policies: Path, tmp_path: Path, opa_binary: str) -> None:
    for out in ("one", "two"):
        await bundle_writer.build(policies, tmp_path / out, opa_binary)
    archives = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar.gz"))
    teams = sorted(folder.name for folder in (policies / "teams").iterdir())
    assert [str(path) for path in archives] == ["platform.tar.gz", *(f"teams/{team}.tar.gz" for team in teams)]
    for path in archives:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
        with tarfile.open(tmp_path / "one" / path) as tar:
            names = tar.getnames()
        assert ".manifest" in names
        assert not [name for name in names if name.endswith("_test.rego")]


async def test_what_must_not_be_served_is_not_built(policies: Path, tmp_path: Path, opa_binary: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigurationError, match="no bundle teams/nobody"):
        await bundle_writer.build(policies, out, opa_binary, only=["teams/nobody"])
    with pytest.raises(ConfigurationError, match="cannot be signed"):
        await bundle_writer.build(
            policies, out, opa_binary, signing=bundle_writer.SigningKey(key=tmp_path / "none.pem")
        )
    (policies / "teams" / "people" / "more.rego").write_text("package mcp.main\n\nallow := true\n")
    with pytest.raises(ConfigurationError, match=r"teams/people/more\.rego:1: package mcp\.main"):
        await bundle_writer.build(policies, out, opa_binary)
    assert not out.exists()


def test_a_system_with_data_is_no_bundle(policies: Path) -> None:
    (policies / "system" / "data.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"system/data\.json"):
        list(bundle_writer.divide(PolicySet.read(policies)))


async def test_a_sidecar_serves_with_it_and_records_its_revision(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run, database: str
) -> None:
    out, folder = tmp_path / "out", tmp_path / "deployment"
    folder.mkdir()
    built = await bundle_writer.build(policies, out, opa_binary)
    async with served(out) as source:
        url = run_opa(source)
        async with OpaClient(url, timeout_s=PATIENT_S) as client:

            async def serves() -> bool:
                return await revision_of(client) == joined(built)

            await eventually(serves)
        running = deployed(folder, database, environment={"SIDECAR_OPA__URL": url, "SIDECAR_OPA__TIMEOUT_MS": "5000"})
        deployment = await asyncio.to_thread(running.__enter__)
        try:
            assert deployment.children("/opa") == []
            await demo_database.seed(database)
            arguments = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
            async with deployment.client(ANALYST) as mcp:
                assert not (await mcp.call_tool("count", arguments)).is_error
                assert (await mcp.call_tool("count", {**arguments, "database": "hr"})).is_error
            revisions = {
                record["decision"]["revision"]
                for record in deployment.records()
                if record["event"] == "intent" and record["method"] == "tools/call"
            }
            assert revisions == {joined(built)}
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


BAD = "package mcp.teams.people\n\nenvironment := opa.runtime()\n"
COUNT = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


async def test_a_bundle_that_is_not_contained_stops_every_decision_until_it_is_mended(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run, database: str
) -> None:
    """A team's key holder switches a bundle in while a sidecar serves; nobody is decided about under it."""
    out, folder = tmp_path / "out", tmp_path / "deployment"
    folder.mkdir()
    built = await bundle_writer.build(policies, out, opa_binary)
    archive = out / "teams" / "people.tar.gz"
    whole = archive.read_bytes()
    forged = bundle_writer.archive(
        [
            (".manifest", b'{"revision": "forged", "roots": ["mcp/grants/people", "mcp/teams/people"]}'),
            ("policy.rego", BAD.encode()),
        ]
    )
    async with served(out) as source:
        url = run_opa(source)
        async with OpaClient(url, timeout_s=PATIENT_S) as client:

            async def answers_as(revision: str) -> bool:
                return await revision_of(client) == revision

            await eventually(lambda: answers_as(joined(built)))
            environment = {"SIDECAR_OPA__URL": url, "SIDECAR_OPA__TIMEOUT_MS": "5000"}
            running = deployed(folder, database, environment=environment)
            deployment = await asyncio.to_thread(running.__enter__)
            try:
                await demo_database.seed(database)
                assert (await reason(deployment), await state(deployment)) == ("", (200, [], "loaded"))
                replace(archive, forged)
                others = {bundle.revision for bundle in built if bundle.name != "teams/people"}
                await eventually(lambda: answers_as(",".join(sorted({*others, "forged"}))))
                assert await reason(deployment) == "opa.policies_refused"
                assert await state(deployment) == (503, ["policies"], "refused")
                assert "teams/people/policy.rego:3: opa.runtime is not open to teams" in deployment.log_file.read_text()
                assert 'mcp_sidecar_opa_faults_total{fault="policies_refused"}' in deployment.admin("/metrics")[1]
                replace(archive, whole)
                await eventually(lambda: answers_as(joined(built)))
                assert (await reason(deployment), await state(deployment)) == ("", (200, [], "loaded"))
            finally:
                await asyncio.to_thread(running.__exit__, None, None, None)


async def test_a_bundle_that_opa_does_not_activate_is_said_and_stops_nobody(
    policies: Path, tmp_path: Path, opa_binary: str, run_opa: Run, database: str
) -> None:
    """As a refused edit is of a managed OPA: the last good set serves, readiness and a metric say so."""
    out, folder = tmp_path / "out", tmp_path / "deployment"
    folder.mkdir()
    built = await bundle_writer.build(policies, out, opa_binary)
    archive = out / "teams" / "people.tar.gz"
    whole = archive.read_bytes()
    broken = bundle_writer.archive(
        [
            (".manifest", b'{"revision": "broken", "roots": ["mcp/grants/people", "mcp/teams/people"]}'),
            ("policy.rego", b"package mcp.teams.people\n\nenvironment := nosuch(1)\n"),
        ]
    )
    async with served(out) as source:
        url = run_opa(source, status={"console": True, "trigger": "manual"})
        async with OpaClient(url, timeout_s=PATIENT_S) as client:

            async def serves() -> bool:
                return await revision_of(client) == joined(built)

            await eventually(serves)
        environment = {"SIDECAR_OPA__URL": url, "SIDECAR_OPA__TIMEOUT_MS": "5000"}
        running = deployed(folder, database, environment=environment)
        deployment = await asyncio.to_thread(running.__enter__)

        async def is_degraded() -> bool:
            found = await state(deployment)
            assert found[0] == 200
            return found == (200, ["policies"], "refused")

        async def is_whole() -> bool:
            return await state(deployment) == (200, [], "loaded")

        try:
            await demo_database.seed(database)
            assert (await reason(deployment), await state(deployment)) == ("", (200, [], "loaded"))
            replace(archive, broken)
            await eventually(is_degraded)
            assert await reason(deployment) == ""
            assert (
                "keeps serving: teams/people: policy.rego:3: rego_type_error: undefined function nosuch"
                in deployment.log_file.read_text()
            )
            replace(archive, whole)
            await eventually(is_whole)
            assert await reason(deployment) == ""
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


def replace(archive: Path, content: bytes) -> None:
    fresh = archive.with_suffix(".fresh")
    fresh.write_bytes(content)
    fresh.replace(archive)


async def reason(deployment: Deployment) -> str:
    """Why a call that the policies allow is refused, as its caller is told; empty where it is not."""
    async with deployment.plain(ANALYST) as client:
        await client.initialize()
        result = (await client.call("count", COUNT)).result
    decision = result.get("_meta", {}).get("mcp-sidecar/decision", {})
    return str(decision["reasons"][0]["source"]) if result.get("isError") else ""


async def state(deployment: Deployment) -> tuple[int, list[str], str]:
    """Status and concerns of ``/readyz``, and what the metric says."""
    status, body = await asyncio.to_thread(deployment.admin, "/readyz")
    metrics = (await asyncio.to_thread(deployment.admin, "/metrics"))[1]
    results = [each for each in ("loaded", "refused") if f'mcp_sidecar_policy_load{{result="{each}"}} 1.0' in metrics]
    return status, msgspec.json.decode(body).get("degraded", []), ",".join(results)
