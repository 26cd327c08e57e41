"""How long a record's receipt waits: the names of today, and the switch of before."""

import pytest

from sidecar.audit_settings import Audit


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (True, "group"),
        (False, "os"),
        ("true", "group"),
        ("0", "os"),
        ("off", "os"),
        ("group", "group"),
        ("always", "always"),
        ("os", "os"),
    ],
)
def test_the_switch_of_before_is_still_read(given, read):
    assert Audit(sync=given).sync == read


def test_what_is_not_set_does_not_wait_for_the_disk():
    assert Audit().sync == "os"
