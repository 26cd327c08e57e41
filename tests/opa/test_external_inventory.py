"""When an OPA that somebody else runs is looked at, and what is believed when it changes in between.

A real OPA stands behind a proxy that stages what no real one can be made to do at a given moment: a switch between two
answers, a listing that is late, closed or of another form.
"""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.client import OpaClient
from sidecar.opa.engine_version import version_fault
from sidecar.opa.external import ExternalOpa
from sidecar.opa.external_inventory import BUNDLES, MODULES, owner, read_inventory, team_of, violations
from sidecar.opa.policy_state import Load
from sidecar.opa.wire import provenance_revision
from sidecar.policyset.containment import MAX_TEAM_FILES
from sidecar.policyset.manifest import listing
from sidecar.ports import Question
from tests import parts
from tests.opa.outside import HONEST, ROOTS, Outside, later, process, wait_until
from tests.patience import HANG_S
from tests.starting import start_and_stop

real = pytest.mark.real

PATIENT_S = HANG_S
IMPATIENT_S = 1.0
FIRST = "first"


@pytest.fixture(scope="module")
def opa(opa_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real OPA on the folders of the repository's platform, whose revision is ``first``, and a team."""
    root = tmp_path_factory.mktemp("set") / "policies"
    shutil.copytree(parts.ROOT / "policies", root, ignore=shutil.ignore_patterns("teams", "cases", "*_test.rego"))
    (root / "teams" / "red").mkdir(parents=True)
    (root / "teams" / "red" / "policy.rego").write_text(HONEST)
    (root / "teams" / "red" / ".manifest").write_text(json.dumps({"roots": [*ROOTS], "revision": FIRST}))
    with process(opa_binary, parts.free_port(), "-b", "platform", "system", "teams/red", cwd=root) as url:
        wait_until(Outside(url=url, folder=root).listens, "OPA to answer")
        yield url


class Proxy:
    """Stands before OPA; every answer names ``revision`` where OPA's own says ``first``."""

    def __init__(self, opa: str) -> None:
        self._opa = opa
        self.url = ""
        self.revision = FIRST
        self.changes: dict[str, Callable[[Proxy, bytes], Awaitable[web.Response]]] = {}
        """By path, what is answered instead of OPA's body."""
        self.asked: Counter[str] = Counter()

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/")
        self.asked[path] += 1
        revision = self.revision.encode()
        async with (
            ClientSession() as session,
            session.request(
                request.method, self._opa + str(request.rel_url), data=await request.read() or None
            ) as answer,
        ):
            body = (await answer.read()).replace(b'"first"', b'"%b"' % revision)
            status = answer.status
        if change := self.changes.get(path):
            return await change(self, body)
        return web.Response(status=status, body=body, content_type="application/json")


def said(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


@asynccontextmanager
async def proxied(opa: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(opa)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", proxy.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()


def external(proxy: Proxy, *, timeout_s: float = PATIENT_S) -> ExternalOpa:
    return ExternalOpa(OpaClient(proxy.url, timeout_s=timeout_s), binary="no-such-opa", timeout_s=timeout_s)


async def fault(opa: ExternalOpa, question: Question = Question.DECISION) -> PdpFault | None:
    """How a question fails, or None where it is answered."""
    try:
        await opa.ask(question, {})
    except DecisionUnavailable as error:
        return error.fault
    return None


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's, there is no event
            await asyncio.sleep(0.05)


VERSIONS = {
    **dict.fromkeys(("1.22.1", "1.22.4", "1.23.0", "1.100.0-rc.1", "1.22.2+build.7"), True),
    **dict.fromkeys(("1.22.0", "1.21.3", "0.70.0", "1.22.1-rc.1", "2.0.0", "", "1.22", "dev", "v1.23.0"), False),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_opa_is_of_a_version_that_is_known_to_find_its_rules(version: str) -> None:
    assert (version_fault(version) == "") is VERSIONS[version]


def older(version: str) -> Callable[[Proxy, bytes], Awaitable[web.Response]]:
    """Answer as an OPA of another version."""

    async def change(_: Proxy, body: bytes) -> web.Response:
        return as_of(version, body)

    return change


def as_of(version: str, body: bytes) -> web.Response:
    answer = json.loads(body)  # noqa: TID251 - our own
    if "provenance" not in answer:
        return said(body, 500)
    answer["provenance"]["version"] = version
    return said(json.dumps(answer).encode())


DECISION, SELF_TEST = (f"v1/data/{question.value}" for question in (Question.DECISION, Question.SELF_TEST))


@real
async def test_an_opa_below_the_floor_keeps_the_sidecar_from_starting(opa: str) -> None:
    async with proxied(opa) as proxy:
        proxy.changes[DECISION] = older("1.22.0")
        with pytest.raises(ConfigurationError, match=r"OPA 1\.22\.0 is too old: at least 1\.22\.1 is needed"):
            await start_and_stop(external(proxy))
        proxy.changes[DECISION] = older("1.22.1")
        async with external(proxy) as pdp:
            proxy.changes.clear()
            with later(60):
                assert await fault(pdp) is None


@real
async def test_an_opa_that_is_exchanged_for_an_older_one_under_the_same_set_is_not_believed(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy) as pdp:
        assert await fault(pdp) is None
        for path in (DECISION, SELF_TEST):
            proxy.changes[path] = older("1.21.2")
        with pytest.raises(DecisionUnavailable, match=r"OPA 1\.21\.2 is too old") as caught:
            await pdp.ask(Question.DECISION, {})
        assert caught.value.fault is PdpFault.POLICIES_REFUSED
        assert not await pdp.healthy()
        proxy.changes.clear()
        with later(60):
            assert await fault(pdp) is None


@real
async def test_another_opa_under_the_same_set_takes_the_self_test_first(opa: str) -> None:
    async def wrong(_: Proxy, body: bytes) -> web.Response:
        return as_of("1.99.0", body.replace(b'"with a condition"', b'"another"'))

    async with proxied(opa) as proxy, external(proxy) as pdp:
        proxy.changes = {DECISION: older("1.99.0"), SELF_TEST: wrong}
        with pytest.raises(DecisionUnavailable, match="the engine answers wrongly: index_of_rules"):
            await pdp.ask(Question.DECISION, {})
        proxy.changes[SELF_TEST] = older("1.99.0")
        with later(60):
            assert await fault(pdp) is None
            tested = proxy.asked[SELF_TEST]
            assert [await fault(pdp) for _ in range(5)] == [None] * 5
        assert proxy.asked[SELF_TEST] == tested, "and once is enough"


@real
async def test_a_known_set_is_asked_and_not_looked_at(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy) as pdp:
        assert pdp.policy_state.revision == FIRST
        looked = proxy.asked[MODULES]
        assert [await fault(pdp) for _ in range(20)] == [None] * 20
        assert proxy.asked[MODULES] == looked
        assert proxy.asked["v1/data/mcp/main/decision"] >= 20, "and nothing is answered from memory"


@real
async def test_no_look_is_believed_for_long(opa: str) -> None:
    """The near miss is a question before that. Nobody asks for health; the clock is the loop's, moved on."""
    async with proxied(opa) as proxy, external(proxy) as pdp:
        looked = proxy.asked[MODULES]
        assert await fault(pdp) is None
        assert proxy.asked[MODULES] == looked
        with later(11):
            assert await fault(pdp) is None
            assert proxy.asked[MODULES] == looked + 1, "one look: what is known is not examined again"
            assert await fault(pdp) is None
            assert proxy.asked[MODULES] == looked + 1


@real
async def test_a_look_that_is_overdue_is_waited_for_or_the_answer_is_refused(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy, timeout_s=IMPATIENT_S) as pdp:
        open_again = asyncio.Event()

        async def late(_: Proxy, body: bytes) -> web.Response:
            await open_again.wait()
            return said(body)

        proxy.changes[MODULES] = late
        with later(11):
            assert await fault(pdp) is PdpFault.POLICIES_REFUSED
            open_again.set()

            async def answered() -> bool:
                return await fault(pdp) is None

            await until(answered)


@real
async def test_another_content_under_an_accepted_name_is_not_believed_while_it_is_looked_at(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy, timeout_s=IMPATIENT_S) as pdp:
        open_again, asked = asyncio.Event(), "v1/data/mcp/main/selftest"

        async def late(_: Proxy, body: bytes) -> web.Response:
            await open_again.wait()
            return said(body, HTTPStatus.OK if b'"result"' in body else HTTPStatus.INTERNAL_SERVER_ERROR)

        async def other(_: Proxy, body: bytes) -> web.Response:
            return said(edited(body, MODULES, 1))

        assert await fault(pdp) is None
        proxy.changes = {MODULES: other, asked: late}
        probe = asyncio.create_task(pdp.healthy())

        async def examined() -> bool:
            return await fault(pdp) is PdpFault.POLICIES_REFUSED

        await until(examined)
        assert pdp.policy_state.result is Load.LOADED, "it is not refused, it is looked at"
        open_again.set()
        await probe

        async def answered() -> bool:
            return await fault(pdp) is None

        await until(answered)


@real
async def test_one_examination_serves_everybody_who_waits_for_it(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy) as pdp:
        looked = proxy.asked[MODULES]
        proxy.revision = "second"
        assert await asyncio.gather(*(fault(pdp) for _ in range(30))) == [None] * 30
        assert proxy.asked[MODULES] == looked + 2, "once before the self-test and once after it"
        proxy.revision = FIRST
        assert await fault(pdp) is None
        assert proxy.asked[MODULES] == looked + 2, "what was accepted is remembered"


@real
async def test_whoever_cannot_wait_is_refused_and_the_examination_goes_on(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy, timeout_s=IMPATIENT_S) as pdp:
        open_again = asyncio.Event()

        async def late(_: Proxy, body: bytes) -> web.Response:
            await open_again.wait()
            return said(body)

        proxy.changes[MODULES] = late
        proxy.revision = "second"
        looked = proxy.asked[MODULES]
        assert set(await asyncio.gather(*(fault(pdp) for _ in range(5)))) == {PdpFault.POLICIES_REFUSED}
        assert await fault(pdp) is PdpFault.POLICIES_REFUSED
        assert proxy.asked[MODULES] == looked + 1
        assert pdp.policy_state.result is Load.LOADED, "it is not refused, it is looked at"
        open_again.set()

        async def answered() -> bool:
            return await fault(pdp) is None

        await until(answered)
        assert proxy.asked[MODULES] == looked + 2


@real
@pytest.mark.parametrize("path", [MODULES, BUNDLES])
async def test_a_set_that_is_not_the_same_before_and_after_is_not_accepted(
    opa: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The near miss is the same change once: the set is at rest when it is looked at again."""
    monkeypatch.setattr("sidecar.opa.external._LOOK_S", HANG_S)
    async with proxied(opa) as proxy:
        for times in (1, 100):

            async def changing(proxy: Proxy, body: bytes, times: int = times) -> web.Response:
                return said(edited(body, path, min(proxy.asked[path], times)))

            proxy.asked.clear()
            proxy.changes[path] = changing
            if times == 1:
                async with external(proxy):
                    assert proxy.asked[MODULES] >= 2
            else:
                with pytest.raises(ConfigurationError, match="changed while it was examined"):
                    await start_and_stop(external(proxy))
                assert proxy.asked[MODULES] == 6


def edited(body: bytes, path: str, number: int) -> bytes:
    """A listing in which something harmless is different."""
    document = msgspec.json.decode(body)
    if path == MODULES:
        next(each for each in document["result"] if each["id"].startswith("teams/"))["raw"] += f"# {number}"
    else:
        document["result"]["elsewhere"] = {"manifest": {"revision": "", "roots": [f"elsewhere{number}"]}}
    return msgspec.json.encode(document)


@real
async def test_a_self_test_of_another_set_accepts_nothing(opa: str) -> None:
    async with proxied(opa) as proxy:

        async def other(_: Proxy, body: bytes) -> web.Response:
            return said(body.replace(b'"first"', b'"other"'))

        proxy.changes["v1/data/mcp/main/selftest"] = other
        with pytest.raises(ConfigurationError, match="answers come from another"):
            await start_and_stop(external(proxy))


@real
async def test_an_answer_of_a_set_that_is_gone_is_not_believed(opa: str) -> None:
    """A question is answered under B; when B is to be examined, C runs. C is accepted, and B's answer is not."""
    async with proxied(opa) as proxy, external(proxy) as pdp:

        async def of_another(_: Proxy, body: bytes) -> web.Response:
            del proxy.changes["v1/data/mcp/main/decision"]
            proxy.revision = "C"
            return said(body.replace(b'"first"', b'"B"'))

        proxy.changes["v1/data/mcp/main/decision"] = of_another
        assert await fault(pdp) is PdpFault.POLICIES_REFUSED
        assert pdp.policy_state.revision == "C"
        assert await fault(pdp) is None


@real
async def test_a_refused_set_is_not_examined_again_with_every_question(opa: str) -> None:
    async with proxied(opa) as proxy, external(proxy) as pdp:

        async def closed(_: Proxy, _body: bytes) -> web.Response:
            return said(b"{}", 401)

        proxy.changes[MODULES] = closed
        proxy.revision = "second"
        assert await fault(pdp) is PdpFault.POLICIES_REFUSED
        looked = proxy.asked[MODULES]
        assert {await fault(pdp) for _ in range(20)} == {PdpFault.POLICIES_REFUSED}
        assert await fault(pdp, Question.RESIDUAL) is PdpFault.POLICIES_REFUSED
        assert proxy.asked[MODULES] == looked
        assert not await pdp.healthy()
        proxy.changes.clear()
        proxy.revision = "third"
        assert await fault(pdp) is None, "another revision is looked at at once"
        assert await pdp.healthy()


@real
@pytest.mark.parametrize("status", [301, 401, 403, 404, 500, 503])
@pytest.mark.parametrize("path", [MODULES, BUNDLES])
async def test_a_closed_listing_keeps_the_sidecar_from_starting(opa: str, path: str, status: int) -> None:
    async with proxied(opa) as proxy:

        async def closed(_: Proxy, body: bytes) -> web.Response:
            return said(body, status)

        proxy.changes[path] = closed
        with pytest.raises(ConfigurationError, match=rf"OPA answered {status} to GET /{path}: it must be open"):
            await start_and_stop(external(proxy))


WRONG: dict[str, bytes] = {
    "nothing": b"",
    "no object": b"[]",
    "no result of that form": b'{"result": 1}',
    "entries that are none": b'{"result": [1]}',
    "entries of another form": b'{"result": {"platform": 1}}',
    "an entry without a manifest": b'{"result": {"platform": {}}}',
    "cut off": b'{"result": {"platform": {"manifest": ',
    "two of a name": b'{"result": {}, "result": {}}',
    "an empty list": b'{"result": []}',
    "no result": b"{}",
}


NO_MODULES = {"no result", "an empty list", "two of a name"}
"""An OPA without modules, and bundles that list none, are a matter of the self-test."""


@real
@pytest.mark.parametrize(
    ("path", "name"),
    [(path, name) for path in (MODULES, BUNDLES) for name in WRONG if path != MODULES or name not in NO_MODULES],
)
async def test_a_listing_of_another_form_keeps_the_sidecar_from_starting(opa: str, path: str, name: str) -> None:
    async with proxied(opa) as proxy:

        async def wrong(_: Proxy, _body: bytes) -> web.Response:
            return said(WRONG[name])

        proxy.changes[path] = wrong
        with pytest.raises(ConfigurationError):
            await start_and_stop(external(proxy))


@real
async def test_an_opa_that_is_away_is_not_an_opa_that_is_refused(opa: str) -> None:
    """And one that is only silent about what it runs is."""
    async with proxied(opa) as proxy, external(proxy, timeout_s=IMPATIENT_S) as pdp:

        async def gone(_: Proxy, _body: bytes) -> web.Response:
            raise ConnectionResetError

        async def hangs_up(_: Proxy, _body: bytes) -> web.Response:
            response = said(b"{")
            response.content_length = 1000
            return response

        proxy.changes = dict.fromkeys(("health", BUNDLES, MODULES), gone)
        assert not await pdp.healthy()
        assert pdp.policy_state.result is Load.LOADED
        proxy.changes = {BUNDLES: hangs_up}

        async def refused() -> bool:
            await pdp.healthy()
            return pdp.policy_state.result is Load.REFUSED

        await until(refused)
        proxy.changes = {}

        async def back() -> bool:
            return await pdp.healthy()

        await until(back)


# --- judged without an OPA --------------------------------------------------------------------------------------------

TREE = {"package": {"path": [{"type": "var", "value": "data"}]}, "rules": []}


def module(identifier: str, package: str, text: str = "x") -> dict[str, Any]:
    path = [{"type": "var", "value": "data"}, *({"type": "string", "value": part} for part in package.split("."))]
    return {"id": identifier, "raw": text, "ast": {"package": {"path": path}, "rules": []}}


PLATFORM = {"manifest": {"revision": "p", "roots": ["mcp/main", "mcp/platform", "mcp/lib", "system/authz"]}}
RED = {"manifest": {"revision": "r", "roots": ["mcp/grants/red", "mcp/teams/red"], "rego_version": 1}}
BASE = {"platform": PLATFORM, "teams/red": RED}
FOLDERS = [
    module("platform/platform/main.rego", "mcp.main"),
    module("teams/red/teams/red/policy.rego", "mcp.teams.red"),
]
"""As OPA names them where it was started on folders."""
OURS = [module("platform/main.rego", "mcp.main"), module("teams/red/policy.rego", "mcp.teams.red")]


def judged(bundles: dict[str, Any], *modules: dict[str, Any]) -> list[str]:
    running = read_inventory(msgspec.json.encode({"result": bundles}), msgspec.json.encode({"result": modules}))
    return [str(finding) for finding in violations(running)]


def roots(*names: str) -> dict[str, Any]:
    return {"manifest": {"revision": "", "roots": [*names]}}


def listed(bundle: dict[str, Any], **modules: str) -> dict[str, Any]:
    names = listing([(name.replace("_", ".", 1), text.encode()) for name, text in modules.items()])
    return {"manifest": {**bundle["manifest"], "metadata": {"modules": names}}}


LISTED = {"platform": listed(PLATFORM, main_rego="x"), "teams/red": listed(RED, policy_rego="x")}


FINE: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "a platform and a team": (BASE, FOLDERS),
    "a platform alone": ({"platform": PLATFORM}, FOLDERS[:1]),
    "bundles of paths": (
        {"/policies/platform": PLATFORM, "./teams/red": RED, "/revision": roots("mcp/revision")},
        [module("/policies/platform/policies/platform/main.rego", "mcp.main"), FOLDERS[1]],
    ),
    "system in a bundle of its own": (
        {"platform": roots("mcp/main", "mcp/platform"), "system": roots("system/authz"), "teams/red": RED},
        [*FOLDERS, module("system/system/authz.rego", "system.authz")],
    ),
    "somebody else's bundle": (
        {**BASE, "corp": roots("istio", "corp/x")},
        [*FOLDERS, module("corp/x.rego", "istio.authz")],
    ),
    "somebody else's module without a bundle": (BASE, [*FOLDERS, module("x.rego", "istio.authz")]),
    "modules as listed": (
        LISTED,
        OURS,
    ),
    "somebody else's archive beside modules as listed": (
        {**LISTED, "corp": {**roots("istio"), "etag": "1"}},
        [*OURS, module("corp/x.rego", "istio.authz")],
    ),
    "somebody else's archive beside folders": (
        {**BASE, "corp": {**roots("istio"), "etag": "1"}},
        [*FOLDERS, module("corp/x.rego", "istio.authz")],
    ),
    "the name of the set beside modules as listed": ({**LISTED, "revision": roots("mcp/revision")}, OURS),
}


@pytest.mark.parametrize("name", FINE)
def test_what_may_run_may_run(name: str) -> None:
    bundles, modules = FINE[name]
    assert judged(bundles, *modules) == []


UNLISTED = "the archive does not list its modules"

FAULTS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "a platform's archive without a list": (
        {**BASE, "teams/red": LISTED["teams/red"]},
        [FOLDERS[0], OURS[1]],
        f"platform/.manifest:1: {UNLISTED}",
    ),
    "a team's archive without a list": ({**LISTED, "teams/red": RED}, OURS, f"teams/red/.manifest:1: {UNLISTED}"),
    "a system's archive without a list": (
        {**LISTED, "system": roots("system/log")},
        OURS,
        f"system/.manifest:1: {UNLISTED}",
    ),
    "a team's archive without modules or a list": (
        {**LISTED, "teams/red": RED},
        OURS[:1],
        f"teams/red/.manifest:1: {UNLISTED}",
    ),
    "an archive that dresses as a folder": (
        {**LISTED, "teams/red": RED},
        [OURS[0], FOLDERS[1]],
        f"teams/red/.manifest:1: {UNLISTED}",
    ),
    "a download without a list": (
        {**BASE, "teams/red": {**RED, "etag": "1"}},
        FOLDERS,
        f"platform/.manifest:1: {UNLISTED}",
    ),
    "an archive without a list, by the names of its modules": (
        BASE,
        [OURS[0], FOLDERS[1]],
        f"teams/red/.manifest:1: {UNLISTED}",
    ),
    "no bundle at all": ({}, [], "no bundle or more than one has the root mcp/main"),
    "no platform": ({"teams/red": RED}, OURS[1:], "no bundle or more than one"),
    "everything": ({"platform": roots("")}, [], "the roots of platform"),
    "a platform with a team's root": ({"platform": roots("mcp/main", "mcp/teams/red")}, [], "the roots of platform"),
    "a team's bundle by another name": (
        {"platform": PLATFORM, "red": RED},
        [],
        "red/.manifest:1: a bundle with roots in mcp",
    ),
    "a team's bundle by another team's name": (
        {"platform": PLATFORM, "teams/blue": RED},
        [],
        "the team's roots must be",
    ),
    "a team that cannot be one": ({**BASE, "teams/Red!": RED}, OURS, "cannot be a team's name"),
    "another bundle in mcp": ({**BASE, "corp": roots("corp", "mcp/more")}, OURS, "corp/.manifest:1: "),
    "another bundle in system": ({**BASE, "corp": roots("system/log")}, OURS, "corp/.manifest:1: "),
    "another bundle in ours": ({**BASE, "corp": roots("sidecar/x")}, OURS, "corp/.manifest:1: "),
    "another bundle with everything": ({**BASE, "corp": roots("")}, OURS, "corp/.manifest:1: "),
    "another bundle without roots": ({**BASE, "corp": {"manifest": {}}}, OURS, "corp/.manifest:1: "),
    "a bundle without a manifest": ({**BASE, "corp": {}}, OURS, "corp/.manifest:1: "),
    "more than a revision": ({**BASE, "revision": roots("mcp/revision", "mcp/x")}, OURS, "revision/.manifest:1: "),
    "a platform's module in a team's bundle": (
        BASE,
        [*OURS, module("teams/red/x.rego", "mcp.main")],
        "teams/red/x.rego:1: package mcp.main is in no",
    ),
    "a team's module in the platform's": (
        BASE,
        [*OURS, module("platform/x.rego", "mcp.teams.red")],
        "platform/x.rego:1: package",
    ),
    "a module without a bundle": (BASE, [*OURS, module("x.rego", "mcp.platform.more")], "x.rego:1: package"),
    "a module without a package": (BASE, [*OURS, {"id": "x.rego", "raw": "", "ast": TREE}], "x.rego:1: package"),
    "a module without a tree": (
        BASE,
        [*OURS, {"id": "teams/red/x.rego", "raw": "", "ast": None}],
        "teams/red/x.rego:1: ",
    ),
    "somebody's module under our name": (BASE, [*OURS, module("platform/x.rego", "istio")], "platform/x.rego:1: "),
    "rules before the manifests": (BASE, [*OURS, module("platform/x.rego", "system.bundles.x")], "would say itself"),
    "rules of system": (BASE, [*OURS, module("platform/x.rego", "system")], "would say itself"),
    "a module that is gone": (
        {**BASE, "platform": listed(PLATFORM, main_rego="x", gone_rego="x")},
        OURS,
        "platform/gone.rego:1: OPA does not run",
    ),
    "a module that is another": (
        {**BASE, "platform": listed(PLATFORM, main_rego="y")},
        OURS,
        "platform/main.rego:1: the module is not the one",
    ),
    "a module that was added": (
        {**BASE, "platform": listed(PLATFORM)},
        OURS,
        "platform/main.rego:1: the module is not among",
    ),
    "a module whose tree is another's": (
        {**BASE, "platform": listed(PLATFORM, main_rego="x")},
        [module("platform/main.rego", "mcp.teams.red")],
        "platform/main.rego:1: package mcp.teams.red is in no",
    ),
    "too many modules": (
        BASE,
        [*OURS, *(module(f"teams/red/{number}.rego", "mcp.teams.red") for number in range(MAX_TEAM_FILES))],
        "red has 257 modules",
    ),
    "too much Rego": (
        BASE,
        [*OURS, *(module(f"teams/red/{number}.rego", "mcp.teams.red", "x" * 250_000) for number in range(5))],
        "the modules of red have 1250001 bytes",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_may_not_run_is_named(name: str) -> None:
    bundles, modules, message = FAULTS[name]
    found = judged(bundles, *modules)
    assert any(message in finding for finding in found), found


def test_the_listing_of_somebody_else_says_nothing_of_our_modules() -> None:
    """A bundle ``teams`` would list ``teams/red/policy.rego`` as its own."""
    other = {
        "manifest": {"revision": "", "roots": ["istio"], "metadata": {"modules": listing([("red/policy.rego", b"x")])}}
    }
    bundles = {**LISTED, "teams": other}
    assert judged(bundles, OURS[0], module("teams/red/policy.rego", "istio"))


def test_names_of_bundles() -> None:
    names: dict[str, str | None] = {
        "teams/red": "red",
        "./teams/red": "red",
        "/x/teams/red": "red",
        "teams/red.tar.gz": "red",
    }
    names |= {"red": None, "xteams/red": None, "teams": None, "teams/": None, "teams/red/x": None, "platform": None}
    assert {name: team_of(name) for name in names} == names
    running = read_inventory(msgspec.json.encode({"result": BASE}), b'{"result": []}')
    assert owner("teams/red/x.rego", running) == "red"
    assert owner("platform/x.rego", running) is None


def test_the_revision_of_the_manifests_is_that_of_provenance() -> None:
    running = read_inventory(msgspec.json.encode({"result": BASE}), b'{"result": []}')
    assert (
        running.revision == provenance_revision({"bundles": {"a": {"revision": "r"}, "b": {"revision": "p"}}}) == "p,r"
    )


def test_a_fingerprint_is_of_content_and_not_of_order_or_of_generated_names() -> None:
    def fingerprint(*modules: dict[str, Any]) -> str:
        bodies = ({"result": BASE}, {"result": modules})
        return read_inventory(*(msgspec.json.encode(body) for body in bodies)).fingerprint

    assert fingerprint(*OURS) == fingerprint(*reversed(OURS)) == fingerprint({**OURS[0], "ast": None}, OURS[1])
    assert fingerprint(*OURS) != fingerprint({**OURS[0], "raw": "y"}, OURS[1])
    assert fingerprint(*OURS) != fingerprint({**OURS[0], "id": "y"}, OURS[1])
    assert fingerprint(*OURS) != fingerprint(OURS[0])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6) | st.sampled_from(["mcp/main", "platform"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["manifest", "roots", "metadata", "modules", "revision", "package", "path", "platform", "value"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.lists(st.tuples(st.text(max_size=6), JSON), max_size=3))
def test_any_listing_is_judged_or_refused(bundles: Any, trees: list[tuple[str, Any]]) -> None:
    modules = [{"id": name, "raw": "", "ast": each} for name, each in trees]
    for result in (
        bundles,
        {"platform": bundles},
        {"platform": {"manifest": bundles}, "teams/x": {"manifest": bundles}},
    ):
        try:
            running = read_inventory(msgspec.json.encode({"result": result}), msgspec.json.encode({"result": modules}))
        except DecisionUnavailable:
            continue
        assert violations(running)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes_are_refused(bundles: bytes, modules: bytes) -> None:
    with pytest.raises(DecisionUnavailable):
        read_inventory(b"!" + bundles, modules)
    with pytest.raises(DecisionUnavailable):
        read_inventory(b"{}", b"!" + modules)
