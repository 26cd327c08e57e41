"""The tests' own syntax trees, read once and by those tests only that look at them: not by each that is collected."""

import ast
from functools import cache

from tests.parts import ROOT


@cache
def trees() -> dict[str, ast.Module]:
    """Return the tree of each file below ``tests/``, by its path from the repository's root."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in files}
