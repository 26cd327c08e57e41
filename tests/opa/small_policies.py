"""The rules of a policy set of a few lines, for staging faults."""

import json

DENY = {
    "v": 1,
    "allow": False,
    "reasons": [{"code": "no_route", "source": "platform", "access": None}],
    "server": "",
    "accesses": [],
    "approval": None,
    "revision": "",
}

MAIN = f"""package mcp.main

import data.mcp.platform.facts

decision := object.union({json.dumps(DENY)}, {{"revision": data.mcp.revision}})

selftest := facts.answer

default visibility := "small"

visibility := input.echo
"""

TEAM = """package mcp.teams.red

grant contains {"id": "g"} if input.access.kind == "read"
"""
