"""``mcp-sidecar policy check`` and ``policy test``: what is wrong with a policy folder, with file and line."""

import asyncio
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from sidecar.authoring import cases as golden
from sidecar.authoring.engine import Engine
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from sidecar.policyset import (
    CAPABILITIES,
    EVERYTHING,
    SCHEMAS,
    TEAMS,
    Archives,
    PolicySet,
    ReadList,
    Rule,
    Severity,
    Violation,
    complaints,
    examine_set,
    refuse,
    workshop,
    written,
)
from sidecar.printing import printable
from sidecar.system import ended

_ALL: Final = 100.0
_TEST_LIMIT: Final = "90s"
"""For each test. All golden cases are one, and OPA's own limit of 5 s would fail them on a busy machine."""

_ANSWERING: Final = frozenset({("mcp", "teams"), ("mcp", "lib")})
_EVERYTHING: Final = "everything"

_NO_CASES: Final = golden.CaseTally(passed=0, failed=())
"""Where ``opa test`` decides them, or nobody does."""

_NOT_COMPILED: Final = Violation(
    file=".",
    line=1,
    rule=Rule.COMPILE,
    message="not compiled: name platform.tar.gz too, because the teams' modules use its functions",
    severity=Severity.WARNING,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What ``policy check`` found."""

    findings: tuple[Violation, ...]
    reads: ReadList | None = None
    """What rules read of a question; None where the set is refused, or is not whole."""

    @property
    def ok(self) -> bool:
        """Whether the set may be served."""
        return all(finding.severity is Severity.WARNING for finding in self.findings)

    def document(self) -> JsonObject:
        """Render it as JSON."""
        findings: list[JsonObject] = [
            {
                "file": one.file,
                "line": one.line,
                "severity": one.severity.value,
                "rule": one.rule.value,
                "message": one.message,
            }
            for one in self.findings
        ]
        reads = {} if self.reads is None else {"reads": reads_document(self.reads)}
        return {"ok": self.ok, "findings": [*findings], **reads}


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamTestReport:
    """What ``policy test`` found."""

    passed: int
    cases: int
    """Golden cases among the passed."""
    failures: tuple[Violation, ...]
    coverage: dict[str, tuple[float, tuple[int, ...]]]
    """By file: per cent of its lines, and the lines that no test reaches."""
    of: str = ""
    """What was run, in words; empty: everything."""
    left_out: tuple[Violation, ...] = ()
    """Golden cases that nobody decides, because their team is not in the set; one for each file and team."""

    @property
    def ok(self) -> bool:
        """Whether there are tests and all of them pass."""
        return bool(self.passed) and not self.failures

    def document(self) -> JsonObject:
        """Render it as JSON."""
        failures, left_out = ([_place(one) for one in many] for many in (self.failures, self.left_out))
        files: JsonObject = {
            file: {"coverage": percent, "not_covered": [*lines]} for file, (percent, lines) in self.coverage.items()
        }
        return {
            "ok": self.ok,
            "passed": self.passed,
            "cases": self.cases,
            "failures": [*failures],
            "left_out": [*left_out],
            "coverage": files,
        }


def _place(violation: Violation) -> JsonObject:
    return {"file": violation.file, "line": violation.line, "message": violation.message}


async def check(
    policies: PolicySet, binary: str, issuers: Collection[str] = (), scopes: Collection[str] = ()
) -> CheckReport:
    """Put a set through every check that it must pass before an OPA serves it.

    Args:
        policies: the set.
        binary: the OPA executable.
        issuers: those that a sidecar would trust; none if that is not known.
        scopes: those that it would ask clients for; the same.

    Raises:
        ConfigurationError: OPA cannot be run.
    """
    async with workshop(binary, issuers, scopes) as checker:
        report = CheckReport(findings=tuple(await checker.examine(policies)))
        return replace(report, reads=await checker.reads(policies)) if report.ok else report


async def read_reads(policies: PolicySet, binary: str) -> ReadList:
    """Return what the rules of a set that would be served read of a question.

    Raises:
        ConfigurationError: OPA cannot be run, or the set would be refused.
    """
    report = await check(policies, binary)
    if report.reads is None:
        refuse(report.findings)
        raise ConfigurationError("the policy set is refused")
    return report.reads


def reads_document(reads: ReadList) -> JsonObject:
    """Render what the packages that answer for teams read, each with the packages below it."""
    document: JsonObject = {}
    for package in reads.packages:
        if package[:2] in _ANSWERING:
            parts = reads.of(package)
            document[".".join(package)] = _EVERYTHING if parts == EVERYTHING else [*sorted(map(written, parts))]
    return document


async def check_archives(
    archives: Archives, binary: str, issuers: Collection[str] = (), scopes: Collection[str] = ()
) -> CheckReport:
    """Check archives like the folder that they were made of; without the platform's, containment only.

    If a member cannot be read, all archives are refused, because its effect on the others is not known.

    Raises:
        ConfigurationError: OPA cannot be run.
    """
    report = CheckReport(findings=archives.findings)
    if not report.findings and archives.whole:
        report = await check(archives.policies, binary, issuers, scopes)
        # A team's archive that is not named here may be built and loaded by itself.
        report = replace(report, findings=tuple(one for one in report.findings if one.rule is not Rule.OWNER))
    elif not report.findings:
        report = CheckReport(findings=(*await examine_set(archives.policies, binary), _NOT_COMPILED))
    return replace(report, findings=tuple(archives.located(finding) for finding in report.findings))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenTests:
    """Which tests are run."""

    packages: tuple[str, ...] | None = None
    """Those in these packages; None: all."""
    cases: bool = True
    """Whether golden cases are decided."""
    measured: bool = True
    """Whether it is measured what the tests reach, too; that takes three times as long (11 s of CPU, not 3 s)."""
    below: str = ""
    """The files of which that is told."""


ALL_TESTS: Final = ChosenTests()
_NAMED_CASES: Final = r"data\.mcp\.cases_test\."


async def run_tests(engine: Engine, chosen: ChosenTests = ALL_TESTS) -> TeamTestReport:
    """Run tests of the folder and decide its golden cases, and measure what the tests reach.

    Raises:
        ConfigurationError: the tests do not compile.
    """
    options: tuple[str, ...] = ("--capabilities", CAPABILITIES, "--timeout", _TEST_LIMIT)
    cases = (golden.LOADED,) if chosen.cases and golden.are_there(engine.folder) else ()
    if chosen.packages is not None:
        named = [rf"data\.{re.escape(package)}\." for package in chosen.packages]
        options += ("--run", f"^(?:{'|'.join((*named, _NAMED_CASES))})")
    paths = (*engine.policies.bundles, *cases)
    measuring = asyncio.create_task(_measured(engine, chosen, options, paths))
    try:
        results, tally = await _results(engine, options, cases, only_cases=chosen.packages == ())
        coverage = await measuring
    finally:
        measuring.cancel()
        await ended(measuring)
    single = [one for result in results for one in _singly(result)]
    failures = [violation for violation, failed, is_case in single if failed and not is_case]
    failed_cases = [violation for violation, failed, is_case in single if failed and is_case] + [*tally.failed]
    failures += await golden.told(engine, failed_cases)
    # That there are cases is a test of its own.
    decided = tally.passed + (1 if tally is not _NO_CASES else 0)
    return TeamTestReport(
        passed=sum(not failed for _, failed, _ in single) + decided,
        cases=sum(not failed for _, failed, is_case in single if is_case) + tally.passed,
        failures=(*(golden.ambiguous(engine.folder) if cases else ()), *failures),
        left_out=tuple(golden.without_team(engine)) if cases else (),
        coverage={file: one for file, one in coverage.items() if file.startswith(chosen.below)},
    )


async def _measured(
    engine: Engine, chosen: ChosenTests, options: tuple[str, ...], paths: tuple[str, ...]
) -> dict[str, tuple[float, tuple[int, ...]]]:
    if not chosen.measured or chosen.packages == ():
        return {}
    _, output = await engine.run("test", *options, "--coverage", "--format", "json", *paths)
    return _coverage(_decoded(output))


async def _results(
    engine: Engine, options: tuple[str, ...], cases: tuple[str, ...], *, only_cases: bool
) -> tuple[list[dict[str, Any]], golden.CaseTally]:
    """Run the tests, and beside them decide the golden cases, where that can be done without them.

    Raises:
        ConfigurationError: the tests do not compile.
    """

    async def tested(*paths: str) -> Any:
        _, output = await engine.run("test", *options, "--format", "json", *engine.policies.bundles, *paths)
        results = _decoded(output)
        if not isinstance(results, list):
            errors = "; ".join(map(str, await _compile(engine))) or printable(output)
            raise ConfigurationError(f"the tests do not run: {errors}")
        return results

    if not cases or not await asyncio.to_thread(golden.has_these_tests, engine.folder):
        return await tested(*cases), _NO_CASES
    counting = asyncio.create_task(golden.tally(engine))
    try:
        results = [] if only_cases else await tested()
        tally = await counting
    finally:
        counting.cancel()
        await ended(counting)
    return (results, tally) if tally is not None else (await tested(*cases), _NO_CASES)


async def _compile(engine: Engine) -> list[Violation]:
    schemas = ("--schema", SCHEMAS) if (engine.folder / SCHEMAS).is_dir() else ()
    flags = ("--strict", "--capabilities", CAPABILITIES, *schemas, "--format", "json")
    status, output = await engine.run("check", *flags, "-b", *engine.policies.bundles)
    if status == 0:
        return []
    found = complaints(output, engine.policies)
    return found or [Violation(file=".", line=1, rule=Rule.COMPILE, message=printable(output))]


def _singly(result: dict[str, Any]) -> list[tuple[Violation, bool, bool]]:
    """Return each test with its place, whether it fails, and whether it is a golden case."""
    location = result.get("location") or {}
    file, line = str(location.get("file", "")), int(location.get("row", 1))

    def one(name: str, outcome: dict[str, Any]) -> Violation:
        error = outcome.get("error")
        message = f"{name}: {error.get('message') if isinstance(error, dict) else error}" if error else f"{name} fails"
        return Violation(file=file, line=line, rule=Rule.TEST, message=message)

    parts = result.get("sub_results")
    if isinstance(parts, dict) and parts:
        is_case = str(result.get("package", "")).startswith("data.mcp.cases")
        return [
            (one(f"{result['name']}[{name}]", part), _failed(part), is_case) for name, part in sorted(parts.items())
        ]
    return [(one(str(result["name"]), result), _failed(result), False)]


def _failed(outcome: dict[str, Any]) -> bool:
    return bool(outcome.get("fail") or outcome.get("error"))


def _coverage(report: Any) -> dict[str, tuple[float, tuple[int, ...]]]:
    files = report.get("files", {}) if isinstance(report, dict) else {}
    return {
        file: (float(numbers.get("coverage", _ALL)), tuple(_rows(numbers.get("not_covered", []))))
        for file, numbers in sorted(files.items())
        if not file.endswith("_test.rego") and file.startswith(("platform/", "system/", TEAMS))
    }


def _rows(ranges: list[Any]) -> list[int]:
    return [row for one in ranges for row in range(one["start"]["row"], one["end"]["row"] + 1)]


def _decoded(output: bytes) -> Any:
    try:
        return msgspec.json.decode(output)
    except msgspec.DecodeError:
        return None
