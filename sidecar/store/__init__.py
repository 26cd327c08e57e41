"""Where audit records, suspensions and approvals are kept."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.store.approvals import FileApprovals
    from sidecar.store.audit_reader import FileAuditReader
    from sidecar.store.audit_spool import AuditSpool, WaitingRecords
    from sidecar.store.checkpoints import SigningKeyFile
    from sidecar.store.file import AuditSync, FileAuditSink, Rotation
    from sidecar.store.mongodb.approvals import MongoApprovals
    from sidecar.store.mongodb.audit_chain import evidence_fault
    from sidecar.store.mongodb.audit_founding import found_evidence, role_of_writer
    from sidecar.store.mongodb.audit_heads import MongoHeads
    from sidecar.store.mongodb.audit_reader import MongoAuditReader
    from sidecar.store.mongodb.audit_sink import MongoAuditSink
    from sidecar.store.mongodb.connection import MongoStore
    from sidecar.store.mongodb.counters import MongoCounters
    from sidecar.store.mongodb.ended import MongoEndedSessions
    from sidecar.store.mongodb.marks import MongoMarks, SharedProofs, SharedStates
    from sidecar.store.mongodb.suspensions import MongoSuspensions
    from sidecar.store.policy_sets import KeptPolicySets, policy_sets_of
    from sidecar.store.published import PublishedHeads, heads_of_collection, heads_of_file
    from sidecar.store.session_keys import SessionKeyFile
    from sidecar.store.spool_reader import SpoolReader
    from sidecar.store.suspensions import FileSuspensions, guard
else:
    __getattr__ = by_need(
        __name__,
        {
            "AuditSpool": "audit_spool",
            "AuditSync": "file",
            "FileApprovals": "approvals",
            "FileAuditReader": "audit_reader",
            "FileAuditSink": "file",
            "FileSuspensions": "suspensions",
            "KeptPolicySets": "policy_sets",
            "MongoApprovals": "mongodb.approvals",
            "MongoAuditReader": "mongodb.audit_reader",
            "MongoAuditSink": "mongodb.audit_sink",
            "MongoCounters": "mongodb.counters",
            "MongoEndedSessions": "mongodb.ended",
            "MongoHeads": "mongodb.audit_heads",
            "MongoMarks": "mongodb.marks",
            "MongoStore": "mongodb.connection",
            "MongoSuspensions": "mongodb.suspensions",
            "PublishedHeads": "published",
            "Rotation": "file",
            "SessionKeyFile": "session_keys",
            "SharedProofs": "mongodb.marks",
            "SharedStates": "mongodb.marks",
            "SigningKeyFile": "checkpoints",
            "SpoolReader": "spool_reader",
            "WaitingRecords": "audit_spool",
            "evidence_fault": "mongodb.audit_chain",
            "found_evidence": "mongodb.audit_founding",
            "guard": "suspensions",
            "heads_of_collection": "published",
            "heads_of_file": "published",
            "policy_sets_of": "policy_sets",
            "role_of_writer": "mongodb.audit_founding",
        },
    )

__all__ = [
    "AuditSpool",
    "AuditSync",
    "FileApprovals",
    "FileAuditReader",
    "FileAuditSink",
    "FileSuspensions",
    "KeptPolicySets",
    "MongoApprovals",
    "MongoAuditReader",
    "MongoAuditSink",
    "MongoCounters",
    "MongoEndedSessions",
    "MongoHeads",
    "MongoMarks",
    "MongoStore",
    "MongoSuspensions",
    "PublishedHeads",
    "Rotation",
    "SessionKeyFile",
    "SharedProofs",
    "SharedStates",
    "SigningKeyFile",
    "SpoolReader",
    "WaitingRecords",
    "evidence_fault",
    "found_evidence",
    "guard",
    "heads_of_collection",
    "heads_of_file",
    "policy_sets_of",
    "role_of_writer",
]
