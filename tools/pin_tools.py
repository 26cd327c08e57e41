"""Writes sidecar/commands/pins.py from a ``tools/list`` of the MongoDB MCP server that the catalog was written for.

    python tools/pin_tools.py TOOLS.json     # {"version": …, "tools": [{"name", "inputSchema", …}, …]}

Pin again only together with the catalog: a new schema means that a reviewer has read what the tool now does, a new
description that a reviewer has read what a model is told. Members whose names begin with ``x-`` are notes of the
person who wrote the file.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "sidecar" / "commands" / "pins.py"
sys.path.insert(0, str(ROOT))

from sidecar.commands.pinning import fingerprint  # noqa: E402

HEADER = '''"""Fingerprints of the tools that the catalog was written for; written by tools/pin_tools.py."""

from collections.abc import Mapping
from typing import Final

SERVER: Final = "mongodb-mcp-server {version}"

PINS: Final[Mapping[str, str]] = {{
'''


def main() -> None:
    """Read the tools, write the module."""
    found = json.loads(Path(sys.argv[1]).read_text("utf-8"))  # noqa: TID251 - a file that the maintainer names
    tools = [{key: value for key, value in tool.items() if not key.startswith("x-")} for tool in found["tools"]]
    pins = {tool["name"]: fingerprint(tool) for tool in tools}
    lines = [f'    "{name}": "{pins[name]}",\n' for name in sorted(pins)]
    TARGET.write_text(HEADER.format(version=found["version"]) + "".join(lines) + "}\n", "utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(TARGET)], check=True)


if __name__ == "__main__":
    main()
