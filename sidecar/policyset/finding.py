"""One finding on a policy set: what is wrong, where, and whether it keeps the set from being served."""

from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override


class Rule(StrEnum):
    """What can be wrong with a policy set."""

    TEAM_NAME = "team_name"
    FILE_NAME = "file_name"
    FILE = "file"
    SIZE = "size"
    MANIFEST = "manifest"
    DATA = "data"
    PACKAGE = "package"
    IMPORT = "import"
    REFERENCE = "reference"
    BUILTIN = "builtin"
    WITH = "with"
    SYNTAX = "syntax"
    DEPTH = "depth"
    COMPILE = "compile"
    TEST = "test"
    RESERVED = "reserved"
    NEGATED_CALL = "negated_call"
    ISSUER = "issuer"
    NAME = "name"
    PATTERN = "pattern"
    OWNER = "owner"
    MASK = "mask"


class Severity(StrEnum):
    """Whether a finding keeps the set from being served."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One finding, at one place."""

    file: str
    """POSIX path below the policy folder."""
    line: int
    """From 1; 1 also where the file as a whole is meant."""
    rule: Rule
    message: str
    severity: Severity = Severity.ERROR

    @override
    def __str__(self) -> str:
        """Return ``file:line: message``, as compilers do, so that editors find the place."""
        return f"{self.file}:{self.line}: {self.message}"
