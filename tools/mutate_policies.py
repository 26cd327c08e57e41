"""Asks of every rule in policies/ whether some test would notice if it were another: mutation testing of Rego.

``python tools/mutate_policies.py`` takes every module of the platform and of the teams; named modules
(``teams/support/policy.rego``) only those. A mutant is the whole set with one change:

- *removed*: one condition is taken out. Some test has to fail: the near miss, where all else holds and this does not.
- *never*: one rule holds no more. Some test has to fail: the one in which it holds.

A mutant is killed by a test of its own folder or, where those all pass, by any test or golden case. One that no test
kills survives. What OPA refuses to compile (a variable that nothing binds) is no mutant. Those that mean the same as
what is written, or that have to survive for another reason, stand with that reason in ``accepted_mutants.json``.

The exit status is 1 where a mutant survives that is not accepted, or where an accepted one is there no more.
"""

import argparse
import base64
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent
POLICIES: Final = ROOT / "policies"
ACCEPTED: Final = Path(__file__).with_name("accepted_mutants.json")

LIMIT_S: Final = 120.0
_FAILED: Final = 2
"""``opa test``: a test failed. 1 is a set that does not compile."""


_NAME_LENGTH: Final = 120


class Change(StrEnum):
    """What was done to a module."""

    REMOVED = "removed"
    NEVER = "never"


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one module."""

    module: str
    """Its path inside the policy folder."""
    line: int
    rule: str
    change: Change
    text: str
    """The condition that is taken out, or the head of the rule that never holds; in one line."""
    source: bytes
    """The whole module after the change."""

    @property
    def name(self) -> str:
        """What it is, without its line, which moves."""
        return f"{self.module}: {self.rule}: {self.change}: {self.text}"


class MutationError(Exception):
    """The set cannot be mutated: it does not parse, or its tests fail as it stands."""


def mutants(policies: Path, module: str) -> Iterator[Mutant]:
    """Read a module with OPA's parser and make its mutants, in the order of the file.

    Raises:
        MutationError: it does not parse.
    """
    source = (policies / module).read_bytes()
    done = _opa(policies, "parse", "--format=json", "--json-include=locations", module)
    if done.returncode != 0:
        raise MutationError(done.stderr)
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: Counter[str] = Counter()
    for rule in _rules(msgspec.json.decode(done.stdout).get("rules", [])):
        # Several rules have one name; what each adds or returns, and else its number, tells them apart.
        name = " ".join(_text(rule["head"]).decode().split())[:_NAME_LENGTH]
        seen[name] += 1
        yield from _of_rule(module, source, starts, rule, name if seen[name] == 1 else f"{name} ({seen[name]})")


def _rules(rules: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rules with a body or a value of their own; each ``else`` is one more."""
    for rule in rules:
        if rule.get("default"):
            continue
        yield rule
        if "else" in rule:
            _place_only_condition(rule["else"])
            yield from _rules([rule["else"]])


def _place_only_condition(branch: dict[str, Any]) -> None:
    """Correct a place: of the only condition of an ``else``, OPA 1.22.2 says the place of the whole branch."""
    head, (first, *_) = _text(branch["head"]), branch["body"]
    found = re.match(re.escape(head) + rb"\s+if\s+", _text(first))
    if found and not first.get("generated"):
        skipped, place = found.group(), first["location"]
        place["text"] = base64.b64encode(_text(first)[len(skipped) :]).decode()
        place["row"] += skipped.count(b"\n")
        place["col"] = len(skipped) - skipped.rfind(b"\n") + (0 if b"\n" in skipped else place["col"] - 1)


def _of_rule(module: str, source: bytes, starts: list[int], rule: dict[str, Any], name: str) -> Iterator[Mutant]:
    def mutant(node: dict[str, Any], change: Change, place: tuple[int, int], instead: bytes) -> Mutant:
        begin, end = place
        changed = source[:begin] + instead + source[end:]
        text = " ".join(_text(node).decode().split())
        line = node["location"]["row"]
        return Mutant(module=module, line=line, rule=name, change=change, text=text, source=changed)

    yield mutant(rule["head"], Change.NEVER, *_never(source, starts, rule))
    for condition in _conditions(rule):
        yield mutant(condition, Change.REMOVED, _span(source, starts, condition), b"true")


def _never(source: bytes, starts: list[int], rule: dict[str, Any]) -> tuple[tuple[int, int], bytes]:
    """Where to write what so that the rule never holds, and stays a rule whose variables are bound."""
    first = rule["body"][0]
    if first.get("generated"):
        _, end = _span(source, starts, rule["head"])
        return (end, end), b" if false"
    begin, end = _span(source, starts, first)
    if source[:begin].rstrip().endswith(b"{"):
        return (begin, begin), b"false; "
    return (begin, end), b"{ false; " + source[begin:end] + b" }"


def _conditions(node: Any) -> Iterator[dict[str, Any]]:
    """Every expression of every body: the rule's own, and those of comprehensions and ``every`` inside."""
    if isinstance(node, list):
        for member in node:
            yield from _conditions(member)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "body":
                yield from (one for one in value if not one.get("generated"))
            if key != "else":
                yield from _conditions(value)


def _text(node: dict[str, Any]) -> bytes:
    return base64.b64decode(node["location"]["text"])


def _span(source: bytes, starts: list[int], node: dict[str, Any]) -> tuple[int, int]:
    begin = starts[node["location"]["row"] - 1] + node["location"]["col"] - 1
    end = begin + len(_text(node))
    if source[begin:end] != _text(node):
        raise MutationError(f"{node['location']['file']}:{node['location']['row']}: OPA's text is not that of the file")
    return begin, end


class Bench:
    """Copies of a policy folder, one for each worker, in which mutants are tried.

    Raises:
        MutationError: the tests of the folder fail as it stands.
    """

    def __init__(self, policies: Path, scratch: Path, workers: int) -> None:
        self._copies: queue.Queue[Path] = queue.Queue()
        for number in range(workers):
            self._copies.put(Path(shutil.copytree(policies, scratch / str(number))))
        teams = sorted(f"teams/{team.name}" for team in (policies / "teams").iterdir() if team.is_dir())
        self._everything = ["platform", *teams, "mcp.cases:cases"]
        rules = sorted((policies / "platform").rglob("*.rego"))
        self._rules = [path.relative_to(policies).as_posix() for path in rules if not _is_test(path)]
        done = _test(policies, self._everything)
        if done.returncode != 0:
            raise MutationError(f"the tests fail as the folder stands:\n{done.stdout}{done.stderr}")

    def fate(self, mutant: Mutant) -> Fate:
        """Try one mutant: the tests beside it first, then all."""
        copy = self._copies.get()
        file = copy / mutant.module
        original = file.read_bytes()
        try:
            file.write_bytes(mutant.source)
            for selection in self._selections(copy, mutant.module):
                try:
                    status = _test(copy, selection).returncode
                except subprocess.TimeoutExpired:
                    return Fate.KILLED
                if status != 0:
                    return Fate.KILLED if status == _FAILED else Fate.INVALID
            return Fate.SURVIVED
        finally:
            file.write_bytes(original)
            self._copies.put(copy)

    def _selections(self, folder: Path, module: str) -> Iterator[list[str]]:
        """What is tested, the least first: the tests of the same team or of the module of the same name, then all."""
        path = Path(module)
        rules = [*self._rules, "platform/data.json"]
        beside = path.with_name(f"{path.stem}_test.rego").as_posix()
        if module.startswith("teams/"):
            yield [*rules, path.parent.as_posix()]
        elif (folder / beside).is_file():
            yield [*rules, beside, "platform/fixture_test.rego"]
        yield self._everything


def modules(policies: Path) -> list[str]:
    """The modules whose rules decide: the platform's and the teams', without their tests."""
    found = [*(policies / "platform").rglob("*.rego"), *(policies / "teams").rglob("*.rego")]
    return sorted(path.relative_to(policies).as_posix() for path in found if not _is_test(path))


def _is_test(path: Path) -> bool:
    return path.stem.endswith("_test")


def fates(policies: Path, chosen: Sequence[str], workers: int) -> list[tuple[Mutant, Fate]]:
    """Try every mutant of these modules.

    Args:
        policies: the policy folder; it is copied and left as it is.
        chosen: paths of modules inside of it.
        workers: how many OPA processes run at a time.

    Raises:
        MutationError: a module does not parse, or the tests of the folder fail as it stands.
    """
    found = [mutant for module in chosen for mutant in mutants(policies, module)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(workers) as pool:
        bench = Bench(policies, Path(scratch), workers)
        return list(zip(found, pool.map(bench.fate, found), strict=True))


def accepted() -> dict[str, str]:
    """The names of mutants that may survive, each with the reason."""
    reasons: dict[str, str] = msgspec.json.decode(ACCEPTED.read_bytes())
    return reasons


def complaints(tried: Iterable[tuple[Mutant, Fate]], chosen: Sequence[str], reasons: dict[str, str]) -> list[str]:
    """What is wrong: survivors that are not accepted, and accepted ones of these modules that did not survive."""
    survivors = {mutant.name: mutant for mutant, fate in tried if fate is Fate.SURVIVED}
    wrong = [
        f"{mutant.module}:{mutant.line}: no test notices: {mutant.change} in {mutant.rule}: {mutant.text}"
        for name, mutant in survivors.items()
        if name not in reasons
    ]
    stale = [name for name in reasons if name.partition(": ")[0] in chosen and name not in survivors]
    return wrong + [f"accepted, but does not survive (any more): {name}" for name in stale]


def _test(folder: Path, selection: Iterable[str]) -> subprocess.CompletedProcess[str]:
    # OPA's own limit is 5 s a test, which on a busy machine would pass for a test that notices.
    return _opa(folder, "test", "--capabilities=capabilities.json", f"--timeout={LIMIT_S:.0f}s", *selection)


def _opa(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["opa", *arguments], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def main() -> int:
    """Try the mutants that the command line asks for, and say which survive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", help="paths inside policies/; all where none is named")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="OPA processes at a time")
    options = parser.parse_args()
    chosen = options.modules or modules(POLICIES)
    try:
        tried = fates(POLICIES, chosen, options.workers)
    except MutationError as error:
        print(error, file=sys.stderr)
        return 2
    wrong = complaints(tried, chosen, accepted())
    for line in wrong:
        print(line)
    counts = {fate: sum(found is fate for _, found in tried) for fate in Fate}
    print(", ".join(f"{count} {fate}" for fate, count in counts.items()))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
