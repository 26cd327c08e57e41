"""Subjects of certificates as text: no certificate reads as another one's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.system import subject_of

Names = tuple[tuple[tuple[str, str], ...], ...]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (((("organizationName", "Example"),), (("commonName", "ann"),)), "organizationName=Example,commonName=ann"),
        (((("organizationName", "Example,commonName=ann"),),), "organizationName=Example\\,commonName=ann"),
        (((("organizationName", "Example"), ("commonName", "ann")),), "organizationName=Example+commonName=ann"),
        (((("commonName", "a\\"),), (("title", "b"),)), "commonName=a\\\\,title=b"),
        ((), ""),
    ],
)
def test_a_subject_is_written_in_its_own_order(names: Names, text: str) -> None:
    assert subject_of({"subject": names}) == text


def test_no_certificate_has_no_subject() -> None:
    assert subject_of({}) == ""


NAMES = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["commonName", "title"]), st.text(",+\\=ab", max_size=4)), min_size=1, max_size=2
    ),
    min_size=1,
    max_size=3,
).map(lambda groups: tuple(tuple(group) for group in groups))


@given(NAMES, NAMES)
def test_two_subjects_never_read_alike(one: Names, other: Names) -> None:
    assert (subject_of({"subject": one}) == subject_of({"subject": other})) == (one == other)
