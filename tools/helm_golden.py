"""Writes what the Helm chart makes of its example values: tests/deployment/golden, one file for each of ``ci/``.

``python tools/helm_golden.py`` writes them, which takes ``helm`` (``scripts/setup --nightly`` builds it). With
``--check`` it says whether they are up to date (exit status 1 if not): by the digest of the chart and the values, which
each file begins with, and where there is a ``helm``, by rendering them again.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "deploy/helm/mcp-sidecar"
GOLDEN: Final = ROOT / "tests/deployment/golden"
KUBERNETES: Final = "1.34.0"
"""The release whose kinds are rendered; a helm that was built with Go knows no other by itself."""


def examples() -> list[Path]:
    """Return the example values."""
    return sorted((CHART / "ci").glob("*-values.yaml"))


def golden_of(values: Path) -> Path:
    """Return where what the chart makes of them is kept."""
    return GOLDEN / values.name.replace("-values", "")


def digest_of(values: Path) -> str:
    """Return the digest of everything that the output depends on."""
    digest = hashlib.sha256()
    chart = (path for path in CHART.rglob("*") if path.is_file() and path.parent.name != "ci")
    for path in (*sorted(chart), values):
        digest.update(f"{path.relative_to(CHART)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def rendered(values: Path, *more: str) -> str:
    """Return what ``helm template`` prints.

    Raises:
        subprocess.CalledProcessError: it refuses the values.
    """
    command = ["helm", "template", "mcp", str(CHART), "--namespace", "mcp", "--kube-version", KUBERNETES]
    done = subprocess.run([*command, "--values", str(values), *more], check=True, capture_output=True, text=True)
    return "\n".join(line.rstrip() for line in done.stdout.split("\n"))


def _content(values: Path) -> str:
    return f"# chart: {digest_of(values)}\n{rendered(values)}"


def main(arguments: list[str]) -> int:
    """Write or check; return the exit status."""
    stale = []
    for values in examples():
        file = golden_of(values)
        if arguments == ["--check"]:
            kept = file.read_text() if file.exists() else ""
            same = kept.startswith(f"# chart: {digest_of(values)}\n")
            if not same or (shutil.which("helm") and kept != _content(values)):
                stale.append(file.name)
        else:
            file.write_text(_content(values))
    if stale:
        print(f"{', '.join(stale)}: run scripts/setup --nightly, then python tools/helm_golden.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
