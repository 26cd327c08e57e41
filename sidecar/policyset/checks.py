"""What a policy set goes through before an OPA may serve it; used at start, at reload, and by ``policy check``.

Containment, then OPA's own strict check against capabilities and schemas, the form of the platform's data, then the
teams' own tests: each in a process of its own that is limited in time and memory like the OPA that serves, because the
author of a team's policy is not trusted with the machine either. What passed is what is served: all of it works on one
``PolicySet`` that was read once.

A reload is how a suspension in the platform's data comes into force, so it must not take long: two processes check at a
time, which is as many as serve, and what was found fine of the same bytes is not looked at again.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.policyset import names, platform_data, platform_names
from sidecar.policyset.compile_errors import complaints, failed_tests
from sidecar.policyset.containment import misplaced
from sidecar.policyset.data_lines import has_data
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import CAPABILITIES, SCHEMAS, PolicySet, store
from sidecar.policyset.mentions import Mentions, mentions_of
from sidecar.policyset.module_lint import ModuleReport, lint_module, uncalled
from sidecar.policyset.modules import batches, is_team_module, module_key, team_of, text_of, uncalled_of_teams
from sidecar.policyset.named_apart import named_apart
from sidecar.policyset.opa_command import OpaCommand
from sidecar.policyset.question_reads import QuestionReads, digest_of_platform, question_reads
from sidecar.policyset.read_list import ReadList, RuleReads, rules_of
from sidecar.policyset.roles import RoleUse, roles_of, team_data
from sidecar.policyset.roles import uses as uses_of
from sidecar.policyset.spellings import misspelt, timezones, values_of
from sidecar.printing import printable
from sidecar.system import ended, in_thread, make_home, remove

_PARSE: Final = '{f: object.remove(m, ["comments"]) | some f, s in input; m := rego.parse_module(f, s)}'
"""One process parses many modules. A module that does not parse is missing from the answer."""


_TESTS_S: Final = 60.0
_ONE_TEST_S: Final = 5
_TEAM_TESTS: Final = r"^data\.mcp\.teams\."
_MOST_FINDINGS: Final = 10
_MAX_TEXT: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedSet:
    """A set that may be served, and what its authors should look at nevertheless."""

    policies: PolicySet
    warnings: tuple[Violation, ...]
    reads: QuestionReads | None = None
    """What its answers depend on; None where that is not known."""
    sound: bool = False
    """The platform's own rule, the one of this build, finds the platform's data usable; no question needs to ask it."""


class SetChecker:
    """Vets one set after the other; modules and patterns that were found clean are not looked at again.

    Args:
        opa: the executable, with the limits of a check.
        directory: private folder of this user; every check makes its own inside.
        timeout_s: seconds that one OPA command may take, the tests excepted.
        issuers: those that the sidecar trusts; none if that is not known here.
        scopes: those that it asks clients for; the same.
    """

    def __init__(
        self,
        opa: OpaCommand,
        directory: Path,
        *,
        timeout_s: float,
        issuers: Collection[str] = (),
        scopes: Collection[str] = (),
    ) -> None:
        self._opa = opa
        self._directory = directory
        self._timeout_s = timeout_s
        self._issuers = issuers
        self._scopes = scopes
        self._known: dict[bytes, ModuleReport] = {}
        self._library: tuple[bytes, list[Mentions]] = (b"", [])
        """What the modules of the library define, and the digest of their paths and contents."""
        self._readable = b""
        """Digest of the teams' patterns that OPA could all read."""
        self._sound = b""
        """Digest of the platform's files whose data its own rule found usable."""

    async def vet(self, policies: PolicySet) -> ApprovedSet:
        """Let a set through, or say why not.

        Raises:
            ConfigurationError: it must not be served; the detail names file and line.
        """
        findings, judged = await self._examined(policies)
        refuse(findings)
        rules: dict[str, list[RuleReads]] = {team: [] for team in policies.teams}
        for path in {path for path, _ in policies.files} & judged.keys():
            rules[team_of(path)] += judged[path].reads
        return ApprovedSet(
            policies=policies,
            warnings=tuple(findings),
            reads=question_reads(policies, rules),
            sound=self._sound == digest_of_platform(policies),
        )

    async def examine(self, policies: PolicySet) -> list[Violation]:
        """Return what is wrong with a set, warnings included, up to the first step that refuses it.

        Raises:
            ConfigurationError: OPA cannot be run, or gives no answer that says what is wrong.
        """
        return (await self._examined(policies))[0]

    async def _examined(self, policies: PolicySet) -> tuple[list[Violation], dict[str, ModuleReport]]:
        async with self._workplace(policies) as home:
            found, judged = await self._findings(policies, home)
            if not _errors(found):
                found += await self._names(policies, home, judged)
            if not _errors(found):
                found += await self._compiled_and_tried(policies, home)
        return found, judged

    async def _compiled_and_tried(self, policies: PolicySet, home: Path) -> list[Violation]:
        """Compile a set, and beside that hold its data to its schema and run its tests.

        The findings are what one after the other would have said: of the tests of a set that does not compile, nothing.
        """
        beside = [
            asyncio.create_task(work)
            for work in (self._compile(policies, home), self._tables_and_tests(policies, home))
        ]
        found: list[Violation] = []
        try:
            for work in beside:
                if not _errors(found):
                    found += await work
        finally:
            for work in beside:
                work.cancel()
            await ended(*beside)
        return found

    async def _tables_and_tests(self, policies: PolicySet, home: Path) -> list[Violation]:
        found = await self._tables(policies, home)
        return found if _errors(found) else found + await self._test(policies, home)

    async def violations(self, policies: PolicySet) -> list[Violation]:
        """Return everything that is wrong with the containment of a set, warnings included.

        Raises:
            ConfigurationError: OPA cannot be run.
        """
        async with self._workplace(policies) as home:
            return (await self._findings(policies, home))[0]

    async def reads(self, policies: PolicySet) -> ReadList:
        """Return what the rules of all modules that are served read of a question.

        A module that OPA does not parse reads everything.

        Raises:
            ConfigurationError: OPA cannot be run.
        """
        modules = {path: content for path, content in policies.files if path.endswith(".rego")}
        rules: list[RuleReads] = []
        async with self._workplace(policies) as home:
            for batch in batches(modules):
                trees = await self._trees(batch, home)
                for path in batch:
                    tree = trees.get(path) or (await self._parsed(path, home))[1]
                    rules += rules_of(tree)
        return ReadList(rules=tuple(rules))

    async def sign(self, bundle: PolicySet, key: Path, algorithm: str) -> bytes:
        """Return the ``.signatures.json`` of one bundle, whose files lie at the top.

        Raises:
            ConfigurationError: OPA cannot sign with this key.
        """
        async with self._workplace(bundle) as home:
            arguments = ("--signing-key", str(key), "--signing-alg", algorithm, "-o", str(home))
            status, output = await self._run(home, "sign", *arguments, "-b", ".")
            if status != 0:
                raise ConfigurationError(f"the bundle cannot be signed: {printable(output)}")
            return await in_thread((home / ".signatures.json").read_bytes)

    @asynccontextmanager
    async def _workplace(self, policies: PolicySet) -> AsyncIterator[Path]:
        home = make_home(self._directory, "check-")
        try:
            folder = home / "policies"
            await in_thread(folder.mkdir, 0o700)
            await in_thread(store, _offline(policies), folder, aside=True)
            yield home
        finally:
            await remove(home)

    async def _findings(self, policies: PolicySet, home: Path) -> tuple[list[Violation], dict[str, ModuleReport]]:
        """Return what is wrong with the containment of a set, and the teams' modules by path."""
        found = list(misplaced(policies))
        if any(finding.rule in {Rule.SIZE, Rule.TEAM_NAME, Rule.FILE_NAME} for finding in found):
            return found, {}  # what is too large is not given to OPA, and a bad name is no path
        modules = {path: content for path, content in (*policies.files, *policies.aside) if is_team_module(path)}
        served = frozenset(path for path, _ in policies.files)
        keys = {path: module_key(path, content, served=path in served) for path, content in modules.items()}
        known = {key: self._known[key] for key in keys.values() if key in self._known}
        unseen = {path: modules[path] for path, key in keys.items() if key not in known}
        for batch in batches(unseen):
            for path, linted in (await self._judge(batch, home, served)).items():
                known[keys[path]] = linted
        self._known = {key: linted for key, linted in known.items() if not _errors(linted.findings)}
        judged = {path: known[keys[path]] for path in sorted(modules)}
        for path in {finding.file for finding in uncalled_of_teams(judged, served)}:
            judged[path] = await self._locate(path, home, team=team_of(path), served=path in served)
        found += [finding for linted in judged.values() for finding in linted.findings]
        return found + uncalled_of_teams(judged, served), judged

    async def _names(self, policies: PolicySet, home: Path, judged: dict[str, ModuleReport]) -> list[Violation]:
        """Look up what the served modules of each team name, and try the patterns that stand in them."""
        library = await self._library_of(policies, home)
        served = {path: content for path, content in policies.files if path in judged}
        found = await self._resolved(policies, home, library, {path: judged[path].mentions for path in served})
        located = [path for path in {finding.file for finding in found} if path in served]
        for path in located:
            judged[path] = await self._locate(path, home, team=team_of(path), served=True)
        if not located:
            return found
        return await self._resolved(policies, home, library, {path: judged[path].mentions for path in served})

    async def _resolved(
        self, policies: PolicySet, home: Path, library: list[Mentions], served: dict[str, Mentions]
    ) -> list[Violation]:
        found: list[Violation] = []
        uses: list[RoleUse] = []
        tables, question = platform_names.platform_tables(policies), names.question_schema(policies)
        for team in policies.teams:
            modules = {path: mentions for path, mentions in served.items() if team_of(path) == team}
            data = team_data(policies, team)
            found += names.unresolved(modules, library, team, data=data, question=question)
            mine = list(uses_of(modules, roles_of(library, modules.values()), data, team))
            found += misspelt(mine, values_of(tables, question, team, self._issuers), policies)
            uses += mine
        found += named_apart(uses, tables, policies)
        patterns = [
            *names.patterns_of(uses),
            *(names.Pattern(syntax=syntax, spot=spot) for syntax, spot in timezones(uses)),
        ]
        tried = names.patterns(patterns)
        if patterns and (digest := hashlib.sha256(tried).digest()) != self._readable:
            status, output = await self._run(home, *names.TRY_PATTERNS, stdin=tried)
            bad = names.unreadable(status, output, patterns, policies)
            self._readable = self._readable if bad else digest
            found += bad
        return sorted(found, key=lambda one: (one.file, one.line))

    async def _library_of(self, policies: PolicySet, home: Path) -> list[Mentions]:
        modules = {path: content for path, content in policies.files if names.is_library(path, content)}
        digest = hashlib.sha256(msgspec.json.encode(modules)).digest()
        if self._library[0] == digest:
            return self._library[1]
        trees: dict[str, Any] = {}
        for batch in batches(modules):
            trees |= await self._trees(batch, home)
        library = [mentions_of(tree) for tree in trees.values()]
        if len(trees) == len(modules):
            self._library = (digest, library)
        return library

    async def _judge(self, modules: dict[str, bytes], home: Path, served: frozenset[str]) -> dict[str, ModuleReport]:
        """Parse all at once without locations; a module that is not clean is parsed again by itself, with them."""
        trees = await self._trees(modules, home)
        judged = {}
        for path, content in modules.items():
            if text_of(content) is None:
                judged[path] = _unreadable(path, "the module is not UTF-8 text")
                continue
            team, serves = team_of(path), path in served
            linted = lint_module(trees.get(path), team=team, file=path, served=serves)
            linted = replace(linted, mentions=mentions_of(trees.get(path)), reads=tuple(rules_of(trees.get(path))))
            judged[path] = await self._locate(path, home, team=team, served=serves) if linted.findings else linted
        return judged

    async def _trees(self, modules: dict[str, bytes], home: Path) -> dict[str, Any]:
        """Return the parse trees of modules by path; one that OPA does not parse is not among them."""
        texts = {path: text for path, content in modules.items() if (text := text_of(content)) is not None}
        arguments = ("eval", "--format", "raw", "--stdin-input", _PARSE)
        status, output = await self._run(home, *arguments, stdin=msgspec.json.encode(texts))
        trees = _decoded(output) if status == 0 else None
        return trees if isinstance(trees, dict) else {}

    async def locate(self, text: str, *, team: str, file: str) -> tuple[Violation, ...]:
        """Return the findings of one served module of a team with their lines; its name makes no difference.

        Raises:
            ConfigurationError: OPA cannot be run.
        """
        module = PolicySet(bundles=(), files=(("module.rego", text.encode("utf-8", "replace")),))
        async with self._workplace(module) as home:
            linted = await self._locate("module.rego", home, team=team, served=True)
        return tuple(replace(finding, file=file) for finding in (*linted.findings, *uncalled([linted])))

    async def _locate(self, path: str, home: Path, *, team: str, served: bool) -> ModuleReport:
        parsed, document, output = await self._parsed(path, home)
        if parsed:
            linted = lint_module(document, team=team, file=path, served=served)
            return replace(linted, mentions=mentions_of(document), reads=tuple(rules_of(document)))
        errors = document.get("errors") if isinstance(document, dict) else None
        if not isinstance(errors, list) or not errors:
            return _unreadable(path, f"OPA cannot parse this: {printable(output)}")
        return ModuleReport(findings=tuple(_syntax(path, error) for error in errors))

    async def _parsed(self, path: str, home: Path) -> tuple[bool, Any, bytes]:
        """Parse one module by itself: whether OPA does, its tree with locations or what is wrong, and all of it."""
        arguments = ("parse", "--format", "json", "--json-include", "locations,-comments", path)
        status, output = await self._run(home, *arguments)
        document = _decoded(output)
        return status == 0 and isinstance(document, dict), document, output

    async def _compile(self, policies: PolicySet, home: Path) -> list[Violation]:
        """``opa run`` has no list of capabilities, so this is where builtins that are not on it are refused."""
        schemas = any(path.startswith(f"{SCHEMAS}/") for path, _ in policies.aside)
        options = ("--schema", SCHEMAS) if schemas else ()
        flags = ("--strict", "--capabilities", CAPABILITIES, *options, "--format", "json")
        status, output = await self._run(home, "check", *flags, "-b", *policies.bundles)
        if status == 0:
            return []
        if found := complaints(output, policies):
            return found
        raise ConfigurationError(f"the policy set does not compile: {printable(output, longest=_MAX_TEXT)}")

    async def _tables(self, policies: PolicySet, home: Path) -> list[Violation]:
        """Hold the platform's data to its schema: what is not of its form would be refused question by question."""
        if not has_data(policies):
            return [platform_data.MISSING]
        arguments = platform_data.arguments(policies)
        status, output = await self._run(home, *arguments, stdin=platform_data.schema_of(policies))
        found = platform_data.findings(status, output, policies, self._issuers)
        if not _errors(found) and platform_data.is_sound(output):
            self._sound = digest_of_platform(policies)
        return found if _errors(found) else found + platform_names.dangling(policies, self._scopes)

    async def _test(self, policies: PolicySet, home: Path) -> list[Violation]:
        """Run the teams' own tests; the platform's are run where the platform is built."""
        if not any(is_team_module(path) for path, _ in policies.aside):
            return []
        options = ("--capabilities", CAPABILITIES, "--format", "json", "--timeout", f"{_ONE_TEST_S}s")
        arguments = ("test", *options, "--run", _TEAM_TESTS, "-b", *policies.bundles)
        status, output = await self._run(home, *arguments, timeout_s=_TESTS_S)
        results = _decoded(output)
        found = failed_tests(results)
        if status == 0 or found:
            return found
        raise ConfigurationError(f"the teams' tests do not run: {printable(output, longest=_MAX_TEXT)}")

    async def _run(
        self, home: Path, *arguments: str, stdin: bytes = b"", timeout_s: float | None = None
    ) -> tuple[int, bytes]:
        limit = self._timeout_s if timeout_s is None else timeout_s
        return await self._opa.run(*arguments, folder=home / "policies", home=home, timeout_s=limit, stdin=stdin)


def refuse(findings: Sequence[Violation]) -> None:
    """Refuse a set with findings that are more than warnings.

    Raises:
        ConfigurationError: with file and line of the first of them.
    """
    if errors := _errors(findings):
        lines = [printable(str(error).encode("utf-8", "replace")) for error in errors[:_MOST_FINDINGS]]
        if len(errors) > _MOST_FINDINGS:
            lines.append(f"and {len(errors) - _MOST_FINDINGS} more")
        raise ConfigurationError(f"the policy set is refused: {'; '.join(lines)}")


def _errors(findings: Iterable[Violation]) -> list[Violation]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


def _offline(policies: PolicySet) -> PolicySet:
    """Let no check reach a network, even where a deployment's own list of capabilities allows it.

    Without ``allow_net`` OPA's check fetches a ``$ref`` in the METADATA of any module (measured with 1.22.4).
    """

    def closed(path: str, content: bytes) -> tuple[str, bytes]:
        listed = _decoded(content) if path == CAPABILITIES else None
        return (path, msgspec.json.encode({**listed, "allow_net": []}) if isinstance(listed, dict) else content)

    files = tuple(closed(path, content) for path, content in policies.files)
    return replace(policies, files=files, aside=tuple(closed(path, content) for path, content in policies.aside))


def _unreadable(path: str, message: str) -> ModuleReport:
    return ModuleReport(findings=(Violation(file=path, line=1, rule=Rule.SYNTAX, message=message),))


def _decoded(output: bytes) -> Any:
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(output)
    return None


def _syntax(path: str, error: Any) -> Violation:
    location = error.get("location") if isinstance(error, dict) else None
    row = location.get("row") if isinstance(location, dict) else None
    message = f"rego_parse_error: {error.get('message')}" if isinstance(error, dict) else "rego_parse_error"
    return Violation(file=path, line=max(1, row) if isinstance(row, int) else 1, rule=Rule.SYNTAX, message=message)
