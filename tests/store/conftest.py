"""What tests of evidence in MongoDB share."""

from pathlib import Path

import pytest

from tests.store.audit_world import AuditWorld


@pytest.fixture
def world(database: str, tmp_path: Path) -> AuditWorld:
    """A database of its own for evidence, and a folder for what waits."""
    return AuditWorld(database, tmp_path)
