"""Which answers of a client confirm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.enforcement.confirmation import confirming
from sidecar.errors import NotConfirmed
from tests.enforcement.test_confirmations import QUESTION


@given(st.dictionaries(st.sampled_from(["action", "content", "x"]), st.text() | st.dictionaries(st.text(), st.text())))
def test_an_answer_confirms_only_in_the_form_that_was_asked_for(answer):
    content = answer.get("content")
    fits = answer.get("action") == "accept" and isinstance(content, dict) and content.keys() <= {"confirmation"}
    if fits:
        assert confirming(answer, QUESTION) == {"action": "accept", "content": content}
    else:
        with pytest.raises(NotConfirmed):
            confirming(answer, QUESTION)
