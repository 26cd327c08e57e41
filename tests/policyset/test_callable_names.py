"""What a team may call is a list of what is allowed: for a folder, for an archive, and for what an OPA runs."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from sidecar.opa.external_inventory import BUNDLES, MODULES, read_inventory, violations
from sidecar.policyset import bundle_writer
from sidecar.policyset.bundle_reader import read_archives
from sidecar.policyset.callable_names import CALLABLE, CLOSED
from sidecar.policyset.finding import Rule
from sidecar.policyset.workshop import examine, examine_set
from tests import parts
from tests.opa.outside import Outside, process, wait_until
from tests.patience import HANG_S

pytestmark = pytest.mark.real

Write = Callable[[str, str], Path]

HEAD = "package mcp.teams.red\n\n"
CAPABILITIES = parts.ROOT / "policies" / "capabilities.json"
MADE_UP = ("made_up", "made.up", "http.post", "net.cidr_sum", "strings.repeat", "data_of", "json.match", "input_of")
"""No builtins of any OPA so far."""
HOSTILE = (*sorted(CLOSED), *MADE_UP)

DEPRECATED = {"all", "any", "cast_array", "cast_boolean", "cast_null", "cast_object", "cast_set", "cast_string"}
NEVER_RUN = DEPRECATED | {
    *("re_match", "set_diff", "net.cidr_overlap"),  # Rego v1 does not compile deprecated ones
    *("print", "internal.print"),  # erased where nothing prints
    "internal.test_case",  # has no value
    *("rego.metadata.chain", "rego.metadata.rule"),  # replaced by what they say of the module itself
}


def builtins(opa_binary: str) -> dict[str, int]:
    """Every builtin of the pinned OPA, and how many arguments it takes."""
    done = subprocess.run([opa_binary, "capabilities", "--current"], check=True, capture_output=True)
    return {one["name"]: len(one["decl"].get("args", [])) for one in msgspec.json.decode(done.stdout)["builtins"]}


def calling(names: dict[str, int]) -> str:
    """A module that calls each on a line of its own, from the third on."""
    calls = [f"{name}({', '.join(['input.x'] * count)})" for name, count in names.items()]
    return HEAD + "".join(f"p{number} := {call}\n" for number, call in enumerate(calls))


# --- the list ---------------------------------------------------------------------------------------------------------


def test_every_builtin_of_the_pinned_opa_was_judged(opa_binary: str) -> None:
    assert builtins(opa_binary).keys() == CALLABLE | CLOSED.keys()
    assert not CALLABLE & CLOSED.keys()


def test_the_capabilities_that_are_shipped_are_the_names_that_are_callable() -> None:
    # internal.test_case is what OPA's compiler makes of tests with cases; a set is checked and tested with this list.
    listed = {one["name"] for one in msgspec.json.decode(CAPABILITIES.read_bytes())["builtins"]}
    assert listed == CALLABLE | {"internal.test_case"}


# --- a folder, an archive, a running OPA ------------------------------------------------------------------------------


async def test_no_closed_and_no_made_up_builtin_is_called_in_a_folder(
    policies: Path, team_file: Write, opa_binary: str
) -> None:
    team_file("more.rego", calling(dict.fromkeys(HOSTILE, 1)))
    found = await examine(policies, opa_binary)
    assert {(one.file, one.line, one.rule) for one in found} == {
        ("teams/red/more.rego", line, Rule.BUILTIN) for line in range(3, 3 + len(HOSTILE))
    }
    assert all(f"{name} is not open to teams" in one.message for name, one in zip(HOSTILE, found, strict=True))


async def test_no_closed_and_no_made_up_builtin_is_called_in_an_archive(
    policies: Path, tmp_path: Path, opa_binary: str
) -> None:
    manifest = {"roots": ["mcp/teams/red", "mcp/grants/red"], "rego_version": 1}
    text = calling(dict.fromkeys(HOSTILE, 1))
    archive = tmp_path / "red.tar.gz"
    archive.write_bytes(
        bundle_writer.archive([(".manifest", json.dumps(manifest).encode()), ("x_test.rego", text.encode())])
    )
    found = await examine_set(read_archives([archive], policies).policies, opa_binary)
    lines = {one.line for one in found if one.rule is Rule.BUILTIN}
    assert lines == set(range(3, 3 + len(HOSTILE)))


async def test_no_closed_builtin_is_called_in_a_running_opa(policies: Path, team_file: Write, opa_binary: str) -> None:
    arities = builtins(opa_binary)
    run = {name: arities[name] for name in CLOSED if name not in NEVER_RUN}
    assert len(run) > 50
    team_file("more.rego", calling(run))
    port = parts.free_port()
    with process(opa_binary, port, "-b", "platform", "system", "teams/red", "teams/blue", cwd=policies) as url:
        await asyncio.to_thread(wait_until, Outside(url=url, folder=policies).listens, "OPA to answer")
        running = read_inventory(await fetched(f"{url}/{BUNDLES}"), await fetched(f"{url}/{MODULES}"))
    found = violations(running)
    said = {match[1] for one in found if (match := re.match(r"(\S+) is not open to teams", one.message))}
    assert said == run.keys()
    assert all(one.file.endswith("red/more.rego") for one in found)


async def fetched(url: str) -> bytes:
    def get() -> bytes:
        with urlopen(url, timeout=HANG_S) as response:  # noqa: S310 - our own process
            body: bytes = response.read()
            return body

    return await asyncio.to_thread(get)


# --- the ways to call -------------------------------------------------------------------------------------------------

CALLS = {
    "by quoted steps": 'p := made["up"](1)\n',
    "in a statement": "p if made.up(1)\n",
    "negated": "p if not made.up(1)\n",
    "as an argument": "p := count(made.up(1))\n",
    "in a key": "p := {made.up(1): 1}\n",
    "in the head": "p[made.up(1)] := 1\n",
    "in what a set contains": "p contains made.up(1)\n",
    "in else": "p if input.x\nelse := made.up(1)\n",
    "with a step behind it": "p := made.up(1).x\n",
    "as a step": "p := input[made.up(1)]\n",
    "in a text": 'p := $"{made.up(1)}"\n',
    "in some": "p if {\n\tsome x in made.up(1)\n}\n",
    "in every": "p if {\n\tevery x in made.up(1) {\n\t\tx\n\t}\n}\n",
    "within every": "p if {\n\tevery x in input.x {\n\t\tmade.up(x)\n\t}\n}\n",
    "in a comprehension": "p := {x | x := made.up(1)}\n",
    "in a comprehension of a comprehension": "p := {x: [y | y := made.up(x)] | some x in input.x}\n",
    "in a function": "f(x) := made.up(x)\n",
    "by a name that is another rule's step": "made.down := 1\n\np := made.up(1)\n",
    "by a name that is a value": "made := 1\n\np := made(1)\n",
    "below the name of an import of input": "import input.made\n\np := made.up(1)\n",
    "of input": "p := input.up(1)\n",
    "by a name from the input": "p := made[input.x](1)\n",
    "of a constant": 'p := ["made"][0].up(1)\n',
    "of another team": "p := data.mcp.teams.blue.f(1)\n",
    "of the platform": "p := data.mcp.platform.names.matches(1, 2)\n",
    "of the library, half in quotes, from above": 'p := data.mcp["platform"].terms.sound_grant(1)\n',
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_is_refused_wherever_it_stands(
    policies: Path, team_file: Write, opa_binary: str, name: str
) -> None:
    team_file("more.rego", HEAD + CALLS[name])
    rules = {one.rule for one in await examine(policies, opa_binary)}
    assert rules & {Rule.BUILTIN, Rule.REFERENCE}, rules


FINE = {
    "the library": "import data.mcp.lib\n\np if lib.on(input.x, input.y)\n",
    "the library by another name": "import data.mcp.lib as http\n\np if http.on(input.x, input.y)\n",
    "a function of the library": "import data.mcp.lib.on\n\np if on(input.x, input.y)\n",
    "the library in full": 'p if data.mcp.lib["on"](input.x, input.y)\n',
    "its own function": "f(x) := x\n\np := f(1)\n",
    "its own with steps": "made.up(x) := x\n\np := made.up(1)\n",
    "its own, called like a builtin": "trace(x) := x\n\np := trace(1)\n",
    "its own, of another package": "import data.mcp.teams.red.more\n\np := more.g(1)\n",
    "its own, by default only": "default f(_) := 1\n\np := f(1)\n",
    "its own, of another file": "p := shared(1)\n",
    "operators": "p if {\n\tsome x in input.x\n\t(x + 1) * 2 != 3 % 4\n\t{x} & {1} == {1} | {2}\n\tx - 1 < 7 / 2\n}\n",
}


@pytest.mark.parametrize("name", FINE)
async def test_what_is_open_is_called(policies: Path, team_file: Write, opa_binary: str, name: str) -> None:
    team_file("shared.rego", HEAD + "shared(x) := x\n")
    team_file("more/more.rego", "package mcp.teams.red.more\n\ng(x) := x\n")
    team_file("more.rego", HEAD + FINE[name])
    assert await examine(policies, opa_binary) == []


async def test_what_only_a_test_defines_is_not_served(policies: Path, team_file: Write, opa_binary: str) -> None:
    team_file("policy_test.rego", HEAD + "shared(x) := x\n\ntest_it if shared(true)\n")
    assert await examine(policies, opa_binary) == []
    team_file("more.rego", HEAD + "p := shared(1)\n")
    [found] = await examine(policies, opa_binary)
    assert (found.file, found.line, found.rule) == ("teams/red/more.rego", 3, Rule.BUILTIN)


REPLACEMENTS = {
    "a builtin": ("upper(1) == 1 with upper as http.send", [Rule.BUILTIN]),
    "a builtin by quoted steps": ('upper(1) == 1 with upper as http["send"]', [Rule.BUILTIN]),
    "a function of its own": ("upper(1) == 1 with upper as mock", []),
    "what is replaced": ("f(1) == 1 with http.send as 1", []),
    "a call": ("f(1) == 1 with input as http.send(1)", [Rule.BUILTIN]),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
async def test_a_function_is_replaced_by_what_may_be_called(
    policies: Path, team_file: Write, opa_binary: str, name: str
) -> None:
    text, rules = REPLACEMENTS[name]
    team_file("policy_test.rego", f"{HEAD}f(x) := x\n\nmock(_) := 1\n\ntest_it if {text}\n")
    assert [one.rule for one in await examine(policies, opa_binary)] == rules


# --- the platform's ids -----------------------------------------------------------------------------------------------

IDS: dict[str, tuple[str, str, Any]] = {
    "in a grant": ("more.rego", HEAD + 'grant contains {"id": "platform.view-alone"}\n', 3),
    "beside parts": ("more.rego", HEAD + 'grant contains {"mask": {"a"}, "id": "platform."} if input.x\n', 3),
    "in a variable": ("more.rego", HEAD + 'g := {"id": "platform.x"}\n\ngrant contains g\n', 3),
    "in data": ("data.json", '{"mcp": {"grants": {"red": {"all": [{"x": 1}, {"id": "platform.x"}]}}}}', 1),
    "near": ("more.rego", HEAD + 'grant contains {"id": "platforms.x"}\n', None),
    "within": ("more.rego", HEAD + 'grant contains {"id": "x.platform."}\n', None),
    "as another part": ("more.rego", HEAD + 'p := {"ids": "platform.x", "platform.x": "id"}\n', None),
    "near in data": ("data.json", '{"mcp": {"grants": {"red": {"id": "platform", "x": "platform.x"}}}}', None),
}


@pytest.mark.parametrize("name", IDS)
async def test_an_id_of_the_platforms_is_nobody_elses(
    policies: Path, team_file: Write, opa_binary: str, name: str
) -> None:
    file, text, line = IDS[name]
    team_file(file, text)
    found = [(one.file, one.line, one.rule) for one in await examine(policies, opa_binary)]
    assert found == ([] if line is None else [(f"teams/red/{file}", line, Rule.RESERVED)])
