"""The error taxonomy is complete: whatever can be raised can be counted, and says one constant sentence."""

import re
from collections import Counter

import pytest

from sidecar import errors


def subclasses(root: type[errors.SidecarError]) -> list[type[errors.SidecarError]]:
    return [found for child in root.__subclasses__() for found in (child, *subclasses(child))]


OURS = [error for error in subclasses(errors.SidecarError) if error.__module__ == errors.__name__]
LEAVES = [error for error in OURS if not error.__subclasses__()]


def test_the_tree_has_leaves() -> None:
    assert len(LEAVES) > 20


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_that_is_raised_has_its_own_label(error: type[errors.SidecarError]) -> None:
    assert "label" in vars(error)
    assert re.fullmatch(r"[a-z][a-z_]{2,40}", error.label)


def test_no_two_errors_share_a_label() -> None:
    labels = Counter(error.label for error in OURS if "label" in vars(error))
    assert [label for label, count in labels.items() if count > 1] == []


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_has_a_public_sentence_of_its_kind(error: type[errors.SidecarError]) -> None:
    assert error.public != errors.SidecarError.public
    assert re.fullmatch(r"[A-Z][^{}%\n]+\.", error.public)


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_own_codes_stay_out_of_the_reserved_range(error: type[errors.SidecarError]) -> None:
    json_rpc = {-32700, -32600, -32601, -32602, -32603}
    assert error.code in json_rpc or error.code > 0


@pytest.mark.parametrize("error", [errors.TokenRejected, errors.DecisionUnavailable], ids=lambda error: error.__name__)
def test_the_detail_of_an_error_never_becomes_its_public_sentence(error: type[errors.SidecarError]) -> None:
    assert "canary" not in error("canary").public
