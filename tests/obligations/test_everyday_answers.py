"""What row filters make of the everyday queries: few are refused, the others answer as on the permitted rows alone."""

from collections import Counter
from typing import Any

import pytest

from sidecar.model import ToolCall
from tests.obligations import filtered, oracle
from tests.obligations.everyday_queries import policies, queries

pytestmark = pytest.mark.real

MOST_REFUSED = 0.05


def call_of(query) -> ToolCall:
    return ToolCall(name=query.tool, arguments=query.arguments)


def sent(query) -> ToolCall | None:
    return oracle.rewritten(call_of(query), policies()[query.arguments["database"]]["filter"])


@pytest.fixture(scope="module")
def outcomes(database):
    """By query and choice of hidden rows: what is sent gives, and what the query gives on the permitted rows."""
    found: dict[str, list[Any]] = {query.id: [] for query in queries()}
    with filtered.connect(database) as client:
        for which in range(len(filtered.HIDDEN)):
            filtered.store_samples(client, which)
            for query in queries():
                name = str(query.arguments["database"])
                if (rewritten := sent(query)) is not None:
                    found[query.id].append(oracle.perform(client, name, rewritten))
                    found[query.id].append(oracle.perform(client, filtered.PERMITTED + name, call_of(query)))
    return found


def test_few_are_refused(record_property) -> None:
    refused = [query.id for query in queries() if sent(query) is None]
    record_property("oracle", {"everyday queries": len(queries()), "everyday queries refused": len(refused)})
    assert len(refused) <= MOST_REFUSED * len(queries()), refused


def test_most_have_something_to_answer_and_something_to_hide(outcomes) -> None:
    ends = Counter(bool(found[0].documents) for found in outcomes.values() if found)
    assert ends[True] >= 0.6 * ends.total()
    changed = [query.id for query in queries() if (one := sent(query)) is not None and one != call_of(query)]
    assert len(changed) >= 150


def test_each_answers_what_the_permitted_rows_alone_give(outcomes) -> None:
    assert {name: found for name, found in outcomes.items() if found and found[0] != found[1]} == {}


def test_no_answer_depends_on_what_is_hidden(outcomes) -> None:
    assert {name: found for name, found in outcomes.items() if found and found[0] != found[2]} == {}
