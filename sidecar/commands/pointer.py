"""JSON pointers (RFC 6901) into the ``tools/call`` params: where an access came from, where a refusal happened."""

from typing import Final

MAX_SEGMENT: Final = 128
"""Characters of one key that a pointer repeats. Longer keys are cut, so that a refusal cannot echo a megabyte."""


def below(at: str, key: str | int) -> str:
    """Return the pointer one step below ``at`` (RFC 6901 section 3: ``~`` is ``~0``, ``/`` is ``~1``)."""
    if isinstance(key, int):
        return f"{at}/{key}"
    if len(key) > MAX_SEGMENT:
        key = key[:MAX_SEGMENT] + "…"
    if "~" in key or "/" in key:
        key = key.replace("~", "~0").replace("/", "~1")
    return f"{at}/{key}"
