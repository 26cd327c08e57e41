"""What the doctor can find, and how a finding is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sidecar.model import JsonObject


class Check(StrEnum):
    """The kinds of findings, by the code that ``--json`` and ``--accept`` use."""

    NO_DATABASE_USER = "no_database_user"
    PRIVILEGES_UNREADABLE = "privileges_unreadable"
    ANY_RESOURCE = "any_resource"
    CLUSTER_ACTIONS = "cluster_actions"
    SYSTEM_DATABASES = "system_databases"
    STORE_WITHIN_REACH = "store_within_reach"
    READ_ONLY_CAN_WRITE = "read_only_can_write"
    MORE_THAN_POLICY = "more_than_policy"
    DATABASE_VERSION = "database_version"
    POLICY_UNREADABLE = "policy_unreadable"
    UNPINNED_COMMAND = "unpinned_command"
    SERVER_VERSION = "server_version"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_WITHOUT_SECRET = "server_without_secret"  # noqa: S105 - a code
    SERVER_EXPOSED = "server_exposed"
    READ_ONLY_HAS_WRITING_TOOLS = "read_only_has_writing_tools"
    SECRET_ON_COMMAND_LINE = "secret_on_command_line"  # noqa: S105 - a code
    SECRET_IN_ENVIRONMENT = "secret_in_environment"  # noqa: S105 - a code
    SECRET_READABLE = "secret_readable"  # noqa: S105 - a code
    WRITABLE_BY_OTHERS = "writable_by_others"
    EVIDENCE_READABLE = "evidence_readable"
    EVIDENCE_CHANGEABLE = "evidence_changeable"
    EVIDENCE_UNREADABLE = "evidence_unreadable"
    HEADS_UNSIGNED = "heads_unsigned"
    HEADS_UNPUBLISHED = "heads_unpublished"
    INSECURE_CONNECTION = "insecure_connection"
    CERTIFICATE_EXPIRES = "certificate_expires"
    PUBLIC_BINDING = "public_binding"
    OPA_VERSION = "opa_version"
    OPA_UNREACHABLE = "opa_unreachable"
    OPA_OPEN = "opa_open"
    CLOCK = "clock"
    ISSUER_UNREACHABLE = "issuer_unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostureFinding:
    """One thing that is not as it should be."""

    check: Check
    where: str
    """The setting or the part that it is about."""
    what: str
    fix: str
    """A command, or a line of settings."""

    def document(self) -> JsonObject:
        """Return it as JSON."""
        return {"check": self.check.value, "where": self.where, "what": self.what, "fix": self.fix}

    def is_accepted(self, accepted: Sequence[str]) -> bool:
        """Whether the operator accepts it: by its check, or by check and place (``CHECK:PLACE``)."""
        return self.check.value in accepted or f"{self.check.value}:{self.where}" in accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class Posture:
    """What was found of a deployment."""

    findings: tuple[PostureFinding, ...]
    accepted: tuple[PostureFinding, ...]
    """What the operator accepts: it is listed, and is no fault."""
    insecure: tuple[str, ...]
    """Connections without verified TLS that the settings name."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that is not accepted."""
        return not self.findings

    def document(self) -> JsonObject:
        """Return it as JSON."""
        return {
            "ok": self.ok,
            "findings": [one.document() for one in self.findings],
            "accepted": [one.document() for one in self.accepted],
            "insecure_connections": [*self.insecure],
        }
