"""What every generated file shares: it is written, or with ``--check`` only compared."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path


def write_or_check(page: Path, render: Callable[[], str], *, described: str | None, script: str) -> int:
    """Write the page or, with ``--check`` on the command line, say whether it is up to date.

    Args:
        page: the generated file.
        render: makes its whole text.
        described: what ``--help`` says.
        script: the program that makes the page, as it is typed in a shell.

    Returns:
        The exit status: 1 where the page is not up to date.
    """
    parser = argparse.ArgumentParser(description=described)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    check = parser.parse_args().check
    text = render()
    if not check:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
        return 0
    if page.is_file() and page.read_text(encoding="utf-8") == text:
        return 0
    print(f"{page.parent.name}/{page.name} is out of date; run python {script}", file=sys.stderr)
    return 1
