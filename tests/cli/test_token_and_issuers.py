"""``token explain`` and ``issuers show``: what a deployment makes of a token, and what a preset stands for."""

import time
import tomllib
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from sidecar.command_line import cli
from sidecar.identity import PRESETS, Preset
from tests.signer import Signer
from tests.terminal import ACTS

ISSUER = "https://issuer.example"
RESOURCE = "http://127.0.0.1:8080/mcp"
KEY = ec.generate_private_key(ec.SECP256R1())
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": RESOURCE,
    "client_id": "claude-desktop",
    "azp": "other-name",
    "scope": "mongodb:read",
    "groups": ["analysts"],
    "salary": "very-private-value",
}


def settings(folder: Path) -> Path:
    issuer = Signer()
    issuer._key = KEY
    issuer.write_keys(folder / "jwks.json")
    file = folder / "sidecar.toml"
    file.write_text(
        f"""
resource_url = "{RESOURCE}"
[[issuers]]
issuer = "{ISSUER}"
jwks_file = "{folder / "jwks.json"}"
[[servers]]
name = "s"
url = "http://127.0.0.1:1/mcp"
"""
    )
    return file


def token(**changes: Any) -> str:
    now = int(time.time())
    claims = {name: value for name, value in {**GOOD, "iat": now, "exp": now + 60, **changes}.items() if value != ""}
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"typ": "at+jwt", "kid": "demo"})


def explain(file: Path, text: str | bytes, *options: str) -> Result:
    return CliRunner(env={"SIDECAR_CONFIG": str(file)}).invoke(cli, ["token", "explain", *options], input=text)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return settings(tmp_path_factory.mktemp("settings"))


def test_a_good_token_is_explained_claim_by_claim(file: Path) -> None:
    done = explain(file, token() + "\n", "--json")
    document = msgspec.json.decode(done.stdout)
    assert (done.exit_code, document["accepted"], document["fault"]) == (0, True, None)
    meanings = {one["claim"]: one["meaning"] for one in document["claims"]}
    assert meanings["iss"] == "the issuer, which is configured"
    assert meanings["sub"] == "the user"
    assert meanings["aud"] == "for this resource"
    assert meanings["client_id"] == "the agent"
    assert meanings["azp"] == "not the agent, because client_id comes first"
    assert meanings["groups"] == "the user's groups"
    assert meanings["salary"] == ""
    assert document["identity"]["subject"]["groups"] == ["analysts"]
    assert document["identity"]["actor"]["id"] == "claude-desktop"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"aud": "https://other.example"}, "token_audience"),
        ({"exp": 1}, "token_expired"),
        ({"iss": "https://issuer.example/"}, "token_issuer"),
        ({"client_id": "", "azp": ""}, "token_no_agent"),
        ({"sub": "claude-desktop"}, "token_no_person"),
        ({"cnf": {"jkt": "x"}}, "token_bound"),
    ],
    ids=str,
)
def test_a_refused_token_is_status_1_with_its_reason(file: Path, changes: dict[str, Any], fault: str) -> None:
    done = explain(file, token(**changes), "--json")
    document = msgspec.json.decode(done.stdout)
    assert (done.exit_code, document["accepted"], document["fault"]) == (1, False, fault)
    assert document["identity"] is None


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize("changes", [{}, {"aud": "https://other.example"}], ids=["accepted", "refused"])
def test_nothing_of_the_token_itself_is_printed(file: Path, options: tuple[str, ...], changes: dict[str, str]) -> None:
    text = token(**changes)
    done = explain(file, text, *options)
    for secret in (*text.split("."), "very-private-value"):
        assert secret not in done.output


@pytest.mark.parametrize("text", ["", " \n"], ids=repr)
def test_no_token_is_a_configuration_error(file: Path, text: str) -> None:
    assert explain(file, text).exit_code == 78


def test_what_it_prints_cannot_act_on_a_terminal(file: Path) -> None:
    hostile = "".join(ACTS)
    shown = explain(file, token(sub=hostile, **{hostile: 1})).stdout
    assert [each for each in ACTS if each in shown.replace("\n", "")] == []


@given(st.one_of(st.binary(max_size=300), st.from_regex(r"\A[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}\Z").map(str.encode)))
def test_whatever_comes_in_is_answered(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    file = settings(tmp_path_factory.getbasetemp())
    done = explain(file, text)
    assert done.exit_code in {1, 78}
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_is_printed_as_the_settings_that_it_stands_for(preset: Preset) -> None:
    done = CliRunner().invoke(cli, ["issuers", "show", preset.value])
    [shown] = tomllib.loads(done.stdout)["issuers"]
    assert (done.exit_code, shown) == (0, PRESETS[preset].settings)


def test_without_a_name_all_are_printed_and_another_name_is_wrong_usage() -> None:
    everything = CliRunner().invoke(cli, ["issuers", "show"]).stdout
    assert [line[2:] for line in everything.splitlines() if line in {f"# {preset}" for preset in Preset}] == [*Preset]
    assert CliRunner().invoke(cli, ["issuers", "show", "github"]).exit_code == 2
