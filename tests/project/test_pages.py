"""Pages that people read: lines fit an editor, links lead somewhere, and the English is plain."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.parts import ROOT

WIDTH = 125
"""Characters in a line of prose. Tables and what stands in fences may be longer."""

TICS = {
    r"\b(?:is|are|was|were|be) said\b": "name who reports it, and where",
    r"\b(?:who|what)(?:so)?ever\b": "name the person or the thing",
    r"\bsomebody\b": "name the role: the operator, a team, another caller",
    r"\banew\b": "again",
    r"\bof (?:yours|ours|theirs)\b": "your, the sidecar's, the team's",
}
"""Turns of phrase that make a stranger read a sentence twice, each with what to write in its place."""


def pages() -> dict[str, str]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names}


PAGES = pages()


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines outside of fences, with their numbers."""
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def too_long(text: str) -> list[int]:
    return [number for number, line in prose(text) if len(line) > WIDTH and not line.lstrip().startswith("|")]


def tics(text: str) -> list[str]:
    plain = "\n".join(line for _, line in prose(text))
    return [
        f"{found.group()!r}: {instead}"
        for tic, instead in TICS.items()
        for found in re.finditer(tic, plain, re.IGNORECASE)
    ]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as repository hosts make them."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in prose(text):
        if heading := re.match(r"#{1,6} (.+)", line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).strip().lower()
            anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found


def dead_links(name: str, text: str) -> Iterator[str]:
    plain = "\n".join(line for _, line in prose(text))
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", plain)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8") if path else text)):
            yield target


def test_there_are_pages() -> None:
    assert {"README.md", "docs/deploy.md", "docs/adr/README.md", "policies/README.md"} <= set(PAGES)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_line_of_prose_is_too_long(name: str) -> None:
    assert too_long(PAGES[name]) == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_no_tic_is_left(name: str) -> None:
    assert tics(PAGES[name]) == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_relative_links_and_their_anchors_resolve(name: str) -> None:
    assert list(dead_links(name, PAGES[name])) == []


def test_the_index_of_decisions_lists_each_with_its_title_date_and_status() -> None:
    index = PAGES["docs/adr/README.md"]
    decisions = sorted(name for name in PAGES if re.fullmatch(r"docs/adr/(?!0000)\d{4}-.*\.md", name))
    assert decisions
    for name in decisions:
        title = re.search(r"^# (\d+)\. (.+)$", PAGES[name], re.MULTILINE)
        date = re.search(r"^Date: (\d{4}-\d{2}-\d{2})$", PAGES[name], re.MULTILINE)
        status = re.search(r"^Status: (accepted|proposed|superseded)", PAGES[name], re.MULTILINE)
        assert title, name
        assert date, name
        assert status, name
        row = f"| [{title[1]}]({name.rpartition('/')[2]}) | {title[2]} | {date[1]} | {status[1]}"
        assert row in index, name
    numbers = {int(name.rpartition("/")[2][:4]) for name in decisions}
    missing = set(range(1, max(numbers) + 1)) - numbers
    assert all(re.search(rf"^\| {number} \| \*unused\*", index, re.MULTILINE) for number in missing)


def test_each_rule_finds_its_kind() -> None:
    assert too_long("a" * (WIDTH + 1)) == [1]
    assert [
        tic.partition(":")[0] for tic in tics("It is said by whoever runs\nan OPA of yours, anew, as somebody did.")
    ] == [
        "'is said'",
        "'whoever'",
        "'somebody'",
        "'anew'",
        "'of yours'",
    ]
    broken = "# One\n[a](nothing.md) [b](#two) [c](README.md#no-such-heading) [d](#one)\n"
    assert list(dead_links("README.md", broken)) == ["nothing.md", "#two", "README.md#no-such-heading"]


def test_the_near_miss_of_each_rule_is_fine() -> None:
    assert too_long("\n".join(["a" * WIDTH, "| " + "a" * WIDTH, "```", "a" * (WIDTH + 1), "```"])) == []
    assert tics("He said it; who ever did; some body; a renewal; of your own; `x`\n```\nwhoever\n```") == []
    assert (
        list(dead_links("docs/deploy.md", "# One\n[a](traces.md) [b](#one) [c](https://example.com/#x) `[d](e)`\n"))
        == []
    )
