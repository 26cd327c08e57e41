"""One deployment for all attacks, and a caller that sends exactly what it is told to."""

import asyncio

import pytest

from sidecar.demo import database as demo_database
from tests.attacks.attacker import Attacker
from tests.integration.deployment import deployed


@pytest.fixture(scope="package")
def deployment(tmp_path_factory, database):
    with deployed(tmp_path_factory.mktemp("attacked"), database) as running:
        yield running


@pytest.fixture
def attacker(deployment):
    """Fresh documents, and everything still answering afterwards."""
    asyncio.run(demo_database.seed(deployment.uri))
    yield Attacker(deployment)
    assert deployment.ready(), "an attack left the product unready"
