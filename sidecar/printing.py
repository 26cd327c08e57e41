"""What others wrote, on its way to a terminal or a log: names of files, what an archive holds, OPA's words on both."""

import json
from typing import Final

_QUOTE: Final = slice(1, -1)
_MAX_LINE: Final = 400


def whole(text: str) -> str:
    """Return the text with ``?`` for each half of a surrogate pair.

    The name of a file that is not UTF-8 is read with such halves in it (``os.fsdecode``). They are no text: strict
    readers of JSON refuse the whole line, and it cannot be written as UTF-8.
    """
    return text.encode("utf-8", "replace").decode()


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return the text with each character that does not print as JSON writes it: ``\u001b``, ``\u202e``, ``\n``.

    Such a character writes over what a terminal shows, turns its order around, begins a line that looks like one of our
    own, or is not seen at all (CWE-117, CWE-150). JSON stays the JSON that it was.

    Args:
        text: anything; it becomes ``whole``.
        keep: what is left as it is, such as the line breaks of our own layout.
    """
    if text.isprintable():
        return text
    shown = (each if each.isprintable() or each in keep else json.dumps(each)[_QUOTE] for each in whole(text))
    return "".join(shown)


def printable(text: bytes, *, longest: int = _MAX_LINE) -> str:
    """Return the text as one short line that cannot forge another (CWE-117)."""
    return escaped(" ".join(text.decode("utf-8", "replace").split()))[:longest]
