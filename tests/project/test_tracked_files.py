"""What may not be in the repository: secrets, addresses of package registries, paths of somebody's machine.

The patterns are written so that they do not match themselves.
"""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.parts import ROOT

FORBIDDEN = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]{20}",
    "a signed token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
    "a cloud key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_\w{36}\b|\bglpat-[\w-]{20}",
    "a package registry's address": (
        r"registry\.npmjs\.[o]rg|registry\.yarnpkg\.[c]om|pypi\.[o]rg|pythonhosted\.[o]rg|(?:proxy|sum)\.golang\.[o]rg"
        r"|https?://[\w.-]*(?:artifactory|nexus|devpi)[\w.-]*/"
    ),
    "a path of one machine": r"/(?:roo[t]|hom[e]/\w+|User[s]/\w+|wor[k]/(?:main|shared))/",
    "a word that claims instead of showing": (
        r"(?i)\b(?:production[-]ready|battle[-]tested|world[-]class|enterprise[-]grade)\b"
    ),
    "a trace of how a text came about": (
        r"(?i)\bas an A[I] (?:language )?model\b|\bbrief\.m[d]\b|\bshared/(?:design|reference|hook)[s]?/"
    ),
}

CONNECTION_SECRET = re.compile(r"mongodb(?:\+srv)?://[^\s/:@'\"{}<>$]+:(?P<password>[^\s/@'\"{}<>$%]+)@")
"""Outside of tests, which need something to look for in what must not show it."""


def tracked() -> list[str]:
    """Files that git has, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def findings(text: str) -> Iterator[str]:
    for what, pattern in FORBIDDEN.items():
        if found := re.search(pattern, text):
            yield f"{what}: {found.group()[:40]!r}"


TEXTS = {name: (ROOT / name).read_bytes().decode(errors="replace") for name in tracked()}


def test_there_is_something_to_read() -> None:
    assert len(TEXTS) > 20


def test_no_file_holds_what_does_not_belong_there() -> None:
    assert {name: found for name, text in TEXTS.items() if (found := list(findings(text)))} == {}


def test_no_connection_string_outside_of_tests_carries_a_password() -> None:
    carriers = [
        name for name, text in TEXTS.items() if not name.startswith("tests/") and CONNECTION_SECRET.search(text)
    ]
    assert carriers == []


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "A" * 64,
        "eyJhbGciOiJSUzI1NiJ9" + ".eyJzdWIiOiJhbGljZSJ9." + "c2lnbmF0dXJl" * 4,
        "AKIA" + "A" * 16,
        "https://registry.npmjs" + ".org/left-pad",
        "https://files.pythonhosted" + ".org/packages/x",
        "https://repo.example/artifactory".replace("repo", "artifactory") + "/x",
        "/home" + "/someone/src",
        "production" + "-ready",
    ],
)
def test_each_pattern_finds_its_kind(text: str) -> None:
    assert list(findings(text))


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PUBLIC KEY-----",
        "eyJhbGciOiJub25lIn0",
        "npm ci --omit=dev",
        "https://github.com/open-policy-agent/opa",
        "/var/lib/sidecar/audit.jsonl",
        "ready for production",
    ],
)
def test_the_near_miss_of_each_pattern_is_fine(text: str) -> None:
    assert not list(findings(text))


def test_a_password_in_a_connection_string_is_seen_and_its_absence_too() -> None:
    assert CONNECTION_SECRET.search("mongodb://reader:" + "hunter2@db:27017/")
    assert not CONNECTION_SECRET.search("mongodb://reader@db:27017/")
    assert not CONNECTION_SECRET.search("mongodb://user:${PASSWORD}@db:27017/")
