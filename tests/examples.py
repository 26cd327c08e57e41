"""How many examples the property tests try.

Profiles, chosen by ``HYPOTHESIS_PROFILE``: ``fast`` for every change, ``deep`` for ``make nightly``, and ``glance``,
with which a run of ``make nightly`` shows in minutes that its every step works.
"""

import os
from typing import Final

from hypothesis import HealthCheck, settings

_EXAMPLES: Final = {"fast": 50, "deep": 20_000, "glance": 3}
PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "fast")  # noqa: TID251 - the tests' own switch


def load_profile() -> None:
    """Let every property have the profile's number of examples.

    Deadlines measure the machine, not the code; on two busy cores they only make noise.
    """
    lenient = {"fast": [HealthCheck.too_slow]}
    for name, number in _EXAMPLES.items():
        settings.register_profile(
            name, max_examples=number, deadline=None, suppress_health_check=lenient.get(name, list(HealthCheck))
        )
    settings.load_profile(PROFILE)


def examples(number: int = _EXAMPLES["fast"], *, deep: int = _EXAMPLES["deep"]) -> int:
    """Return the examples of a property that needs another number than most.

    Args:
        number: in the profile ``fast``.
        deep: in the profile ``deep``; fewer where each example starts a program.
    """
    return {"fast": number, "deep": deep}.get(PROFILE, _EXAMPLES[PROFILE])
