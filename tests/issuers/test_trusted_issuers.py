"""From settings to what is demanded of an issuer's tokens."""

import pytest

from sidecar.issuers import trusted
from sidecar.oauth.jwk import VerificationKey
from sidecar.settings import Settings, load

SERVER = {"name": "ro", "url": "http://127.0.0.1:9/mcp"}


class NoKeys:
    async def candidates(self, _key_id: str | None, _algorithm: str) -> tuple[VerificationKey, ...]:
        return ()


def settings(resource_url: str = "https://mcp.example/mcp", **issuer: object) -> Settings:
    return load(resource_url=resource_url, servers=[SERVER], issuers=[{"issuer": "https://idp.example", **issuer}])


@pytest.mark.parametrize("resource_url", ["https://mcp.example", "https://mcp.example/"])
def test_a_resource_without_a_path_is_one_audience_in_both_spellings(resource_url: str) -> None:
    config = settings(resource_url)

    found = trusted(config.issuers[0], config, NoKeys()).audiences

    assert found == {"https://mcp.example", "https://mcp.example/"}


def test_a_resource_with_a_path_is_an_audience_in_one_spelling() -> None:
    config = settings("https://mcp.example/mcp")

    assert trusted(config.issuers[0], config, NoKeys()).audiences == {"https://mcp.example/mcp"}


def test_configured_audiences_replace_the_resource_and_follow_the_same_rule() -> None:
    config = settings(audiences=["api://mcp", "https://api.example/"])

    found = trusted(config.issuers[0], config, NoKeys()).audiences

    assert found == {"api://mcp", "https://api.example", "https://api.example/"}
