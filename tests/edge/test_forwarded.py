"""Who called, behind proxies: the operator's proxies are believed, clients are not."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from sidecar.edge.forwarded import ForwardedHeader, TrustedProxies

NETWORKS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
PROXY, CLIENT, OTHER = "10.0.0.1", "192.0.2.7", "203.0.113.9"
BEHIND = TrustedProxies(networks=NETWORKS)
STANDARD = TrustedProxies(networks=NETWORKS, header=ForwardedHeader.FORWARDED)


def x(*lines: str) -> "CIMultiDict[str]":
    return CIMultiDict([("X-Forwarded-For", line) for line in lines])


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        (PROXY, [CLIENT], CLIENT),
        (PROXY, [f"{OTHER}, {CLIENT}"], CLIENT),
        (PROXY, [f"{CLIENT}, 10.0.0.2"], CLIENT),
        (PROXY, [OTHER, CLIENT], CLIENT),
        (PROXY, [f"{CLIENT}:5123"], CLIENT),
        (PROXY, ["[2001:db8::1]:5123"], "2001:db8::1"),
        (PROXY, ["2001:DB8::1"], "2001:db8::1"),
        (PROXY, [f"::ffff:{CLIENT}"], CLIENT),
        (f"::ffff:{PROXY}", [CLIENT], CLIENT),
        ("fd00::1", [CLIENT], CLIENT),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (PROXY, [f"{CLIENT}, unknown"], PROXY),
        (PROXY, [f"{CLIENT}, 10.0.0.2, x"], PROXY),
        (PROXY, [f"{CLIENT}, "], PROXY),
        (PROXY, ["1.2.3"], PROXY),
        (PROXY, ["fe80::1%eth0"], PROXY),
        (CLIENT, [OTHER], CLIENT),
        ("", [CLIENT], ""),
        ("11.0.0.1", [CLIENT], "11.0.0.1"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_has_is_the_client(peer, lines, client) -> None:
    assert BEHIND.client(peer, x(*lines)) == client


@pytest.mark.parametrize(
    ("line", "client"),
    [
        (f"for={CLIENT}", CLIENT),
        (f"For={CLIENT};proto=https", CLIENT),
        (f'proto=https;for="{CLIENT}:80"', CLIENT),
        ('for="[2001:db8::1]:80"', "2001:db8::1"),
        (f"for={OTHER}, for={CLIENT}", CLIENT),
        ("for=_hidden", PROXY),
        ("for=unknown", PROXY),
        (f"by={CLIENT}", PROXY),
        (f"xfor={CLIENT}", PROXY),
        (f'host="for={CLIENT}"', PROXY),
    ],
)
def test_the_standard_header_is_read_by_its_own_rules(line, client) -> None:
    assert STANDARD.client(PROXY, CIMultiDict(Forwarded=line)) == client


def test_only_the_header_that_the_proxies_write_is_read() -> None:
    both = CIMultiDict([("X-Forwarded-For", CLIENT), ("Forwarded", f"for={OTHER}")])
    assert BEHIND.client(PROXY, both) == CLIENT
    assert STANDARD.client(PROXY, both) == OTHER


def test_nobody_is_believed_by_default() -> None:
    assert TrustedProxies().client(PROXY, x(CLIENT)) == PROXY
    assert TrustedProxies().client("", x(CLIENT)) == ""
    assert TrustedProxies(local=True).client("", x(CLIENT)) == CLIENT


@given(st.lists(st.text("0123456789abcdef.:[], \"'=;forunkw_%", max_size=40), max_size=4), st.text(max_size=20))
def test_what_a_client_sends_never_puts_words_into_a_proxys_mouth(lines: list[str], peer: str) -> None:
    """The proxy adds the address that it was called from, so whatever stands before it changes nothing."""
    assert BEHIND.client(PROXY, x(*lines, CLIENT)) == CLIENT
    assert BEHIND.client(CLIENT, x(*lines)) == CLIENT
    BEHIND.client(peer, x(*lines))
