"""The official suite finds the sidecar no worse than the server behind it, but for what is documented."""

from pathlib import Path

import pytest

from tests.conformance.run import REQUIREMENTS, Row, compare, table

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return compare(Path(tmp_path_factory.mktemp("conformance")))


def test_the_sidecar_is_worse_nowhere_but_where_a_difference_is_documented(rows: list[Row]) -> None:
    worse = [row for row in rows if row.worse and not row.reason]
    assert worse == [], "\n".join(table(rows))


def test_the_fixture_passes_what_is_scored(rows: list[Row]) -> None:
    for requirements, scored in zip(REQUIREMENTS, (30, 37), strict=True):
        assert sum(row.direct.ok for row in rows if row.requirements == requirements) >= scored
