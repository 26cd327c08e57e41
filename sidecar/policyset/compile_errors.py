"""What ``opa check`` finds wrong with a set, as findings with file and line.

Measured with OPA 1.22.2, ``--format json``: an error of the language has its location beside it. What keeps a bundle
from being loaded has not; there the file stands in the message, in one of a few forms, and the line is looked for here.
"""

import json
import re
from typing import Any, Final

import msgspec

from sidecar.policyset.finding import Rule, Violation
from sidecar.policyset.folder import CAPABILITIES, MANIFEST, SCHEMAS, PolicySet

_FORMS: Final = (
    (Rule.MANIFEST, re.compile(r"bundle (?P<bundle>\S+): bundle load failed on manifest decode: (?P<message>.*)")),
    (Rule.DATA, re.compile(r"bundle (?P<bundle>\S+): bundle load failed on (?P<file>.+?): (?P<message>.*)")),
    (Rule.PACKAGE, re.compile(r"bundle \S+: (?P<message>.* do not permit '.*' in module '(?P<file>.*)')")),
    (Rule.DATA, re.compile(r"bundle (?P<bundle>\S+): (?P<message>.* do not permit data at path .*)")),
    (Rule.MANIFEST, re.compile(r"bundle (?P<bundle>\S+): (?P<message>manifest has overlapped roots: .*)")),
    (Rule.FILE, re.compile(rf"(?P<file>{SCHEMAS}/.+?): (?P<message>.*)")),
    (Rule.FILE, re.compile(rf"Error: (?P<message>invalid argument \"(?P<file>{CAPABILITIES})\" .*)")),
)
"""Errors without a location; the first that fits counts."""

_DATA: Final = "data.json"
_PACKAGE: Final = re.compile(r"^package\b")


def complaints(output: bytes, policies: PolicySet) -> list[Violation]:
    """Read what ``opa check --format json`` printed.

    Args:
        output: both outputs of a check that failed.
        policies: the set that was checked.

    Returns:
        What is wrong and where. Empty if OPA said nothing that has a place, as when it was killed.
    """
    try:
        errors = msgspec.json.decode(output).get("errors")
    except (msgspec.DecodeError, AttributeError):
        errors = [{"message": line} for line in output.decode("utf-8", "replace").splitlines()[:1]]
    found = (_complaint(error, policies) for error in errors or ())
    return [one for one in found if one is not None]


def _complaint(error: dict[str, Any], policies: PolicySet) -> Violation | None:
    message, location = str(error.get("message")), error.get("location") or {}
    if location.get("file"):
        text = f"{error.get('code')}: {message}"
        return Violation(file=location["file"], line=max(1, location.get("row", 1)), rule=Rule.COMPILE, message=text)
    for rule, form in _FORMS:
        if (said := form.fullmatch(message)) is not None:
            file = _file(said.groupdict(), rule)
            return Violation(file=file, line=_line(file, rule, policies), rule=rule, message=said["message"])
    return None


def _file(said: dict[str, str], rule: Rule) -> str:
    """Return the file that a message is about, relative to the folder."""
    match said:
        case {"bundle": bundle, "file": str(file)} if file.startswith("/"):
            return f"{bundle}{file}"  # a file that OPA has put into its place in the bundle already
        case {"file": str(file)}:
            return file
        case _:
            return f"{said['bundle']}/{_DATA if rule is Rule.DATA else MANIFEST}"


def _line(file: str, rule: Rule, policies: PolicySet) -> int:
    """Return where a file is wrong: where its JSON ends too soon, or its package is declared."""
    text = {**dict(policies.files), **dict(policies.aside)}.get(file, b"").decode("utf-8", "replace")
    if rule is Rule.PACKAGE:
        return next((number for number, line in enumerate(text.splitlines(), 1) if _PACKAGE.match(line)), 1)
    try:
        json.JSONDecoder().decode(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except (ValueError, RecursionError):  # a number of more digits than Python reads, or lists too deep
        return 1
    return 1


def failed_tests(results: Any) -> list[Violation]:
    """Return a finding for each test that ``opa test`` tells as failed."""
    told = results if isinstance(results, list) else []
    return [
        Violation(
            file=str((location := one.get("location", {})).get("file")),
            line=int(location.get("row") or 1),
            rule=Rule.TEST,
            message=f"the test {one.get('name')} fails",
        )
        for one in told
        if isinstance(one, dict) and (one.get("fail") or one.get("error"))
    ]
