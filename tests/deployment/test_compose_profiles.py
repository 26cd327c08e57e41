"""Profiles of the Compose file: what each starts, and that settings, names, ports and paths are the product's."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web
from ruamel.yaml import YAML

from sidecar import settings
from sidecar.outgoing import connections, demand_named
from tests import parts
from tests.nginx import nginx, with_real
from tests.parts import ROOT

COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = ("sidecar", "replica-1", "replica-2")
TOML = "./deploy/sidecar.toml:/etc/sidecar/sidecar.toml:ro"


def started(*profiles: str) -> set[str]:
    return {
        name
        for name, service in SERVICES.items()
        if not service.get("profiles") or set(service["profiles"]) & set(profiles)
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    subprocess.run([str(ROOT / "deploy/prepare"), str(folder)], check=True, capture_output=True)
    return folder


def given(name: str, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """The settings of a service: its file and its environment, with secrets where they are here."""
    assert TOML in SERVICES[name]["volumes"]
    for variable, value in SERVICES[name]["environment"].items():
        if variable.startswith("SIDECAR_"):
            monkeypatch.setenv(variable, value.replace("/run/secrets", str(prepared / "secrets")))
    here = prepared / "sidecar.toml"
    here.write_text((ROOT / "deploy/sidecar.toml").read_text().replace("/run/secrets", str(prepared / "secrets")))
    monkeypatch.setenv("SIDECAR_CONFIG", str(here))
    return settings.load()


def test_each_profile_adds_to_what_serves() -> None:
    assert started() == {"sidecar", "authorization-server", "opa", "mongo"}
    assert started("observability") - started() == {"jaeger", "prometheus", "grafana"}
    assert started("replicas") - started() == {"replica-1", "replica-2", "balancer"}


@pytest.mark.parametrize("name", SERVICES)
def test_what_a_service_waits_for_is_started_with_it(name: str) -> None:
    profiles = SERVICES[name].get("profiles", [])
    assert set(SERVICES[name].get("depends_on", {})) <= started(*profiles)


@pytest.mark.parametrize("name", OURS)
def test_the_sidecar_takes_its_settings(name: str, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = given(name, prepared, monkeypatch)
    demand_named(found)
    published = SERVICES["sidecar" if name == "sidecar" else "balancer"]["ports"][0]
    assert urlsplit(found.resource_url).port == int(published.rpartition(":")[2])


def test_replicas_share_all_that_replicas_can_share(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = given("replica-1", prepared, monkeypatch)
    assert one == given("replica-2", prepared, monkeypatch)
    page = (ROOT / "docs/replicas.md").read_text().partition("\n```toml\n")[0]
    shared = re.findall(r"^\| [^|]+ \| `([\w.]+)(?: = \"([\w:]+)\")?`", page, re.MULTILINE)
    values = {key: str(value_of(one, key)) for key, _ in shared}
    without = {"dpop_nonce_key_file"}  # no issuer of the file asks for nonces
    assert {key for key, value in values.items() if value in {"", "None"}} == without
    assert all(values[key] == text for key, text in shared if text)
    exposed = {each.name for each in connections(one) if each.fault}
    assert "mongodb.uri" not in exposed, "the store is reached with TLS only"
    assert settings.secret(one.mongodb.uri, one.mongodb.uri_file).count("tlsCAFile=/etc/sidecar/ca.pem") == 1
    assert "./deploy/keys/ca.pem:/etc/sidecar/ca.pem:ro" in SERVICES["replica-1"]["volumes"]


def value_of(found: settings.Settings, key: str) -> Any:
    value: Any = found
    for name in key.split("."):
        value = getattr(value, name)
    return value


def test_replicas_believe_what_nginx_says_of_clients(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (subnet,) = (each["subnet"] for each in COMPOSE["networks"]["front"]["ipam"]["config"])
    assert [str(each) for each in given("replica-1", prepared, monkeypatch).proxies.trusted] == [subnet]
    assert "front" in SERVICES["balancer"]["networks"]
    assert COMPOSE["networks"]["front"]["internal"] is True


def test_nginx_of_compose_is_the_shipped_one_with_other_names() -> None:
    def directives(name: str) -> list[str]:
        text = (ROOT / "deploy" / name).read_text()
        return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]

    pairs = list(zip(directives("nginx.conf"), directives("nginx-compose.conf"), strict=True))
    assert [ours for theirs, ours in pairs if theirs != ours] == [
        "server replica-1:8080 max_fails=0;",
        "server replica-2:8080 max_fails=0;",
        "listen 8443 ssl;",
        "server_name localhost;",
        "ssl_certificate_key /run/secrets/balancer_key;",
    ]


@pytest.mark.needs("nginx")
async def test_a_client_that_trusts_the_authority_of_this_machine_reaches_the_replicas(
    prepared: Path, tmp_path: Path
) -> None:
    """The real nginx with the file of Compose and the certificate of ``deploy/prepare``."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=request.headers["Host"])

    runner = web.ServerRunner(web.Server(answer))  # type: ignore[arg-type]  # a low-level server is given the request
    await runner.setup()
    behind, port = parts.free_port(), parts.free_port()
    await web.TCPSite(runner, "127.0.0.1", behind).start()
    real = {
        "replica-1:8080": f"127.0.0.1:{behind}",
        "replica-2:8080": f"127.0.0.1:{behind}",
        "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/nginx/server.pem": str(prepared / "keys/balancer.pem"),
        "/run/secrets/balancer_key": str(prepared / "secrets/balancer_key"),
    }
    configuration = with_real((ROOT / "deploy/nginx-compose.conf").read_text(), real)
    trusting = ssl.create_default_context(cafile=str(prepared / "keys/ca.pem"))
    try:
        async with nginx(tmp_path, configuration, port), aiohttp.ClientSession(trust_env=False) as http:
            async with http.get(f"https://localhost:{port}/mcp", ssl=trusting) as answered:
                assert await answered.text() == f"localhost:{port}"
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await http.get(f"https://localhost:{port}/mcp", ssl=ssl.create_default_context())
    finally:
        await runner.cleanup()


def test_prometheus_asks_every_sidecar_where_it_answers(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = YAML(typ="safe").load((ROOT / "deploy/prometheus/prometheus.yaml").read_text())
    targets = [name for job in asked["scrape_configs"] for each in job["static_configs"] for name in each["targets"]]
    found = given("sidecar", prepared, monkeypatch)
    assert targets == [f"{name}:8081" for name in OURS] == list(found.admin_allowed_hosts)
    assert found.admin_listen == "0.0.0.0:8081"
    assert [
        name for name in OURS if not set(SERVICES[name]["networks"]) & set(SERVICES["prometheus"]["networks"])
    ] == []
    mounted = {Path(mount.split(":")[1]).name for mount in SERVICES["prometheus"]["volumes"] if mount[0] == "."}
    assert set(asked["rule_files"]) <= mounted


def test_grafana_finds_the_dashboard_and_the_metrics() -> None:
    folder = ROOT / "deploy/grafana/provisioning"
    (provider,) = YAML(typ="safe").load((folder / "dashboards/mcp-sidecar.yaml").read_text())["providers"]
    sources = YAML(typ="safe").load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"] if mount[0] == ".")
    assert mounts["./deploy/grafana/mcp-sidecar.json"].startswith(f"{provider['options']['path']}/")
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    ports = {
        name: int(service["ports"][0].rpartition(":")[2]) for name, service in SERVICES.items() if "ports" in service
    }
    assert {urlsplit(each["url"]).netloc for each in sources} == {
        f"{name}:{ports[name]}" for name in ("prometheus", "jaeger")
    }


# --- the image --------------------------------------------------------------------------------------------------------


def test_each_base_image_is_a_build_argument() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    named = re.findall(r"^ARG (\w+_IMAGE)=", DOCKERFILE, re.MULTILINE)
    assert {base.strip("${}") for base in bases} == set(named)
    page = (ROOT / "docs/deploy.md").read_text()
    assert all(f"--build-arg {name}=" in page for name in named)


def test_what_the_image_copies_is_there_and_not_left_out() -> None:
    copied = [
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    ]
    assert [name for name in copied if not list(ROOT.glob(name))] == []
    kept = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert [name for name in copied if name not in kept and name.partition("/")[0] not in kept] == []


@pytest.mark.nightly
@pytest.mark.needs("hadolint")
def test_a_linter_of_dockerfiles_finds_nothing() -> None:
    done = subprocess.run(
        ["hadolint", "--no-color", str(ROOT / "Dockerfile")], capture_output=True, check=False, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.nightly
def test_the_server_starts_without_what_the_image_leaves_out(tmp_path: Path) -> None:
    removed = re.findall(r"node_modules/(@\w+)", DOCKERFILE)
    assert removed == ["@oven", "@rollup"]
    packages = parts.installed("mongodb-mcp-server").resolve()
    while packages.name != "node_modules":
        packages = packages.parent
    shutil.copytree(packages, tmp_path / "node_modules", symlinks=True, ignore=shutil.ignore_patterns(*removed))
    server = tmp_path / "node_modules/.bin/mongodb-mcp-server"
    done = subprocess.run([str(server), "--version"], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "3.0.4"
