"""Loopback is told by the literal form of an address; no name is resolved."""

import pytest

from sidecar.addresses import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "0:0:0:0:0:0:0:1"])
def test_this_machine(host: str):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", "LOCALHOST.example", "localhost.", "127.0.0.1.evil.example", "128.0.0.1", "0.0.0.0", "[127.0.0.1"),  # noqa: S104 - never bound
        *("::2", "[::2]", "127.1", "127.0.0.256", "2130706433", "0x7f.0.0.1"),
    ],
)
def test_any_other_host(host: str):
    assert not is_loopback(host)
