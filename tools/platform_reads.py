"""Writes sidecar/policyset/known_platform.py: what the platform's rules, as they are here, use of a question.

    python tools/platform_reads.py [--check]

Run it after a change of a rule of the platform. Left out of what the text of the rules reads is

- what ``input_check`` reads: it says whether a question is well-formed and nothing else, and the sidecar says the same
  by itself (``sidecar/policy/well_formed.py``);
- what ``verdicts.question`` and ``views.asked`` read: they hand parts on, as the input of other rules, and what those
  read counts;
- the time where only closed hours are compared with it: ``question_reads`` adds it where the platform's data has any.

That this is right is not believed: tests/policyset/test_question_reads.py changes every part that is not listed in
questions to a real OPA.
"""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sidecar.policyset.folder import PolicySet  # noqa: E402
from sidecar.policyset.question_reads import TIME, digest_of_rules  # noqa: E402
from sidecar.policyset.read_list import ReadList, RuleReads  # noqa: E402
from sidecar.policyset.syntax_tree import RegoPath  # noqa: E402
from sidecar.policyset.workshop import workshop  # noqa: E402
from tools.generated_page import write_or_check  # noqa: E402

TARGET: Final = ROOT / "sidecar" / "policyset" / "known_platform.py"
DECISION: Final[RegoPath] = ("mcp", "main", "decision")
FORM: Final[RegoPath] = ("mcp", "platform", "input_check")
PASSING: Final[frozenset[RegoPath]] = frozenset(
    {("mcp", "platform", "verdicts", "question"), ("mcp", "platform", "views", "asked")}
)
HOURS: Final[frozenset[RegoPath]] = frozenset(
    {("mcp", "platform", "guardrails", "reasons"), ("mcp", "platform", "guardrails", "glass_broken")}
)
LIBRARY: Final[RegoPath] = ("mcp", "lib")

HEADER = '''"""What the platform's rules of this build use of a question; written by tools/platform_reads.py."""

from collections.abc import Mapping
from typing import Final

from sidecar.policyset.syntax_tree import RegoPath

RULES: Final = "{digest}"
"""The served modules of the platform, by ``question_reads.digest_of_rules``."""

READS: Final[frozenset[RegoPath]] = frozenset({reads})

LIBRARY: Final[Mapping[str, frozenset[RegoPath]]] = {{
{library}}}
"""What each rule and function of the library reads."""
'''


def main() -> int:
    """Write the module, or only compare it."""
    return write_or_check(TARGET, render, described=__doc__, script="tools/platform_reads.py")


def render() -> str:
    """Return the module's whole text."""
    policies = PolicySet.read(ROOT / "policies")
    rules = ReadList(rules=tuple(map(_used, asyncio.run(_rules(policies)))))
    names = sorted({rule.path[2] for rule in rules.rules if rule.package == LIBRARY and len(rule.path) > len(LIBRARY)})
    library = "".join(f"    {name!r}: frozenset({_set(rules.of((*LIBRARY, name)))}),\n" for name in names)
    text = HEADER.format(digest=digest_of_rules(policies), reads=_set(rules.of(DECISION)), library=library)
    command = [sys.executable, "-m", "ruff", "format", "--quiet", "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


async def _rules(policies: PolicySet) -> list[RuleReads]:
    """What each rule of the platform reads; the teams' need not be ready for it."""
    files = tuple((path, content) for path, content in policies.files if path.startswith("platform/"))
    async with workshop("opa") as checker:
        return list((await checker.reads(replace(policies, files=files))).rules)


def _used(rule: RuleReads) -> RuleReads:
    if rule.package == FORM or rule.path in PASSING:
        return replace(rule, reads=frozenset())
    if rule.path in HOURS:
        return replace(rule, reads=rule.reads - {TIME})
    return rule


def _set(paths: frozenset[RegoPath]) -> str:
    return f"{{{', '.join(map(repr, sorted(paths)))}}}" if paths else ""


if __name__ == "__main__":
    sys.exit(main())
