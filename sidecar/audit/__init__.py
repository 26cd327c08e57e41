"""Evidence as values: the records and the hash chain that links them."""

from sidecar.audit import chain, record
from sidecar.audit.canonical import canonical
from sidecar.audit.chain import BEGINNING, GENESIS, BrokenRecord, ChainFault, Verification, Walk

__all__ = ["BEGINNING", "GENESIS", "BrokenRecord", "ChainFault", "Verification", "Walk", "canonical", "chain", "record"]
