"""Where in its modules a policy set says a grant or a reason: file and line, read from the text of the rules' heads.

Nothing is evaluated, so this answers for any set whose files are there, also one that serves no more. A head that makes
up its id while it is evaluated could be any grant's: where no head has the id that is looked for, all of these are
named.
"""

import json
import re
from collections.abc import Iterator
from typing import Final

from sidecar.policyset.folder import TEAMS, PolicySet

_HEAD: Final = re.compile(r"^(grant|deny|reasons)[ \t]+contains[ \t]+", re.MULTILINE)
_BEHIND_HEAD: Final = re.compile(r"\bif[ \t\n{]|\n\n|\Z")
_LITERAL_ID: Final = re.compile(r'"id":\s*"')
_LONGEST_HEAD: Final = 4_096
"""Characters."""

TEAM_DENIED: Final = "team_denied"
"""The platform's reason where a team's own rule denies."""


def places_of_grant(policies: PolicySet, owner: str, grant: str) -> tuple[str, ...]:
    """Return ``FILE:LINE`` of each rule that can give the grant; empty where there is none."""
    heads = [(place, head) for place, rule, head in _heads(policies, f"{TEAMS}{owner}/") if rule == "grant"]
    named = re.compile(rf'"id":\s*{re.escape(json.dumps(grant, ensure_ascii=False))}')
    found = tuple(place for place, head in heads if named.search(head))
    return found or tuple(place for place, head in heads if not _LITERAL_ID.search(head))


def places_of_reason(policies: PolicySet, code: str, source: str) -> tuple[str, ...]:
    """Return ``FILE:LINE`` of each rule that can give the reason: the platform's, and a team's own that deny."""
    said = re.compile(rf'"code":\s*{re.escape(json.dumps(code, ensure_ascii=False))}')
    platform = [place for place, rule, head in _heads(policies, "platform/") if rule == "reasons" and said.search(head)]
    if code != TEAM_DENIED:
        return tuple(platform)
    own = [place for place, rule, _ in _heads(policies, f"{TEAMS}{source}/") if rule == "deny"]
    return (*own, *platform)


def _heads(policies: PolicySet, folder: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and head of each rule below a folder."""
    for path, content in policies.files:
        if not (path.startswith(folder) and path.endswith(".rego")):
            continue
        text = content.decode("utf-8", "replace")
        for rule in _HEAD.finditer(text):
            head = text[rule.end() : rule.end() + _LONGEST_HEAD]
            end = _BEHIND_HEAD.search(head)
            line = text.count("\n", 0, rule.start()) + 1
            yield f"{path}:{line}", rule[1], head[: end.start()] if end is not None else head
