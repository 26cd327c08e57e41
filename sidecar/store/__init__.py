"""Where audit records are kept."""

from sidecar.store.file import FileAuditSink

__all__ = ["FileAuditSink"]
