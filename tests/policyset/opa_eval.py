"""Queries that a real OPA evaluates by itself, ``opa eval``, to hold the sidecar's own reading of rules against."""

import json
import subprocess
from typing import Any, Final

import msgspec

PARSE: Final = "{f: m | some f, s in input; m := rego.parse_module(f, s)}"
"""The syntax trees of modules, by file, of their texts as input; a text that is no module is left out."""


def opa_eval(binary: str, query: str, document: Any, *options: str) -> Any:
    """Return what a query makes of an input; None if that is undefined, or OPA does not take what it is given."""
    command = [binary, "eval", "--format", "raw", "--stdin-input", *options, query]
    done = subprocess.run(command, input=json.dumps(document).encode(), capture_output=True, check=False)
    return msgspec.json.decode(done.stdout) if done.returncode == 0 and done.stdout.strip() else None
