"""Where audit records, suspensions and approvals are kept."""

from sidecar.store.approvals import FileApprovals
from sidecar.store.file import FileAuditSink
from sidecar.store.mongodb.approvals import MongoApprovals
from sidecar.store.mongodb.connection import MongoStore
from sidecar.store.mongodb.counters import MongoCounters
from sidecar.store.mongodb.ended import MongoEndedSessions
from sidecar.store.mongodb.marks import MongoMarks, SharedProofs, SharedStates
from sidecar.store.mongodb.suspensions import MongoSuspensions
from sidecar.store.session_keys import SessionKeyFile
from sidecar.store.suspensions import FileSuspensions, guard

__all__ = [
    "FileApprovals",
    "FileAuditSink",
    "FileSuspensions",
    "MongoApprovals",
    "MongoCounters",
    "MongoEndedSessions",
    "MongoMarks",
    "MongoStore",
    "MongoSuspensions",
    "SessionKeyFile",
    "SharedProofs",
    "SharedStates",
    "guard",
]
