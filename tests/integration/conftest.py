"""One deployment per module of tests; it takes a few seconds to come up."""

import pytest

from sidecar.demo import database as demo_database
from tests.integration.deployment import deployed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("deployment")


@pytest.fixture(scope="module")
def deployment(folder, database):
    with deployed(folder, database) as running:
        yield running


@pytest.fixture
async def samples(deployment):
    """The demo's documents, fresh."""
    await demo_database.seed(deployment.uri)
    return demo_database.SAMPLES
