"""What the Compose file mounts: keys and tokens that the sidecar would accept, and settings that it can read."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from sidecar.demo import log_in
from tests import parts
from tests.authorization_server import AuthorizationServer
from tests.parts import ROOT

AUDIENCE = "http://127.0.0.1:8080/mcp"
SETTINGS = (ROOT / "deploy/sidecar.toml").read_text()


def token(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.defpath, "DEPLOY_KEYS": str(folder / "keys")}
    return subprocess.run(
        [str(ROOT / "deploy/token"), *words], env=environment, capture_output=True, text=True, check=False
    )


def verified(folder: Path, text: str) -> dict[str, Any]:
    keys = jwt.PyJWKSet.from_json((folder / "keys/jwks.json").read_text())
    claims: dict[str, Any] = jwt.decode(text, keys["compose"].key, algorithms=["RS256"], audience=AUDIENCE)
    return claims


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy")
    subprocess.run([str(ROOT / "deploy/prepare"), str(folder)], check=True, capture_output=True)
    return folder


def test_a_token_verifies_with_the_key_set_and_says_who(prepared: Path) -> None:
    text = token(prepared, "alice@corp.example", "claude-desktop", "analysts,support", "mongodb:read").stdout.strip()
    claims = verified(prepared, text)
    assert jwt.get_unverified_header(text) == {"alg": "RS256", "typ": "at+jwt", "kid": "compose"}
    assert claims["sub"] == "alice@corp.example"
    assert claims["client_id"] == "claude-desktop"
    assert claims["groups"] == ["analysts", "support"]
    assert claims["scope"] == "mongodb:read"
    assert f'issuer = "{claims["iss"]}"' in SETTINGS
    assert f'resource_url = "{claims["aud"]}"' in SETTINGS
    assert time.time() < claims["exp"] <= time.time() + 8 * 3600 + 1


def test_nobody_in_particular_has_no_groups(prepared: Path) -> None:
    assert verified(prepared, token(prepared, "mallory", "agent", "", "mongodb:read").stdout.strip())["groups"] == []


@pytest.mark.parametrize("word", ['x","groups":["admins"],"y":"', "back\\slash", "new\nline", "$(id)"])
def test_a_word_that_could_change_the_claims_is_refused(prepared: Path, word: str) -> None:
    done = token(prepared, word, "agent", "", "mongodb:read")
    assert (done.returncode, done.stdout) == (2, "")


def test_preparing_again_keeps_what_is_there(prepared: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in prepared.rglob("*") if path.is_file()}

    before = contents()
    subprocess.run([str(ROOT / "deploy/prepare"), str(prepared)], check=True, capture_output=True)
    assert contents() == before
    assert len(before) == 19


def test_nobody_else_on_the_machine_can_reach_the_secrets(prepared: Path) -> None:
    assert {stat.S_IMODE((prepared / name).stat().st_mode) for name in ("keys", "secrets")} == {0o700}
    assert stat.S_IMODE((prepared / "keys/issuer.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in (prepared / "keys/jwks.json").read_text()


async def test_the_authorization_server_starts_with_what_is_prepared_and_its_tokens_are_the_sidecars(
    prepared: Path, tmp_path: Path
) -> None:
    configuration = json.loads((prepared / "secrets/authorization_server.json").read_text())  # noqa: TID251 - ours
    assert configuration["listen"] == "0.0.0.0:9000"
    assert f'issuer = "{configuration["issuer"]}"' in SETTINGS
    here = {**configuration, "issuer": f"http://127.0.0.1:{parts.free_port()}", "listen": ""}
    server = AuthorizationServer(folder=tmp_path, configuration=here)
    try:
        server.start()
        answer = await log_in.tokens_of(
            server.issuer,
            log_in.Registered(client_id="nightly-loader", redirect_uri="http://localhost:49152/callback"),
            ("larry", (prepared / "secrets/larry_password").read_text().strip()),
            resource=AUDIENCE,
            scopes=("mongodb:read", "mongodb:write"),
        )
    finally:
        server.stop()
    claims = verified(prepared, answer["access_token"])
    assert (claims["sub"], claims["client_id"], claims["groups"]) == ("larry", "nightly-loader", ["loaders"])
    assert claims["scope"] == "mongodb:read mongodb:write"


def test_the_sidecar_can_read_its_settings() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from sidecar import settings; print(settings.load().resource_url)"],
        env={"SIDECAR_CONFIG": str(ROOT / "deploy/sidecar.toml")},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout.strip() == AUDIENCE, done.stderr


def test_policy_routes_only_to_servers_that_the_settings_have() -> None:
    platform = json.loads((ROOT / "policies/platform/data.json").read_text())["mcp"]["platform"]  # noqa: TID251 - ours
    configured = set(re.findall(r'^name = "(.*)"$', SETTINGS, re.MULTILINE))
    assert {route["server"] for route in platform["routes"]} <= configured


def test_no_database_user_may_drop_or_manage() -> None:
    granted = re.findall(r'on\("\w+", ([^)]*)\)', (ROOT / "deploy/mongo/10-users.js").read_text())
    actions = {action.strip(' "') for group in granted for action in group.split(",")}
    assert actions == {"insert", "update"}
    users, _, store = (ROOT / "deploy/mongo/10-users.js").read_text().partition("// Of its own database")
    assert not re.search(r"readWrite|dbOwner|dbAdmin|\broot\b|AnyDatabase", users)
    assert re.findall(r'role: "(\w+)", db: "(\w+)"', store) == [("readWrite", "mcp_sidecar")]
    assert "mcp_sidecar" not in users, "what sidecars share is out of every server's reach"
