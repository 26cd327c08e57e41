"""Which versions of OPA an answer is believed of, by what its provenance says.

Not older than 1.22.1: the index of rules of 1.21.0 to 1.22.0 lost rules (``input.x in {"a", input.y}`` never held, so
that a deny of that form denied nothing), and before 1.21.3 anyone who could write to a signed bundle's place could add
``xsignatures.json`` and have it read instead of ``.signatures.json`` (both from OPA's changelog). The self-test asks
for the first by itself; an old OPA has more faults, which it does not test for. Not of another major version: the
language may differ.
"""

import re
from typing import Final

FLOOR: Final = (1, 22, 1)
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})(-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?")
"""Semantic Versioning 2.0.0, section 2, 9 and 10."""


def version_fault(version: str) -> str:
    """Say why no answer of an OPA of this version is believed; an empty text where it is."""
    floor = ".".join(map(str, FLOOR))
    found = _VERSION.fullmatch(version)
    if found is None:
        return f"OPA does not say which version it is (at least {floor} is needed)"
    numbers = tuple(int(found[group]) for group in (1, 2, 3))
    if numbers < FLOOR or (numbers == FLOOR and found[4]):
        return f"OPA {version} is too old: at least {floor} is needed, since older ones lose rules and check less"
    if numbers[0] != FLOOR[0]:
        return f"OPA {version} is of another major version than {floor}, which policies are written for"
    return ""
