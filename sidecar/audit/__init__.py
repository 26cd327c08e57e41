"""Evidence as values: the records, the hash chain that links them, and the heads that are published of it."""

from sidecar.audit import chain, record
from sidecar.audit.canonical import canonical
from sidecar.audit.chain import BEGINNING, GENESIS, BrokenRecord, ChainFault, Verification, Walk
from sidecar.audit.checkpoint import (
    BadCheckpoint,
    BadKey,
    Checkpoint,
    CheckpointSignatures,
    CheckpointSigner,
    CheckpointVerifier,
    read_checkpoint,
)
from sidecar.audit.entry import AuditEntry, Unreadable, read_entry
from sidecar.audit.reading import AuditReader, HeldAgainst, ReadProgress, StoredChain
from sidecar.audit.selection import Needles, Selection, Verdict
from sidecar.audit.stretch import ProvenStretch, fit, prove
from sidecar.audit.survey import ChainFinding, ChainReport, Survey

__all__ = [
    "BEGINNING",
    "GENESIS",
    "AuditEntry",
    "AuditReader",
    "BadCheckpoint",
    "BadKey",
    "BrokenRecord",
    "ChainFault",
    "ChainFinding",
    "ChainReport",
    "Checkpoint",
    "CheckpointSignatures",
    "CheckpointSigner",
    "CheckpointVerifier",
    "HeldAgainst",
    "Needles",
    "ProvenStretch",
    "ReadProgress",
    "Selection",
    "StoredChain",
    "Survey",
    "Unreadable",
    "Verdict",
    "Verification",
    "Walk",
    "canonical",
    "chain",
    "fit",
    "prove",
    "read_checkpoint",
    "read_entry",
    "record",
]
