"""The admin listener, on a real socket."""

from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
from multidict import CIMultiDict

from sidecar.edge.admin import AdminNames, build_admin_application
from sidecar.edge.server import serve
from sidecar.errors import OriginRefused


class Checks:
    """Readiness that a test can change."""

    def __init__(self) -> None:
        self.now: dict[str, bool] = {}

    async def __call__(self) -> Mapping[str, bool]:
        return self.now


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
async def client(checks: Checks) -> AsyncIterator[aiohttp.ClientSession]:
    application = build_admin_application(checks, lambda: (b"up 1\n", "text/plain; version=0.0.4; charset=utf-8"))
    runner = await serve(application, ("127.0.0.1", 0))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        yield session
    await runner.cleanup()


@pytest.mark.parametrize(
    ("now", "status", "failing"),
    [
        ({"opa": True, "upstream": True}, 200, []),
        ({"opa": True, "upstream": False, "keys": False}, 503, ["keys", "upstream"]),
        ({"opa": False}, 503, ["opa"]),
        ({}, 503, []),
    ],
)
async def test_it_is_ready_only_when_every_check_holds_and_there_is_one(
    client: aiohttp.ClientSession, checks: Checks, now: dict[str, bool], status: int, failing: list[str]
) -> None:
    checks.now = now
    async with client.get("/readyz") as response:
        assert response.status == status
        assert await response.json() == {"ready": status == 200, "failing": failing}


async def test_it_is_alive_whether_or_not_it_is_ready(client: aiohttp.ClientSession) -> None:
    async with client.get("/livez") as response:
        assert response.status == 200
        assert response.headers["Server"] == "mcp-sidecar"


async def test_metrics_keep_their_media_type(client: aiohttp.ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await response.read() == b"up 1\n"


@pytest.mark.parametrize("path", ["/", "/mcp", "/readyz/", "/metrics/../mcp"])
async def test_it_serves_nothing_else(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert response.status == 404
    async with client.post("/metrics") as response:
        assert response.status == 405


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8081"}, 200),
        ({"Host": "[::1]:8081"}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8081"}, 421),
        ({"Host": "10.1.2.3:8081"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nowhere"])
async def test_a_page_that_was_rebound_reads_nothing(
    client: aiohttp.ClientSession, checks: Checks, path: str, headers: dict[str, str], status: int
) -> None:
    checks.now = {"opa": True}
    async with client.get(path, headers=headers) as response:
        assert response.status == (404 if status == 200 and path == "/nowhere" else status)
        assert response.headers["Server"] == "mcp-sidecar"
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize(
    ("host", "served"),
    [("10.1.2.3:8081", True), ("[2001:db8::1]:8081", True), ("probe.example:1", True), ("evil.example", False)],
)
def test_an_admin_listener_on_the_network_is_dialled_by_address_or_by_a_name_of_the_settings(
    host: str, served: bool
) -> None:
    names = AdminNames.of("0.0.0.0", ["probe.example"])  # noqa: S104 - never bound
    try:
        names.check(CIMultiDict(Host=host))
    except OriginRefused:
        assert not served
    else:
        assert served
    with pytest.raises(OriginRefused):
        names.check(CIMultiDict(Host="10.1.2.3", Origin="http://localhost"))
