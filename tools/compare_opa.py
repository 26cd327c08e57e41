"""Asks two OPAs the same questions and prints where they differ: what a pin has to pass before it moves.

``python tools/compare_opa.py OLD NEW`` takes two executables. Each serves the repository's policies as they are served
to a sidecar, and is asked

- every golden question, and each of them again with one part taken out, at any depth;
- what every attack of the ledger and its near miss make, for four callers who differ in what they may do;
- for the same callers, which tools they see, and what could be granted to them at all (partial evaluation);
- the self-test.

Beside that each runs every test of the policies, the golden cases with their own data among them. The exit status is 1
where one answer or one outcome is another, or where hardly anything was answered.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from sidecar.authoring.question import QuestionRefused, read_identity, read_question
from sidecar.demo.identities import ANALYST, LOADER, STRANGER, Person
from sidecar.enforcement.visibility import TOOLS
from sidecar.errors import DecisionUnavailable
from sidecar.model import JsonObject, RequestContext
from sidecar.opa.client import OpaClient
from sidecar.policy.document import visibility_document
from sidecar.policy.residual import residual_document
from sidecar.ports import Question

ROOT: Final = Path(__file__).resolve().parent.parent
POLICIES: Final = ROOT / "policies"
LEDGER: Final = ROOT / "tests/ledger/attacks.json"

CONTEXT: Final = RequestContext(
    time_ns=1_704_888_000_000_000_000, client_ip="192.0.2.7", protocol="2025-11-25", environment="demo"
)
PEOPLE: Final = (
    *(ANALYST, LOADER, STRANGER),
    Person(
        user="erin",
        agent="nightly-loader",
        groups=("analysts", "loaders", "support-leads", "hr-admins"),
        scopes=("mongodb:read", "mongodb:write", "mongodb:admin", "mongodb:export"),
    ),
)
_AT_ONCE: Final = 4
_LIMIT_S: Final = 60.0
_MOST_SHOWN: Final = 10
_FEWEST_ANSWERS: Final = 100
"""Two OPAs that answer everything alike because neither answers are no comparison."""

Asked = tuple[str, Question, JsonObject]
"""Where a question comes from, which one it is, and its document."""


def decoded(path: Path) -> Any:
    """Read a JSON file of the repository."""
    return msgspec.json.decode(path.read_bytes())


def golden() -> Iterator[Asked]:
    """Every golden question, and each with one part taken out."""
    for file in sorted((POLICIES / "cases").glob("*.json")):
        for case in decoded(file).values():
            if isinstance(question := case["input"], dict):
                yield "golden", Question.DECISION, question
                for smaller in without_one(question):
                    yield "golden, one part less", Question.DECISION, smaller


def without_one(value: Any) -> Iterator[Any]:
    """Yield a JSON value with each of its members or items taken out in turn, at any depth."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield {name: other for name, other in value.items() if name != key}
            for smaller in without_one(child):
                yield {**value, key: smaller}
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield [*value[:index], *value[index + 1 :]]
            for smaller in without_one(child):
                yield [*value[:index], smaller, *value[index + 1 :]]


def claims(person: Person) -> JsonObject:
    """What a token of this person says."""
    scope = " ".join(person.scopes)
    return {"sub": person.user, "client_id": person.agent, "groups": [*person.groups], "scope": scope}


def ledger() -> Iterator[Asked]:
    """Every call of the ledger that policy is asked about, for everybody."""
    for call in calls():
        for person in PEOPLE:
            text = msgspec.json.encode({"claims": claims(person), "call": call})
            with contextlib.suppress(QuestionRefused):
                yield "ledger", Question.DECISION, read_question(text, None, CONTEXT).question


def calls() -> Iterator[Any]:
    """The tool calls of the ledger that are text: attacks and near misses, in messages and alone."""
    for row in decoded(LEDGER):
        with contextlib.suppress(msgspec.DecodeError, UnicodeEncodeError):
            message = msgspec.json.decode(row["body"].encode()) if "body" in row else None
            for one in message if isinstance(message, list) else [message]:
                if isinstance(one, dict) and one.get("method") == "tools/call":
                    yield one.get("params")
        yield from (row[name] for name in ("call", "near_miss") if "name" in row.get(name, {}))


def lists() -> Iterator[Asked]:
    """What everybody may see."""
    for person in PEOPLE:
        identity, _ = read_identity(claims(person), None)
        yield "visibility", Question.VISIBILITY, visibility_document(identity, CONTEXT, TOOLS)
        yield "partial evaluation", Question.RESIDUAL, residual_document(identity)


def tests_of_engines() -> Iterator[Asked]:
    """The self-test, and the part of it that has to fail."""
    yield "self-test", Question.SELF_TEST, {"nonce": "same for both"}
    yield "self-test", Question.SELF_TEST, {"nonce": "same for both", "fail": True}


@asynccontextmanager
async def serving(binary: str, home: Path) -> AsyncIterator[OpaClient]:
    """Serve the policies with an OPA."""
    socket = home / "opa.sock"
    teams = sorted(f"teams/{team.name}" for team in (POLICIES / "teams").iterdir() if team.is_dir())
    flags = ("--authorization=basic", "--skip-version-check", "--log-level=error", "--ignore=*_test.rego")
    command = (binary, "run", "--server", f"--addr=unix://{socket}", *flags, "-b", "platform", "system", *teams)
    process = await asyncio.create_subprocess_exec(*command, cwd=POLICIES, stdin=asyncio.subprocess.DEVNULL)
    try:
        async with OpaClient(f"unix://{socket}", timeout_s=_LIMIT_S) as client, asyncio.timeout(_LIMIT_S):
            while not await client.healthy():
                if process.returncode is not None:
                    sys.exit(f"{binary} ended with status {process.returncode}")
                await asyncio.sleep(0.1)
        async with OpaClient(f"unix://{socket}", timeout_s=_LIMIT_S) as client:
            yield client
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def answer(client: OpaClient, question: Question, document: JsonObject) -> str:
    """Return what an OPA says, or how it fails to."""
    try:
        return repr((await client.ask(question, document)).result)
    except DecisionUnavailable as error:
        return f"{error.fault}: {error.detail}"


async def compare(clients: Sequence[OpaClient], asked: Sequence[Asked], answers: Counter[str]) -> list[str]:
    """Put every question to all, and return how their answers differ; ``answers`` counts every answer."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(kind: str, question: Question, document: JsonObject) -> str | None:
        async with room:
            said = [await answer(client, question, document) for client in clients]
        answers.update(said)
        shown = "\n  ".join((f"{kind}: {msgspec.json.encode(document).decode()}", *said))
        return shown if len(set(said)) > 1 else None

    return [found for found in await asyncio.gather(*(one(*each) for each in asked)) if found is not None]


async def outcomes(binary: str) -> dict[str, str]:
    """Return what became of every test of the policies, by its name; of a test for each case, by the case's."""
    command = (binary, "test", "--capabilities=capabilities.json", "--timeout=90s", "--format=json")
    folders = ("platform", "system", "teams", "mcp.cases:cases")
    process = await asyncio.create_subprocess_exec(
        *command, *folders, cwd=POLICIES, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    found = {}
    for result in msgspec.json.decode(output):
        name = f"{result['package']}.{result['name']}"
        for part, one in (result.get("sub_results") or {"": result}).items():
            found[f"{name}[{part}]"] = "failed" if one.get("fail") or one.get("error") else "passed"
    return found


async def run(binaries: Sequence[str]) -> int:
    """Compare and print."""
    asked = [*golden(), *ledger(), *lists(), *tests_of_engines()]
    async with AsyncExitStack() as stack:
        homes = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="opa"))) for _ in binaries]
        clients = [
            await stack.enter_async_context(serving(binary, home)) for binary, home in zip(binaries, homes, strict=True)
        ]
        answers: Counter[str] = Counter()
        differences = await compare(clients, asked, answers)
    tests = [await outcomes(binary) for binary in binaries]
    names = sorted({name for found in tests for name in found})
    differences += [
        f"{name}: {said}" for name in names if len(set(said := [found.get(name, "not run") for found in tests])) > 1
    ]
    for line in differences[:_MOST_SHOWN]:
        print(line)
    counted = Counter(kind for kind, _, _ in asked)
    print(f"{', '.join(f'{count} {kind}' for kind, count in counted.items())}; {len(names)} tests and golden cases")
    print(f"{len(asked) + len(names)} questions, {len(answers)} different answers, {len(differences)} differences")
    return 1 if differences or len(answers) < _FEWEST_ANSWERS or not names else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Ask two OPAs the same questions and print where they differ.")
    parser.add_argument("old", help="an OPA executable")
    parser.add_argument("new", help="another one")
    given = parser.parse_args()
    # Absolute, because they run inside the policy folder; not resolved, because a link may be named for what it is.
    return asyncio.run(run([os.path.abspath(given.old), os.path.abspath(given.new)]))  # noqa: PTH100


if __name__ == "__main__":
    sys.exit(main())
