"""What an OPA runs that somebody else runs: judged before it is believed, while it changes, and by whoever holds a key.

Real OPAs poll a real file server for archives that the holder of red's signing key could have made.
"""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.client import OpaClient
from sidecar.opa.external import ExternalOpa
from sidecar.opa.external_inventory import MODULES
from sidecar.opa.policy_state import Load
from sidecar.policyset import bundle_writer
from sidecar.policyset.containment import MAX_MODULE_BYTES
from sidecar.policyset.manifest import listing
from sidecar.policyset.module_lint import lint
from sidecar.ports import Question
from tests import parts
from tests.opa.outside import (
    DEADLINE_S,
    HEAD,
    HONEST,
    ROOTS,
    Outside,
    by_hand,
    file_server,
    process,
    replaced,
    running_opa,
    unpacked,
    wait_until,
)
from tests.patience import HANG_S
from tests.policyset.test_refused_at_load import ALLOWED_MODULES, REFUSED_MODULES

Built = dict[str, bytes]
"""Archives by the name of their bundle."""

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

PATIENT_S = HANG_S
"""More than any question or examination takes on a busy machine; no test waits for it to pass."""
MAIN = "platform/main.rego"
BLUE = 'package mcp.teams.blue\n\ngrant contains {"id": "blue"} if "blues" in input.subject.groups\n'


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's platform with the teams red and blue."""
    root = tmp_path_factory.mktemp("set") / "policies"
    shutil.copytree(parts.ROOT / "policies", root, ignore=shutil.ignore_patterns("teams", "cases", "*_test.rego"))
    for team, text in (("red", HONEST), ("blue", BLUE)):
        folder = root / "teams" / team
        folder.mkdir(parents=True)
        roots = [f"mcp/teams/{team}", f"mcp/grants/{team}"]
        (folder / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
        (folder / "policy.rego").write_text(text)
    return root


@pytest.fixture(scope="module")
def built(policies: Path, opa_binary: str) -> Built:
    """What ``policy bundle`` writes."""
    out = policies.parent / "built"
    asyncio.run(bundle_writer.build(policies, out, opa_binary))
    names = ("platform", "teams/red", "teams/blue")
    return {name: (out / f"{name}.tar.gz").read_bytes() for name in names}


def laid_out(folder: Path, built: Built) -> Path:
    """The archives as a file server offers them."""
    served = folder / "bundles"
    (served / "teams").mkdir(parents=True)
    for name, content in built.items():
        (served / f"{name}.tar.gz").write_bytes(content)
    return served


@pytest.fixture(scope="module")
def outside(built: Built, tmp_path_factory: pytest.TempPathFactory, opa_binary: str) -> Iterator[Outside]:
    """One OPA for all attacks; each test leaves it in whatever state it likes."""
    served = laid_out(tmp_path_factory.mktemp("served"), built)
    with file_server(served) as source, running_opa(opa_binary, source, served, ("red", "blue")) as found:
        yield found


@pytest.fixture
def honest(outside: Outside, built: Built) -> Outside:
    """The same OPA with the set as it was built."""
    for name, content in built.items():
        outside.serve(name, content)
    revisions = {name: revision_of(content) for name, content in built.items()}
    wait_until(lambda: outside.revisions() == revisions, "the honest set")
    return outside


def revision_of(archive: bytes) -> str:
    manifest = dict(unpacked(archive))[".manifest"]
    return str(json.loads(manifest)["revision"])  # noqa: TID251 - our own archive


def external(url: str, binary: str, *, timeout_s: float = PATIENT_S) -> ExternalOpa:
    return ExternalOpa(OpaClient(url, timeout_s=timeout_s), binary=binary, timeout_s=timeout_s)


async def start(opa: ExternalOpa) -> str:
    """Start it and return why it does not start, or nothing; what does not start is closed."""
    try:
        await opa.start()
    except ConfigurationError as error:
        return error.detail
    return ""


async def never_starts(url: str, binary: str, reason: str) -> None:
    """Every start is refused, and in the end for this reason: some sets change again with each poll of OPA."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            opa = external(url, binary)
            try:
                why = await start(opa)
            finally:
                await opa.stop()
            assert why, "it starts"
            if re.search(reason, why):
                return
            assert "changed while it was examined" in why


@asynccontextmanager
async def started(url: str, binary: str) -> AsyncIterator[ExternalOpa]:
    """It starts, if not while OPA is still busy with the change before."""
    async with asyncio.timeout(DEADLINE_S):
        while why := await start(opa := external(url, binary)):
            assert "changed while it was examined" in why
    try:
        yield opa
    finally:
        await opa.stop()


async def decides(opa: ExternalOpa) -> bool:
    """Whether a question is answered; the only fault that may keep it from that is the one that says so."""
    try:
        await opa.ask(Question.DECISION, {})
    except DecisionUnavailable as error:
        if error.fault is not PdpFault.POLICIES_REFUSED:
            raise
        return False
    return True


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's, there is no event
            await asyncio.sleep(0.05)


# --- attacks ----------------------------------------------------------------------------------------------------------

GHOST = "mcp/teams/ghost"
FORGED = {"revision": "", "roots": [*ROOTS], "rego_version": 1}
FORGED_MORE = {"revision": "", "roots": ["system/bundles"], "rego_version": 1}


def forging(bundle: str, manifest: dict[str, Any]) -> str:
    """A module whose rule is the manifest of a bundle, as far as whoever asks OPA can see."""
    return f'package system.bundles["{bundle}"]\n\nmanifest := {json.dumps(manifest)}\n'


ATTACKS: dict[str, tuple[dict[str, str], dict[str, Any], str]] = {
    "with": (
        {"policy.rego": HEAD + 'grant contains {"id": "x"} if input.x with input as {"x": 1}\n'},
        {},
        "red/policy.rego:3: with",
    ),
    "the network": (
        {"more.rego": HEAD + '\np := http.send({"url": "http://127.0.0.1", "method": "get"})\n'},
        {},
        "red/more.rego:4: http.send",
    ),
    "the clock": ({"policy.rego": HEAD + "p := time.now_ns()\n"}, {}, "red/policy.rego:3: time.now_ns"),
    "the environment": ({"policy.rego": HEAD + "p := opa.runtime()\n"}, {}, "red/policy.rego:3: opa.runtime"),
    "the platform's data": (
        {"policy.rego": HEAD + "p := data.mcp.platform.routes\n"},
        {},
        "red/policy.rego:3: data.mcp.platform",
    ),
    "another team": (
        {"policy.rego": HEAD + "import data.mcp.teams.blue\n\np := blue.grant\n"},
        {},
        "red/policy.rego:3: data.mcp.teams.blue",
    ),
    "a test that is served": (
        {"policy_test.rego": HEAD + "p if data.mcp.platform.routes with input as {}\n"},
        {},
        "red/policy_test.rego:3: ",
    ),
    "a hidden module": ({".policy.rego": HEAD + "p := data.mcp.main\n"}, {}, r"red/\.policy.rego:3: data.mcp.main"),
    "a huge module": ({"policy.rego": HONEST + "#" + "x" * MAX_MODULE_BYTES}, {}, "red/policy.rego:1: a module has"),
    "the guard of another system package": (
        {"policy.rego": "package system.more\n\np := 1\n"},
        {"roots": [*ROOTS, "system/more"]},
        r"teams/red/\.manifest:1: the team's roots must be",
    ),
    "a package of our own": (
        {"policy.rego": "package sidecar.x\n\np := 1\n"},
        {"roots": [*ROOTS, "sidecar"]},
        r"red/\.manifest:1: ",
    ),
    "a new package of the platform": (
        {"policy.rego": "package mcp.more\n\np := 1\n"},
        {"roots": [*ROOTS, "mcp/more"]},
        r"red/\.manifest:1: ",
    ),
    "a team whose bundle is not there": (
        {"policy.rego": 'package mcp.teams.ghost\n\ngrant contains {"id": "x"}\n'},
        {"roots": [GHOST, "mcp/grants/ghost"]},
        r"red/\.manifest:1: the team's roots",
    ),
    "its data alone": (
        {"data.json": '{"mcp": {"teams": {"ghost": {"grant": [{"id": "x"}]}}}}'},
        {"roots": [*ROOTS, GHOST]},
        r"red/\.manifest:1: ",
    ),
    "another revision for the evidence": (
        {"data.json": '{"mcp": {"revision": "forged"}}'},
        {"roots": [*ROOTS, "mcp/revision"]},
        r"red/\.manifest:1: ",
    ),
    "nothing of its own": (
        {"policy.rego": "package elsewhere\n\np := 1\n"},
        {"roots": ["elsewhere"]},
        r"red/\.manifest:1: ",
    ),
    "manifests as data": (
        {"policy.rego": HONEST, "data.json": json.dumps({"system": {"bundles": {"teams/red": {"manifest": FORGED}}}})},
        {"roots": [*ROOTS, "system/bundles"]},
        r"red/\.manifest:1: ",
    ),
    "manifests as rules": (
        {"system/a.rego": forging("teams/red", FORGED), "system/b.rego": forging("teams/red/system", FORGED_MORE)},
        {"roots": [*ROOTS, "system/bundles"]},
        r"red/system/[ab]\.rego:1: a rule at data.system.bundles would say itself what OPA runs",
    ),
    "old Rego": (
        {"policy.rego": "package mcp.teams.red\n\np { input.x }\n"},
        {"rego_version": 0},
        r"red/\.manifest:1: ",
    ),
    "old Rego for one file": (
        {"policy.rego": "package mcp.teams.red\n\np { input.x }\n"},
        {"file_rego_versions": {"*.rego": 0}},
        r"red/\.manifest:1: ",
    ),
    "another name for a module": (
        {"../more/policy.rego": HONEST},
        {},
        "teams/more/policy.rego:1: package mcp.teams.red is in no",
    ),
    "a module more than listed": (
        {"policy.rego": HONEST},
        {"metadata": {"modules": {}}},
        "red/policy.rego:1: the module is not among",
    ),
    "a module less than listed": (
        {"policy.rego": HONEST},
        {"metadata": {"modules": {**listing([("policy.rego", HONEST.encode())]), "gone.rego": "sha256:00"}}},
        "red/gone.rego:1: OPA does not run",
    ),
    "another module than listed": (
        {"policy.rego": HONEST},
        {"metadata": {"modules": listing([("policy.rego", b"package x")])}},
        "red/policy.rego:1: the module is not the one",
    ),
    "no list of modules": (
        {"policy.rego": HONEST},
        {"metadata": None},
        r"red/\.manifest:1: the archive does not list its modules",
    ),
    "no list of modules, dressed as a folder": (
        {"teams/red/policy.rego": HONEST},
        {"metadata": None},
        r"red/\.manifest:1: the archive does not list its modules",
    ),
    "other metadata": ({"policy.rego": HONEST}, {"metadata": {"x": 1}}, r"red/\.manifest:1: the metadata"),
}
"""Members of red's archive and of its manifest, and what is said of them."""


@pytest.mark.parametrize("name", ATTACKS)
async def test_what_a_key_holder_makes_opa_run_is_not_believed(outside: Outside, opa_binary: str, name: str) -> None:
    files, manifest, message = ATTACKS[name]
    await asyncio.to_thread(outside.switch, f"attack: {name}".replace(" ", "-"), files, **manifest)
    await never_starts(outside.url, opa_binary, message)


MISSES: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "made by hand and listed": ({"policy.rego": HONEST}, {}),
    "with data of its own": ({"policy.rego": HONEST, "data.json": '{"mcp": {"grants": {"red": {"x": 1}}}}'}, {}),
    "without a module": ({}, {}),
    "in a folder, under a test's name": ({"below/policy_test.rego": HONEST}, {}),
}


@pytest.mark.parametrize("name", MISSES)
async def test_the_near_miss_is_believed(outside: Outside, opa_binary: str, name: str) -> None:
    files, manifest = MISSES[name]
    await asyncio.to_thread(outside.switch, f"miss: {name}".replace(" ", "-").replace(",", ""), files, **manifest)
    async with started(outside.url, opa_binary) as opa:
        assert opa.policy_state.result is Load.LOADED
        assert await decides(opa)


async def test_a_member_that_takes_the_place_of_the_platforms_module_is_seen(
    tmp_path: Path, built: Built, opa_binary: str
) -> None:
    """Which of the two modules wins is the order of a map in OPA: intact, or refused; never believed without it."""
    victim = "platform/platform/bounds.rego"  # no other module calls a function of it, so OPA compiles without it
    served = laid_out(tmp_path, built)
    # What it runs has to stay as it is while it is judged.
    with (
        file_server(served, versions=True) as source,
        running_opa(opa_binary, source, served, ("red", "blue")) as settled,
    ):
        for number in range(6):
            text = f"{HONEST}# {number}\n"
            await asyncio.to_thread(settled.switch, f"victim-{number}", {f"../../{victim}": text})
            modules = await asyncio.to_thread(settled.get, MODULES)
            running = {module["id"]: module["raw"] for module in modules["result"]}
            if running.get(victim, "").startswith("# METADATA"):
                async with started(settled.url, opa_binary) as opa:
                    assert await decides(opa)
            else:
                await never_starts(settled.url, opa_binary, f"{victim}:1: ")


async def test_the_tree_of_a_running_opa_is_judged_like_that_of_a_file(opa_binary: str, tmp_path: Path) -> None:
    """What OPA compiles has other names and no imports; nothing that is refused at load may be hidden by that."""
    harmless = {"Rego to come", "the metadata of others", "print"}  # gone from the tree, and so from what is evaluated
    port = parts.free_port()
    with process(opa_binary, port, "--authorization=off", cwd=tmp_path) as url:
        opa = Outside(url=url, folder=tmp_path)
        wait_until(opa.listens, "OPA to answer")
        for library in ("names.rego", "calendar.rego", "filters.rego", "lib/lib.rego"):
            assert put(opa, library, (parts.ROOT / "policies/platform" / library).read_text())
        for name, (text, _, rule) in REFUSED_MODULES.items():
            if put(opa, "x.rego", text):
                found = [one.rule for one in lint(tree(opa, "x.rego"), team="red", file="x.rego")]
                assert found or name in harmless, name
                assert rule in found or name in {*harmless, "logical or"}, (name, found)
        for name, text in ALLOWED_MODULES.items():
            assert put(opa, "x.rego", text), name
            assert list(lint(tree(opa, "x.rego"), team="red", file="x.rego")) == [], name


def put(opa: Outside, name: str, text: str) -> bool:
    request = Request(f"{opa.url}/{MODULES}/{name}", data=text.encode(), method="PUT")  # noqa: S310 - our own process
    try:
        with urlopen(request, timeout=HANG_S):  # noqa: S310 - our own process
            return True
    except HTTPError as error:
        error.close()
        return False


def tree(opa: Outside, name: str) -> Any:
    return next(module["ast"] for module in opa.get(MODULES)["result"] if module["id"] == name)


# --- while it runs ----------------------------------------------------------------------------------------------------


async def test_a_set_that_is_switched_in_is_refused_and_a_mended_one_serves(
    honest: Outside, opa_binary: str, built: Built
) -> None:
    async with external(honest.url, opa_binary) as opa:
        assert await decides(opa)
        first = opa.policy_state.revision
        await asyncio.to_thread(honest.switch, "bad", {"policy.rego": HEAD + "p := time.now_ns()\n"})
        assert not await decides(opa)
        await until(lambda: refused_for(opa, "teams/red/policy.rego:3: time.now_ns"))
        assert opa.policy_state.result is Load.REFUSED
        assert not await decides(opa)
        with pytest.raises(DecisionUnavailable, match=r"time\.now_ns"):
            await opa.ask(Question.RESIDUAL, {})
        await asyncio.to_thread(honest.switch, "good", {"policy.rego": HONEST})
        await until(lambda: decides(opa))
        await until(opa.healthy)
        assert "good" in opa.policy_state.revision
        honest.serve("teams/red", built["teams/red"])
        await asyncio.to_thread(honest.runs, "teams/red", revision_of(built["teams/red"]))
        await until(lambda: decides(opa))
        await until(lambda: has_revision(opa, first))


async def refused_for(opa: ExternalOpa, reason: str) -> bool:
    """Whether health says no, and this is why; a look that came too late, or in between, gives another reason."""
    return not await opa.healthy() and reason in opa.policy_state.error


async def has_revision(opa: ExternalOpa, revision: str) -> bool:
    await opa.healthy()
    return opa.policy_state.revision == revision


async def test_a_change_is_noticed_without_a_question(honest: Outside, opa_binary: str) -> None:
    async with external(honest.url, opa_binary) as opa:
        await asyncio.to_thread(honest.switch, "quiet", {"policy.rego": HEAD + "p := opa.runtime()\n"})
        await until(lambda: refused_for(opa, "opa.runtime"))


async def test_another_content_under_an_accepted_revision_is_noticed(honest: Outside, opa_binary: str) -> None:
    """The revision is what the key holder writes into the manifest."""
    await asyncio.to_thread(honest.switch, "again", {"policy.rego": HONEST})
    async with external(honest.url, opa_binary) as opa:
        assert await decides(opa)
        honest.serve("teams/red", by_hand("again", {"policy.rego": HEAD + "p := time.now_ns()\n"}))
        await until(lambda: refused_for(opa, "time.now_ns"))
        assert not await decides(opa)


async def test_a_revision_is_the_name_of_one_content(honest: Outside, opa_binary: str) -> None:
    """Both are contained; the evidence could not say which of them decided."""
    await asyncio.to_thread(honest.switch, "twice", {"policy.rego": HONEST})
    async with external(honest.url, opa_binary) as opa:
        assert await decides(opa)
        honest.serve("teams/red", by_hand("twice", {"policy.rego": f"{HONEST}# other\n"}))
        await until(lambda: refused_for(opa, "is the name of two policy sets"))
        assert "twice" in opa.policy_state.error
        assert not await decides(opa)
        honest.serve("teams/red", by_hand("twice", {"policy.rego": HONEST}))
        await until(opa.healthy)
        assert await decides(opa)


async def test_a_module_that_comes_and_goes_with_every_poll_is_not_believed(honest: Outside, opa_binary: str) -> None:
    """Without ETags OPA activates the archive anew with each poll, and red's member wins or loses each time.

    Whichever side is looked at first: once the other was seen, neither is believed under that revision.
    """
    large = {
        f"m{each}.rego": HEAD + "".join(f"r{each}_{n} if input.a == {{{n},[1,2]}}\n" for n in range(500))
        for each in range(2)
    }
    await asyncio.to_thread(honest.switch, "flips", {**large, "policy.rego": HONEST})
    async with external(honest.url, opa_binary) as opa:
        assert await decides(opa)
        victim = "../../platform/platform/bounds.rego"  # no other module calls a function of it
        own = listing([(name, text.encode()) for name, text in {**large, "policy.rego": HONEST}.items()])
        files = {**large, "policy.rego": HONEST, victim: f"{HEAD}x := 1\n"}
        honest.serve("teams/red", by_hand("flips", files, metadata={"modules": own}))
        await until(lambda: refused_for(opa, "platform/platform/bounds.rego:1: "))

        async def harmless_side() -> bool:
            modules = (await asyncio.to_thread(honest.get, MODULES))["result"]
            assert not await opa.healthy(), "whichever side that was"
            return any(each["id"] == victim[6:] and each["raw"].startswith("# METADATA") for each in modules)

        await until(harmless_side)
        assert not await opa.healthy()
        assert not await decides(opa)


async def test_a_set_that_fails_the_self_test_is_refused(
    honest: Outside, opa_binary: str, tmp_path: Path, built: Built
) -> None:
    """The near miss is the same archive with nothing but a comment changed."""
    archive = tmp_path / "platform.tar.gz"
    archive.write_bytes(built["platform"])

    def changed(change: Callable[[str], str], revision: str) -> bytes:
        text = next(text.decode() for path, text in unpacked(archive) if path == MAIN)
        content = replaced(archive, MAIN, change)
        (tmp_path / "next.tar.gz").write_bytes(content)
        manifest = json.loads(dict(unpacked(archive))[".manifest"])  # noqa: TID251 - our own archive
        manifest["metadata"]["modules"][MAIN] = listing([("", change(text).encode())])[""]
        manifest["revision"] = revision
        return replaced(tmp_path / "next.tar.gz", ".manifest", lambda _: json.dumps(manifest))

    async with external(honest.url, opa_binary) as opa:
        honest.serve("platform", changed(lambda text: text.replace("selftest := ", "selftest := 1 # "), "wrong"))
        await asyncio.to_thread(honest.runs, "platform", "wrong")
        assert not await decides(opa)
        await until(lambda: refused_for(opa, "self-test"))
        honest.serve("platform", changed(lambda text: f"{text}\n# the same", "right"))
        await asyncio.to_thread(honest.runs, "platform", "right")
        await until(lambda: decides(opa))


async def test_an_opa_that_does_not_say_what_it_runs_is_not_believed(
    policies: Path, opa_binary: str, tmp_path: Path
) -> None:
    """The platform's bundle is of an older version, whose guard has the listings closed."""
    root = shutil.copytree(policies, tmp_path / "old")
    guard = root / "system" / "authz.rego"
    guard.write_text(guard.read_text().replace('["v1", "policies"], ', ""))
    flags = ("-b", "platform", "system", "teams/red", "teams/blue")
    with process(opa_binary, parts.free_port(), *flags, cwd=root) as url:
        await asyncio.to_thread(wait_until, lambda: bool(Outside(url=url, folder=root).revisions()), "OPA to answer")
        await never_starts(url, opa_binary, f"GET /{MODULES}.*must be open.*authz.rego")


async def test_folders_that_opa_was_started_on_are_judged_too(policies: Path, opa_binary: str, tmp_path: Path) -> None:
    root = shutil.copytree(policies, tmp_path / "folders")
    flags = ("-b", "platform", "system", "teams/red", "./teams/blue")
    with process(opa_binary, parts.free_port(), *flags, cwd=root) as url:
        await asyncio.to_thread(wait_until, lambda: bool(Outside(url=url, folder=root).revisions()), "OPA to answer")
        async with external(url, opa_binary) as opa:
            assert await decides(opa)
            assert opa.policy_state.revision == ""
    (root / "teams" / "red" / "policy.rego").write_text(HEAD + "p := time.now_ns()\n")
    with process(opa_binary, parts.free_port(), *flags, cwd=root) as url:
        await asyncio.to_thread(wait_until, lambda: bool(Outside(url=url, folder=root).revisions()), "OPA to answer")
        await never_starts(url, "no-such-opa", r"teams/red/policy\.rego:1: time\.now_ns")
