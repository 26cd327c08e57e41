"""Where audit records and suspensions are kept."""

from sidecar.store.file import FileAuditSink
from sidecar.store.suspensions import FileSuspensions, guard

__all__ = ["FileAuditSink", "FileSuspensions", "guard"]
