"""A real authorization server and a sidecar that trusts it: each module starts its own pair, the fixture ``both``."""

import pytest

from sidecar.demo import database as demo_database
from tests.authorization_server import AuthorizationServer
from tests.integration.deployment import Deployment


@pytest.fixture
def server(both: tuple[AuthorizationServer, Deployment]) -> AuthorizationServer:
    return both[0]


@pytest.fixture
def deployment(both: tuple[AuthorizationServer, Deployment]) -> Deployment:
    return both[1]


@pytest.fixture(autouse=True)
async def samples(deployment: Deployment) -> None:
    """The demo's documents, fresh."""
    await demo_database.seed(deployment.uri)
