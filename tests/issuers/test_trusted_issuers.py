"""From settings to what is demanded of an issuer's tokens."""

import pytest

from sidecar.errors import ConfigurationError
from sidecar.issuers import scopes_to_ask_for, trusted
from sidecar.oauth.jwk import VerificationKey
from sidecar.settings import Settings, load
from sidecar.token_reading import identity_rules

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


def asking(*prefixes: str, scopes: tuple[str, ...] = ("mongodb:read",)) -> Settings:
    """Settings with an issuer for each prefix."""
    issuers = [{"issuer": f"https://idp{number}.example", "scope_prefix": one} for number, one in enumerate(prefixes)]
    return load(resource_url="https://mcp.example/mcp", servers=[SERVER], issuers=issuers, scopes=scopes)


def test_metadata_ask_as_the_first_issuer_is_asked() -> None:
    assert scopes_to_ask_for(asking("api://a/", "")) == ("api://a/mongodb:read",)
    assert scopes_to_ask_for(asking("", "api://a/")) == ("mongodb:read",)
    assert scopes_to_ask_for(asking("api://a/", scopes=())) == ()


def test_each_issuers_tokens_are_read_with_its_own_prefix() -> None:
    config = asking("api://a/", "")
    assert [identity_rules(one, config).scope_prefix for one in config.issuers] == ["api://a/", ""]


@pytest.mark.parametrize("prefixes", [("api://a/",), ("", "api://a/")])
def test_a_scope_that_has_the_prefix_already_is_refused_at_the_start(prefixes: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="scopes are written as in tokens"):
        asking(*prefixes, scopes=("mongodb:read", "api://a/mongodb:write"))
    assert asking("", scopes=("api://a/mongodb:write",)).scopes, "without a prefix it is a name like any other"
