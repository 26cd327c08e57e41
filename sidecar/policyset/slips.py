"""Whether two names differ as a name and its misspelling do.

Names of groups and agents are an issuer's, so no table has them all, and one that only a single place has may be meant.
It is told where another place has nearly that name. ``team-a`` and ``team-b``, ``shop1`` and ``shop2``, ``reader`` and
``leader`` are different names: a digit, a word of few letters, or the beginning of a word makes the difference.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_WORDS: Final = re.compile(r"[^\W_]+")
_SHORTEST: Final = 3
"""Letters of a word in which a slip can be told."""
_MOST_LETTERS: Final = 2
"""By which a name and its misspelling differ in length: one in each of two words."""
_MOST_PAIRS: Final = 50_000
"""That are compared in one look, which takes about 0.1 s."""


class Slips:
    """Finds, of known names, the one that another is a slip of.

    Args:
        known: the names.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known: dict[str, list[str]] = defaultdict(list)
        for name in sorted(set(known)):
            self._known[_first(name)].append(name)
        self._left = _MOST_PAIRS

    def meant(self, name: str) -> str:
        """Return the known name that this is a slip of; empty for none, and for a name that is known."""
        near = [one for one in self._known.get(_first(name), ()) if abs(len(one) - len(name)) <= _MOST_LETTERS]
        self._left -= len(near)
        if name in near or self._left < 0:
            return ""
        slips = [one for one in near if is_slip(name, one)]
        return next(iter(get_close_matches(name, slips, n=1, cutoff=0.0)), "")


def is_slip(name: str, other: str) -> bool:
    """Whether one name is probably the other, misspelt."""
    mine, theirs = (_WORDS.findall(one) for one in (name, other))
    if name != other and "".join(mine).casefold() == "".join(theirs).casefold():
        return True  # another case, or other signs between the words
    if len(mine) != len(theirs) or mine == theirs:
        return False
    return all(one == two or _is_misspelt(one, two) for one, two in zip(mine, theirs, strict=True))


def _is_misspelt(word: str, other: str) -> bool:
    """Whether two words differ by one letter more, one letter else, or two neighbours in the other order."""
    short, long = sorted((word.casefold(), other.casefold()), key=len)
    if short == long:
        return True
    begins = next((n for n, pair in enumerate(zip(short, long, strict=False)) if pair[0] != pair[1]), len(short))
    ends = begins + (len(long) - len(short))
    if len(short) < _SHORTEST or begins == 0 or len(long) - len(short) > 1:
        return False
    if len(short) < len(long):
        return long[begins].isalpha() and short[begins:] == long[ends:]
    swapped = short[begins + 1 : begins + 2] + short[begins] + short[begins + 2 :]
    if short[begins:].isalpha() and swapped == long[begins:]:
        return True
    both = short[begins] + long[begins]
    return both.isalpha() and len(short) > _SHORTEST and short[begins + 1 :] == long[begins + 1 :]


def _first(name: str) -> str:
    return next(iter(_WORDS.findall(name)), "")[:1].casefold()
