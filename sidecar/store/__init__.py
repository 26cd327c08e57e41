"""Where audit records, suspensions and approvals are kept."""

from sidecar.store.approvals import FileApprovals
from sidecar.store.audit_reader import FileAuditReader
from sidecar.store.checkpoints import signer_of
from sidecar.store.file import AuditSync, FileAuditSink, Rotation
from sidecar.store.mongodb.approvals import MongoApprovals
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.counters import MongoCounters
from sidecar.store.mongodb.ended import MongoEndedSessions
from sidecar.store.mongodb.marks import MongoMarks, SharedProofs, SharedStates
from sidecar.store.mongodb.suspensions import MongoSuspensions
from sidecar.store.session_keys import SessionKeyFile
from sidecar.store.suspensions import FileSuspensions, guard

__all__ = [
    "AuditSync",
    "FileApprovals",
    "FileAuditReader",
    "FileAuditSink",
    "FileSuspensions",
    "MongoApprovals",
    "MongoCounters",
    "MongoEndedSessions",
    "MongoMarks",
    "MongoStore",
    "MongoSuspensions",
    "Rotation",
    "SessionKeyFile",
    "SharedProofs",
    "SharedStates",
    "guard",
    "signer_of",
]
