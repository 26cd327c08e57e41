"""Rolling everything under load: three sidecars behind the shipped nginx, and callers who must not notice.

One after the other, over and over: a sidecar is killed and comes back, one is stopped and started, the policies change
and change back, the MCP server's program, the certificates, the keys of sessions, of tokens and of heads of the
evidence, and the connection to the shared store are replaced. The status is 1 where a call was allowed that policy
denies, a record is missing, a write was carried out twice, a read failed twice, or a roll was not taken up.

    python bench/rolling.py [--seconds 600] [--callers 64]
"""

import argparse
import asyncio
import base64
import json
import os
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.rolling_calls import Became, Call, Kind, Load, recorded  # noqa: E402
from bench.rolling_keys import TokenKeys, a_key_of_heads, put  # noqa: E402
from bench.table import show  # noqa: E402
from sidecar.demo.identities import Person  # noqa: E402
from tests import parts  # noqa: E402
from tests.edge.test_tls import issue  # noqa: E402
from tests.hours import policies_on  # noqa: E402
from tests.integration.deployment import Deployment, deployed  # noqa: E402
from tests.nginx import nginx, with_real  # noqa: E402
from tests.patience import HANG_S  # noqa: E402
from tests.signer import ISSUER  # noqa: E402

SIDECARS: Final = 3
LOOK_S: Final = 4.0
"""Sidecars look at their files every two seconds."""
STORE: Final = "rolling_store"
"""In a deployment of its own, as docs/replicas.md asks. It has longer to answer than by default: the stand-in is one
Python process, which on two busy cores takes seconds, and then everybody is refused, as it should be."""
SETTINGS: Final = """
mongodb.uri_file = "{folder}/store"
mongodb.database = "{store}"
mongodb.usage = "usage"
mongodb.timeout_ms = 5000
mongodb.stale_after_s = 20
session_keys_file = "{folder}/session-keys"
suspensions = "mongodb:suspensions"
single_use = "mongodb:marks"
control_listen = "unix:{own}/control"
sessions = {{ ended = "mongodb:ended", calls_per_identity = 256, per_identity = 1024 }}
tls = {{ certificate_file = "{folder}/server.pem", key_file = "{folder}/server.key" }}
"""

Row = dict[str, object]


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The sidecars, and what they share."""

    folder: Path
    url: str
    uri: str
    store_uri: str
    keys: TokenKeys
    sidecars: list[Deployment] = field(default_factory=list)
    newest_key: bool = True
    closed: list[tuple[float, float]] = field(default_factory=list)
    """When writes were denied everywhere: from when it was in force at all, until it was taken back."""
    tokens: dict[str, tuple[float, str]] = field(default_factory=dict)

    def token(self, person: Person) -> str:
        """A token of ten seconds ago at most, signed with the key in use."""
        made, text = self.tokens.get(person.user, (0.0, ""))
        if time.monotonic() - made > 10:
            text = self.keys.token(person, self.url, newest=self.newest_key)
            self.tokens[person.user] = time.monotonic(), text
        return text


async def until(true: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + HANG_S
    while not await asyncio.to_thread(true):
        if time.monotonic() > ends:
            msg = f"waited in vain for {what}"
            raise AssertionError(msg)
        await asyncio.sleep(0.2)


# --- what is rolled ---------------------------------------------------------------------------------------------------


async def a_sidecar_is_killed(fleet: Fleet, turn: int) -> None:
    one = fleet.sidecars[turn % SIDECARS]
    assert one.process is not None
    one.process.kill()
    await asyncio.to_thread(one.process.wait)
    await asyncio.to_thread(one.start)


async def a_sidecar_is_restarted(fleet: Fleet, turn: int) -> None:
    one = fleet.sidecars[(turn + 1) % SIDECARS]
    assert one.process is not None
    one.process.terminate()
    status = await asyncio.to_thread(one.process.wait)
    assert status == 0, "it answers what it has, and ends"
    await asyncio.to_thread(one.start)


def revisions(fleet: Fleet) -> set[str]:
    found = (re.search(r'policy_revision\{[^}]*revision="([^"]*)"', one.admin("/metrics")[1]) for one in fleet.sidecars)
    return {each[1] if each else "" for each in found}


async def policies_close_and_open(fleet: Fleet, _turn: int) -> None:
    """The loading team freezes its collection, and takes it back."""
    file = fleet.folder / "policies/teams/loading/data.json"
    before, [old] = file.read_text(), revisions(fleet)
    document = json.loads(before)  # noqa: TID251 - the repository's own file
    document["mcp"]["grants"]["loading"]["frozen"] = ["orders"]
    put(file, json.dumps(document))
    await until(lambda: old not in (now := revisions(fleet)) and len(now) == 1, "the new policies at all sidecars")
    began = time.monotonic()
    await asyncio.sleep(2)
    fleet.closed.append((began, time.monotonic()))
    put(file, before)
    await until(lambda: revisions(fleet) == {old}, "the old policies at all sidecars")


async def the_mcp_server_changes(fleet: Fleet, turn: int) -> None:
    def children() -> list[set[int]]:
        return [{child.pid for child in one.children("mongodb-mcp-server")} for one in fleet.sidecars]

    before = children()
    put(fleet.folder / "launcher", f'#!/bin/sh\n# {turn}\nexec "$@"\n', 0o755)
    await until(
        lambda: all(now and not now & old for now, old in zip(children(), before, strict=True)), "other children"
    )


async def certificates_change(fleet: Fleet, turn: int) -> None:
    name = ("first", "second")[turn % 2]
    put(fleet.folder / "server.key", (fleet.folder / f"{name}.key").read_text())
    put(fleet.folder / "server.pem", pem := (fleet.folder / f"{name}.pem").read_text())

    def served() -> bool:
        return all(ssl.get_server_certificate(("127.0.0.1", one.port)).strip() == pem.strip() for one in fleet.sidecars)

    await until(served, "the other certificate at all sidecars")


async def session_keys_change(fleet: Fleet, _turn: int) -> None:
    """As docs/replicas.md says: the new one second, then first; the old one stays, for sessions last a day."""
    file = fleet.folder / "session-keys"
    newest = base64.b64encode(secrets.token_bytes(32)).decode()
    first = file.read_text().splitlines()[0]
    put(file, f"{first}\n{newest}\n")
    await asyncio.sleep(LOOK_S)
    put(file, f"{newest}\n{first}\n")
    await asyncio.sleep(LOOK_S)


async def token_keys_change(fleet: Fleet, _turn: int) -> None:
    fleet.newest_key = False
    fleet.keys.add()
    await asyncio.sleep(LOOK_S)
    fleet.newest_key = True
    fleet.tokens.clear()
    await asyncio.sleep(LOOK_S)
    fleet.keys.drop_oldest()


async def the_connection_to_the_store_changes(fleet: Fleet, turn: int) -> None:
    joint = "&" if "?" in fleet.store_uri else "?"
    await taken_up(fleet, "mongodb.uri_file", "store", f"{fleet.store_uri}{joint}maxIdleTimeMS={60_000 + turn}")


async def the_key_of_heads_changes(fleet: Fleet, _turn: int) -> None:
    await taken_up(fleet, "audit.signing_key_file", "heads.pem", a_key_of_heads())


async def taken_up(fleet: Fleet, setting: str, name: str, text: str) -> None:
    """Replace a file, and wait until every sidecar says that it uses it."""

    def told() -> list[int]:
        return [one.log_file.read_text().count(f"{setting}: what changed is used") for one in fleet.sidecars]

    before = told()
    put(fleet.folder / name, text)
    await until(lambda: all(now > old for now, old in zip(told(), before, strict=True)), f"{setting} at all sidecars")


Roll = Callable[[Fleet, int], Awaitable[None]]
ROLLS: Final[Sequence[Roll]] = (
    a_sidecar_is_killed,
    policies_close_and_open,
    token_keys_change,
    a_sidecar_is_restarted,
    the_mcp_server_changes,
    certificates_change,
    session_keys_change,
    the_connection_to_the_store_changes,
    the_key_of_heads_changes,
)


async def roll_all(fleet: Fleet, seconds: float) -> Counter[str]:
    """Roll one after the other until the time is over, each at least once."""
    done: Counter[str] = Counter()
    began, turn = time.monotonic(), 0
    while turn < len(ROLLS) or time.monotonic() - began < seconds:
        roll = ROLLS[turn % len(ROLLS)]
        try:
            await roll(fleet, turn // len(ROLLS))
        except AssertionError as error:
            print(f"{name_of(roll)}: {error}", file=sys.stderr)
            done["failed"] += 1
        done[name_of(roll)] += 1
        turn += 1
        await asyncio.sleep(1)
    return done


def name_of(roll: Roll) -> str:
    return str(getattr(roll, "__name__", "")).replace("_", " ")


# --- what came of it --------------------------------------------------------------------------------------------------


def wrongly_allowed(call: Call, fleet: Fleet, written: Counter[str]) -> bool:
    """Whether it was carried out though policy denied it, for as long as it was under way."""
    if call.kind is Kind.NEVER:
        return call.became is Became.ALLOWED
    happened = call.became is Became.ALLOWED or written[call.mark] > 0
    return (
        call.kind is Kind.WRITE
        and happened
        and any(began <= call.sent and call.answered <= ended for began, ended in fleet.closed)
    )


def lacks_records(call: Call, found: Mapping[str, Counter[str]], times: int) -> bool:
    """Whether its evidence does not say what happened: to the caller, or to the database."""
    own = found.get(call.mark, Counter())
    # What is refused when its intent is stored already has an outcome.
    if not all(found.get(name, Counter()).keys() & {"refusal", "outcome"} for name in call.refusals):
        return True
    allowed = call.became is Became.ALLOWED
    return ((allowed or times > 0) and not own["intent"]) or (allowed and not own["outcome"])


def verdict(fleet: Fleet, load: Load, rolled: Counter[str]) -> list[Row]:
    with MongoClient[dict[str, Any]](fleet.uri) as client:
        written = Counter(document["mark"] for document in client.staging.orders.find({"mark": {"$exists": True}}))
    found = recorded(file for one in fleet.sidecars for file in one.folder.iterdir())
    whole = [verified(one) for one in fleet.sidecars]
    made = load.made
    writes = [call for call in made if call.kind is Kind.WRITE]
    faults = {
        "calls that policy denies and that were carried out": [c for c in made if wrongly_allowed(c, fleet, written)],
        "writes that were carried out twice": [c for c in writes if written[c.mark] > 1],
        "writes that were answered as done and were not": [
            c for c in writes if c.became is Became.ALLOWED and not written[c.mark]
        ],
        "writes that were answered as refused and were done": [
            c for c in writes if c.became is Became.DENIED and written[c.mark]
        ],
        "calls without their records": [c for c in made if lacks_records(c, found, written[c.mark])],
        "reads that failed twice": [c for c in made if c.kind is not Kind.WRITE and c.became is Became.UNKNOWN],
        "reads that policy allows and that were refused": [
            c for c in made if c.kind is Kind.READ and c.became is Became.DENIED
        ],
        "documents that no call of the run wrote": sorted(set(written) - {c.mark for c in writes}),
    }
    for what, those in faults.items():
        for one in those[:3]:
            print(f"{what}: {one}", file=sys.stderr)
    unknown = sum(call.became is Became.UNKNOWN for call in writes)
    denied = sum(call.became is Became.DENIED for call in writes)
    return [
        row("calls", len(made), "1", met=bool(made)),
        row("writes done", sum(call.became is Became.ALLOWED for call in writes), "1", met=bool(written)),
        row("writes denied while policy was closed", denied, "1", met=bool(denied)),
        row("writes of which the caller does not know", unknown, "-", met=True),
        row("calls repeated once", sum(call.repeated for call in made), "-", met=True),
        *(row(what, len(those), "0", met=not those) for what, those in faults.items()),
        row("chains of evidence that hold", sum(whole), f"{SIDECARS}", met=all(whole)),
        row("rolls that were not taken up", rolled["failed"], "0", met=not rolled["failed"]),
        *(row(name, times, "1", met=times > 0) for name, times in rolled.items() if name != "failed"),
    ]


def verified(one: Deployment) -> bool:
    command = [sys.executable, "-m", "sidecar", "audit", "verify", str(one.audit_file)]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": os.defpath}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode == 0


def row(what: str, value: float, aim: str, *, met: bool) -> Row:
    return {"what": what, "value": value, "aim": aim, "met": met}


# --- the deployment ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def balanced(fleet: Fleet, port: int) -> AsyncIterator[None]:
    """The shipped nginx in front of all of them, which checks their certificates."""
    first, second, *others = (f"127.0.0.1:{one.port}" for one in fleet.sidecars)
    further = "".join(f"\nserver {each} max_fails=0;" for each in others)
    trusted = fleet.folder / "trusted.pem"
    trusted.write_text("".join((fleet.folder / f"{name}.pem").read_text() for name in ("first", "second")))
    verify = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {trusted}; proxy_ssl_name localhost;"
    real = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port};",
        "server 10.0.0.11:8080": f"server {first}",
        "server 10.0.0.12:8080 max_fails=0;": f"server {second} max_fails=0;{further}",
        "proxy_next_upstream_tries 2;": f"proxy_next_upstream_tries {SIDECARS};",
        "proxy_pass http://mcp_sidecar;": f"proxy_pass https://mcp_sidecar; {verify}",
        "ssl_certificate /etc/nginx/server.pem;": "",
        "ssl_certificate_key /etc/nginx/server.key;": "",
    }
    async with nginx(fleet.folder, with_real((ROOT / "deploy/nginx.conf").read_text(), real), port):
        yield


def started(fleet: Fleet, stack: ExitStack) -> None:
    """Start the sidecars, each with evidence of its own and everything else in common."""
    policies = policies_on(fleet.folder)
    put(fleet.folder / "session-keys", base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    put(fleet.folder / "store", fleet.store_uri)
    put(fleet.folder / "heads.pem", a_key_of_heads())
    put(fleet.folder / "launcher", '#!/bin/sh\nexec "$@"\n', 0o755)
    for name in ("second", "first"):
        certificate, key = issue(fleet.folder, name)
        put(fleet.folder / "server.pem", certificate.read_text())
        put(fleet.folder / "server.key", key.read_text())
    issuers = f'[[issuers]]\nissuer = "{ISSUER}"\njwks_file = "{fleet.folder}/jwks.json"\nalgorithms = ["ES256"]\n'
    for number in range(SIDECARS):
        own = fleet.folder / f"sidecar-{number}"
        own.mkdir()
        one = deployed(
            own,
            fleet.uri,
            extra=SETTINGS.format(folder=fleet.folder, own=own, store=STORE),
            issuers=issuers,
            environment={
                "SIDECAR_RESOURCE_URL": fleet.url,
                "SIDECAR_AUDIT__ARGUMENTS": "full",
                "SIDECAR_AUDIT__SIGNING_KEY_FILE": str(fleet.folder / "heads.pem"),
            },
            record=False,
            server=(str(fleet.folder / "launcher"),),
            policies=policies,
        )
        fleet.sidecars.append(stack.enter_context(one))


async def main(options: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, port = Path(name), parts.free_port()
        uri, store_uri = (stack.enter_context(parts.running_database()) for _ in range(2))
        url = f"http://127.0.0.1:{port}/mcp"
        fleet = Fleet(folder=folder, url=url, uri=uri, store_uri=store_uri, keys=TokenKeys(folder / "jwks.json"))
        with ExitStack() as serving:
            await asyncio.to_thread(started, fleet, serving)
            load = Load(url=url, token=fleet.token)
            async with balanced(fleet, port), asyncio.TaskGroup() as group:
                group.create_task(load.run(options.callers, options.pause_ms / 1000))
                try:
                    rolled = await roll_all(fleet, options.seconds)
                finally:
                    load.stopping = True
        return verdict(fleet, load, rolled)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--pause-ms", type=int, default=1000, help="between two calls of one caller")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    result = asyncio.run(main(chosen))
    show(result, "Rolling everything under load", as_json=chosen.json)
    sys.exit(0 if all(line["met"] for line in result) else 1)
