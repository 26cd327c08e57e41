"""The question whether a person may approve: of its schema, and answered in two ways only."""

from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the locked tools
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import Identity, RequestContext
from sidecar.policy import approver_document, read_approver
from tests.parts import ROOT
from tests.policy.test_question_documents import accesses, contexts, identities, names

QUESTION = jsonschema.Draft202012Validator(msgspec.json.decode((ROOT / "policies/schema/approving.json").read_bytes()))
ANSWER = jsonschema.Draft202012Validator(
    msgspec.json.decode((ROOT / "policies/schema/approving_answer.json").read_bytes())
)
YES: dict[str, Any] = {"v": 1, "may": True, "revision": "r1"}


@given(identities, contexts, names, st.tuples(names, names, names), st.lists(accesses, min_size=1, max_size=4))
def test_every_question_is_of_the_schema(
    approver: Identity, context: RequestContext, server: str, requester: tuple[str, str, str], touched: list[Any]
) -> None:
    documents = [access.document() for access in touched]
    document = approver_document(approver, context, server=server, requester=requester, accesses=documents)
    QUESTION.validate(document)
    assert "tool" not in document["action"], "whoever approves is asked about, not what is called"  # type: ignore[operator]


def test_an_answer_is_yes_or_no_with_the_policy_set_that_says_so() -> None:
    ANSWER.validate(YES)
    assert read_approver(YES) == (True, "r1")
    assert read_approver({**YES, "may": False}) == (False, "r1")
    assert read_approver({**YES, "revision": ""}, revision="of the engine") == (True, "of the engine")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        [YES],
        {},
        {**YES, "more": 1},
        {key: value for key, value in YES.items() if key != "may"},
        {**YES, "v": 2},
        {**YES, "v": True},
        {**YES, "v": 1.0},
        {**YES, "may": 1},
        {**YES, "may": "true"},
        {**YES, "may": None},
        {**YES, "revision": None},
    ],
    ids=repr,
)
def test_every_other_answer_is_none(answer: Any) -> None:
    with pytest.raises(DecisionUnavailable):
        read_approver(answer)
