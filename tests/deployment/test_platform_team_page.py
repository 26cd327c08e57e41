"""The page for platform teams, word for word: its commands, web server and OPA, with this machine's addresses."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from sidecar.opa.client import OpaClient
from sidecar.opa.external import ExternalOpa
from sidecar.opa.policy_state import Load
from sidecar.ports import Question
from tests import parts
from tests.nginx import nginx, with_real
from tests.opa.outside import Outside, process, unpacked, wait_until
from tests.opa.outside import replaced as altered
from tests.patience import HANG_S

pytestmark = [pytest.mark.nightly, pytest.mark.needs("nginx"), pytest.mark.real]

PAGE = (parts.ROOT / "docs/platform-team.md").read_text()
TEAM = "teams/support"


def block(language: str, beginning: str) -> str:
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if text.startswith(beginning)]
    return str(found)


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m sidecar"
    words = command.partition("#")[0].strip().replace("mcp-sidecar", program)
    environment = {"PATH": f"{parts.BIN}:{os.defpath}", "PYTHONPATH": str(parts.ROOT)}
    return subprocess.run(["sh", "-c", words], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A folder in which the page's commands have run."""

    folder: Path

    def command(self, beginning: str) -> subprocess.CompletedProcess[str]:
        """Run the page's one command that begins so."""
        lines = block("sh", "mcp-sidecar policy check").splitlines()
        [line] = [line for line in lines if line.startswith(beginning)]
        done = run(self.folder, line)
        assert done.returncode == 0, done.stderr
        return done

    def publish(self, served: Path, name: str, content: bytes | None = None) -> None:
        """Put an archive beside its name, and rename it."""
        target = served / f"{name}.tar.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(".fresh")
        fresh.write_bytes(content or (self.folder / f"bundles/{name}.tar.gz").read_bytes())
        fresh.replace(target)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(folder=tmp_path_factory.mktemp("pipeline"))
    shutil.copytree(parts.ROOT / "policies", made.folder / "policies")
    for command in re.findall(r"`(openssl [^`]+)`", PAGE):
        assert run(made.folder, command).returncode == 0
    made.command("mcp-sidecar policy check policies")
    made.command("mcp-sidecar policy bundle")
    made.command("mcp-sidecar policy check bundles")
    return made


def names() -> list[str]:
    return list(YAML(typ="safe").load(block("yaml", "services:"))["bundles"])


@asynccontextmanager
async def web_server(folder: Path, served: Path, port: int) -> AsyncIterator[None]:
    """The page's nginx, without TLS."""
    real = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "ssl_certificate /etc/nginx/server.pem;": "",
        "ssl_certificate_key /etc/nginx/server.key;": "",
        "/srv/bundles": str(served.parent),
    }
    async with nginx(folder, with_real(block("nginx", "server {"), real), port):
        yield


def configured(folder: Path, pipeline: Pipeline, port: int) -> Path:
    """The page's OPA, with this web server, this key, and polls of a second."""
    config = YAML(typ="safe").load(block("yaml", "services:"))
    config["services"]["files"]["url"] = f"http://127.0.0.1:{port}/production"
    config["keys"]["platform"]["key"] = (pipeline.folder / "platform.pub").read_text()
    config["persistence_directory"] = str(folder / "kept")
    for bundle in config["bundles"].values():
        bundle["polling"] = {"min_delay_seconds": 1, "max_delay_seconds": 1}
    file = folder / "opa.json"
    file.write_text(json.dumps(config))
    return file


async def until(condition: Callable[[], bool], opa: ExternalOpa) -> None:
    async with asyncio.timeout(HANG_S):
        while not (await opa.healthy() and condition()):  # noqa: ASYNC110 - another process's, there is no event
            await asyncio.sleep(0.1)


@asynccontextmanager
async def deciding(url: str, served: Path) -> AsyncIterator[ExternalOpa]:
    """A sidecar's end of an OPA, once all bundles are there."""
    outside = Outside(url=url, folder=served)
    await asyncio.to_thread(wait_until, lambda: outside.revisions().keys() == {*names()}, "all bundles to be active")
    async with ExternalOpa(OpaClient(url, timeout_s=HANG_S), binary="no-such-opa", timeout_s=HANG_S) as opa:
        yield opa


def said_of(outside: Outside, bundle: str) -> str:
    """What OPA says is wrong with a bundle."""
    try:
        return str(outside.get("v1/status")["result"]["bundles"][bundle].get("message", ""))
    except (OSError, KeyError):
        return ""


def edited(pipeline: Pipeline) -> bytes:
    """A team's archive with one rule changed under its old signature."""
    archive = pipeline.folder / f"bundles/{TEAM}.tar.gz"
    [name] = [name for name, _ in unpacked(archive) if name.endswith("policy.rego")]
    return altered(archive, name, lambda text: text + "\n# altered\n")


def test_the_page_names_every_bundle_of_the_set() -> None:
    teams = sorted(path.name for path in (parts.ROOT / "policies/teams").iterdir() if path.is_dir())
    assert names() == ["platform", *(f"teams/{team}" for team in teams)]


async def test_opa_fetches_signed_bundles_keeps_the_last_good_one_and_refuses_the_others(
    tmp_path: Path, pipeline: Pipeline
) -> None:
    served, port, opa_port = tmp_path / "srv/production", parts.free_port(), parts.free_port()
    for name in names():
        pipeline.publish(served, name)
    flags = (f"--config-file={configured(tmp_path, pipeline, port)}",)
    binary = str(parts.installed("opa"))
    async with web_server(tmp_path, served, port):
        with process(binary, opa_port, *flags, cwd=tmp_path) as url:
            async with deciding(url, served) as opa:
                before = opa.policy_state
                assert before.result is Load.LOADED

                # Altered, unsigned: not activated, and the last good one decides on.
                pipeline.publish(served, TEAM, edited(pipeline))
                await until(lambda: "digest mismatch" in opa.policy_state.error, opa)
                unsigned = pipeline.folder / "unsigned"
                command = f"mcp-sidecar policy bundle policies --out {unsigned} --only {TEAM}"
                assert run(pipeline.folder, command).returncode == 0
                pipeline.publish(served, TEAM, (unsigned / f"{TEAM}.tar.gz").read_bytes())
                await until(lambda: "missing .signatures.json" in opa.policy_state.error, opa)
                assert (await opa.ask(Question.DECISION, {})).revision == before.revision

                # What the pipeline signs next is activated everywhere.
                policy = pipeline.folder / f"policies/{TEAM}/policy.rego"
                policy.write_text(policy.read_text() + "\n# the next revision\n")
                printed = pipeline.command("mcp-sidecar policy bundle").stdout
                pipeline.publish(served, TEAM)
                await until(lambda: opa.policy_state.result is Load.LOADED and opa.policy_state != before, opa)
                after = opa.policy_state.revision
                [revision] = re.findall(rf"{TEAM}\.tar\.gz\s+(\S+)", printed)
                assert revision in after
                assert revision not in before.revision

    # The web server is away and OPA is started again: it decides with what it kept.
    with process(binary, opa_port, *flags, cwd=tmp_path) as url:
        async with deciding(url, served) as opa:
            assert (await opa.ask(Question.DECISION, {})).revision == after

    # What was kept is altered on the disk: it is not activated, and nothing is decided without it.
    kept = tmp_path / f"kept/bundles/{TEAM}/bundle.tar.gz"
    kept.write_bytes(edited(pipeline))
    with process(binary, opa_port, *flags, cwd=tmp_path) as url:
        outside = Outside(url=url, folder=served)
        others = {*names()} - {TEAM}
        await asyncio.to_thread(wait_until, lambda: said_of(outside, TEAM) != "", "the first fetch to fail")
        await asyncio.to_thread(wait_until, lambda: outside.revisions().keys() == others, "what was kept to be active")
