"""The sidecar in front of the fixture server, with policies that let the suite's caller use all of it."""

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from sidecar.commands import pinning
from sidecar.demo.identities import Person
from sidecar.model import JsonObject
from sidecar.upstream.process import StdioUpstream
from tests import parts
from tests.integration.deployment import Deployment, deployed, search_path

FIXTURE = Path(__file__).with_name("fixture.py")
RESOURCES = (
    ("test://static-text", "static_text", "text/plain"),
    ("test://static-binary", "static_binary", "image/png"),
    ("test://template/{id}/data", "template", "text/plain"),
    ("test://watched-resource", "watched_resource", "text/plain"),
)
CALLER = Person(user="conny", agent="conformance-suite", groups=("conformance",), scopes=("mongodb:admin",))


async def _offered() -> tuple[tuple[JsonObject, ...], tuple[JsonObject, ...]]:
    """Return the tools and the prompts of the fixture."""
    upstream = StdioUpstream("fixture", [sys.executable, str(FIXTURE)], {"PATH": search_path()}, timeout_s=30)
    await upstream.start()
    try:
        return await upstream.tools(), await upstream.prompts()
    finally:
        await upstream.stop()


def policies_in(folder: Path) -> Path:
    """Write the shipped platform without its teams, with tables that open the fixture to the suite's caller."""
    shipped = parts.ROOT / "policies"
    copy = Path(shutil.copytree(shipped, folder / "policies", ignore=shutil.ignore_patterns("teams", "cases")))
    file = copy / "platform/data.json"
    tables: dict[str, Any] = msgspec.json.decode(file.read_bytes())
    everything: dict[str, Any] = {"kinds": ["execute"], "servers": ["*"], "deployments": ["*"]}
    held = {"owner": "platform", "delegated": [{"kinds": ["execute"], "collections": [""]}], "obligations": []}
    tables["mcp"]["platform"] |= {
        "servers": {"fixture": {"deployment": "fixture"}},
        "routes": [
            {
                "id": "conformance",
                "groups": ["conformance"],
                "agents": ["*"],
                "scopes": ["*"],
                "kinds": ["execute"],
                "server": "fixture",
            }
        ],
        "deployments": {
            "fixture": {
                "databases": {},
                "prefixes": {},
                "targets": dict.fromkeys(("tool", "prompt", "resource", "question"), held),
            }
        },
        "grants": [
            {
                "id": "conformance",
                "groups": ["conformance"],
                "kinds": ["execute"],
                "deployments": ["*"],
                "databases": [""],
                "collections": [""],
            }
        ],
        "agents": {"default": everything, "registered": {}},
        "refused_kinds": [],
        "windows": [],
        "break_glass": [],
    }
    file.write_bytes(msgspec.json.encode(tables))
    return copy


def _named(group: str, entries: tuple[JsonObject, ...]) -> str:
    return "".join(
        f'[[servers.{group}]]\nname = "{entry["name"]}"\nsha256 = "{pinning.fingerprint(entry)}"\n' for entry in entries
    )


def _servers(url: str) -> str:
    tools, prompts = asyncio.run(_offered())
    child = f'command = {json.dumps([sys.executable, str(FIXTURE)])}\nconnection_string = "mongodb://127.0.0.1:1/"'
    resources = "".join(
        f'[[servers.generic_resources]]\nuri = "{uri}"\nname = "{name}"\nmime_type = "{mime_type}"\n'
        for uri, name, mime_type in RESOURCES
    )
    asks = 'server_questions = ["elicitation", "sampling", "roots"]\n' if url else ""
    return f"""
[[servers]]
name = "fixture"
{f"url = {json.dumps(url)}" if url else child}
timeout_ms = 20000
{asks}{_named("generic_tools", tools)}{_named("generic_prompts", prompts)}{resources}"""


@contextmanager
def sidecar(folder: Path, *, url: str = "", further_hosts: tuple[str, ...] = ()) -> Iterator[Deployment]:
    """Run a sidecar in front of the fixture: of a child, or of the one at ``url``."""
    with deployed(
        folder,
        "mongodb://127.0.0.1:1/",
        policies=policies_in(folder),
        servers=_servers(url),
        extra=f"allowed_hosts = {json.dumps(further_hosts)}" if further_hosts else "",
    ) as running:
        yield running
