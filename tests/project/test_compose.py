"""The Compose file cannot be run where there is no Docker; what it promises can still be held."""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.parts import ROOT

COMPOSE: dict[str, Any] = YAML(typ="safe").load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PINNED = dict(re.findall(r"^readonly (\w+)_VERSION=([\d.]+)$", (ROOT / "scripts/lib.sh").read_text(), re.MULTILINE))


def made_here(service: dict[str, Any]) -> bool:
    """Whether its image is one of the Dockerfile, which says the user."""
    return "build" in service or service["image"] == SERVICES["sidecar"]["image"]


each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


@each_service
def test_a_service_has_no_rights_to_spare(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("cap_add", []) == []
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_every_container_runs_as_somebody_else_than_root() -> None:
    users = {name: service["user"] for name, service in SERVICES.items() if not made_here(service)}
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users.values()), users
    built = [service for service in SERVICES.values() if "build" in service]
    assert len(re.findall(r"^USER 10001:10001$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)) == len(built)


def test_what_people_and_agents_reach_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "sidecar": ["127.0.0.1:8080:8080"],
        "authorization-server": ["127.0.0.1:9000:9000"],
        "jaeger": ["127.0.0.1:16686:16686"],
        "balancer": ["127.0.0.1:8443:8443"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_the_authorization_server_is_a_stage_of_the_image_that_the_sidecars_has_nothing_of() -> None:
    stage = SERVICES["authorization-server"]["build"]["target"]
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    (its_own,) = [text for text in stages if text.startswith(f"${{NODE_IMAGE}} AS {stage}\n")]
    assert "parts/authorization-server" in its_own
    assert not any("authorization-server" in line for line in stages[-1].splitlines() if not line.startswith("#"))
    assert SERVICES["authorization-server"]["secrets"] == ["authorization_server"]


def test_the_database_and_opa_have_no_network_in_common_with_the_host() -> None:
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal") is True}
    assert set(SERVICES["mongo"]["networks"]) <= internal
    assert set(SERVICES["opa"]["networks"]) <= internal
    assert not set(SERVICES["mongo"]["networks"]) & set(SERVICES["opa"]["networks"])


def test_the_sidecar_shares_a_network_with_everything_it_needs() -> None:
    mine = set(SERVICES["sidecar"]["networks"]) | {"front"}
    assert [name for name, service in SERVICES.items() if not mine & set(service["networks"])] == []


def test_secrets_are_files_and_the_sidecar_gets_no_more_than_it_uses() -> None:
    assert all(secret["file"].startswith("./deploy/secrets/") for secret in COMPOSE["secrets"].values())
    assert SERVICES["sidecar"]["secrets"] == ["reader_uri", "writer_uri"]
    values = [str(value) for service in SERVICES.values() for value in service.get("environment", {}).values()]
    names = [name for service in SERVICES.values() for name in service.get("environment", {})]
    assert not any("mongodb://" in value for value in values)
    assert [name for name in names if re.search("PASSWORD|SECRET|TOKEN", name) and not name.endswith("_FILE")] == []


def test_mounts_are_read_only_except_volumes_of_their_own() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    binds = [mount for mount in mounts if mount.startswith(".")]
    assert binds
    assert [bind for bind in binds if not bind.endswith(":ro")] == []
    assert {mount.split(":")[0] for mount in mounts if not mount.startswith(".")} == set(COMPOSE["volumes"])


def test_images_are_of_the_versions_that_the_project_pins() -> None:
    assert SERVICES["opa"]["image"] == f"openpolicyagent/opa:{PINNED['OPA']}-static"
    assert SERVICES["jaeger"]["image"] == f"jaegertracing/jaeger:{PINNED['JAEGER']}"
    assert re.fullmatch(r"mongo:8\.\d+", SERVICES["mongo"]["image"])


def test_opa_loads_every_team_that_there_is() -> None:
    loaded = SERVICES["opa"]["command"]
    teams = sorted(f"teams/{folder.name}" for folder in (ROOT / "policies/teams").iterdir() if folder.is_dir())
    assert loaded[loaded.index("--bundle") + 1 :] == ["platform", "system", *teams, "/revision"]


def test_every_mounted_file_is_in_the_repository_or_made_by_prepare() -> None:
    made = (ROOT / "deploy/.gitignore").read_text().split()
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", []) if mount.startswith("./")]
    sources = [mount.split(":")[0].removeprefix("./") for mount in mounts]
    sources += [secret["file"].removeprefix("./") for secret in COMPOSE["secrets"].values()]
    kept = [source for source in sources if not any(source.startswith(f"deploy/{folder}") for folder in made)]
    assert [source for source in kept if not (ROOT / source).exists()] == []
