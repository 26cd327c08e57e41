"""A checkpoint: the head of a chain, published outside its file, so that a cut at the end shows.

A chain proves everything before its last record and nothing about what came after (``chain``). A checkpoint says that a
record with this number and hash was stored. Signed (Ed25519, RFC 8032), it also proves that the holder of the key said
so: then a chain can begin at it, with the files before it archived elsewhere.

What is signed is ``_CONTEXT`` and the canonical JSON of the checkpoint without its signature: the context keeps a
signature of this key over anything else from being one of a checkpoint.
"""

import base64
import binascii
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.audit.canonical import canonical
from sidecar.model import JsonObject

_CONTEXT: Final = b"mcp-sidecar audit checkpoint 1\n"


class BadCheckpoint(ValueError):
    """What was read is no checkpoint, or its signature does not hold. The message says which."""


class BadKey(ValueError):
    """A file of a key holds something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One published head."""

    seq: int
    head: str
    time: str
    """When the record of that number was made (RFC 3339)."""
    why: str
    """``periodic``, ``rotation``, ``start`` or ``end``."""
    key: str = ""
    """Digest of the public key; empty where the checkpoint is not signed."""
    signature: str = ""
    """Base64."""

    def document(self) -> JsonObject:
        """Render it as JSON, as it is logged and kept."""
        signed: JsonObject = {"key": self.key, "signature": self.signature} if self.signature else {}
        return {"v": 1, "seq": self.seq, "head": self.head, "time": self.time, "why": self.why, **signed}


class _KeptCheckpoint(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    seq: int
    head: str
    time: str
    why: str
    key: str = ""
    signature: str = ""


class CheckpointSigner:
    """Signs checkpoints with one private key.

    Args:
        pem: an Ed25519 private key, PEM (PKCS #8), not encrypted.

    Raises:
        BadKey: it is something else.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError):
            raise BadKey("not an unencrypted private key (PEM); make one: openssl genpkey -algorithm ed25519") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey("not an Ed25519 key; make one: openssl genpkey -algorithm ed25519")
        self._key = key
        self._name = key_digest(key.public_key())

    def sign(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with this key's signature."""
        signature = self._key.sign(_signed(checkpoint, self._name))
        return replace(checkpoint, key=self._name, signature=base64.b64encode(signature).decode())


class CheckpointVerifier:
    """Checks signatures with one public key.

    Args:
        pem: an Ed25519 public key, PEM.

    Raises:
        BadKey: it is something else.
    """

    def __init__(self, pem: bytes) -> None:
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, TypeError):
            raise BadKey("not a public key (PEM); openssl pkey -pubout makes it of the private one") from None
        if not isinstance(key, Ed25519PublicKey):
            raise BadKey("not an Ed25519 key")
        self._key = key
        self._name = key_digest(key)

    def require(self, checkpoint: Checkpoint) -> None:
        """Return if the checkpoint has this key's signature.

        Raises:
            BadCheckpoint: it has none, another key's, or one that does not hold.
        """
        if not checkpoint.signature:
            raise BadCheckpoint("the checkpoint is not signed")
        if checkpoint.key != self._name:
            raise BadCheckpoint("the checkpoint is signed with another key")
        try:
            self._key.verify(base64.b64decode(checkpoint.signature, validate=True), _signed(checkpoint, self._name))
        except (InvalidSignature, binascii.Error):
            raise BadCheckpoint("the signature of the checkpoint does not hold") from None


def read_checkpoint(text: bytes) -> Checkpoint:
    """Read a checkpoint as it is kept and logged; its signature is not checked here.

    Raises:
        BadCheckpoint: it is none.
    """
    try:
        found = msgspec.json.decode(text, type=_KeptCheckpoint)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise BadCheckpoint("not a checkpoint") from None
    if found.v != 1 or found.seq < 0 or len(found.head) != sha256().digest_size * 2:
        raise BadCheckpoint("not a checkpoint")
    return Checkpoint(
        seq=found.seq, head=found.head, time=found.time, why=found.why, key=found.key, signature=found.signature
    )


def key_digest(key: Ed25519PublicKey) -> str:
    """Return 16 hexadecimal digits that name a public key."""
    return sha256(key.public_bytes_raw()).hexdigest()[:16]


def _signed(checkpoint: Checkpoint, key: str) -> bytes:
    return _CONTEXT + canonical({**replace(checkpoint, signature="").document(), "key": key})


def signature_fault(checkpoint: Checkpoint, verifier: CheckpointVerifier | None) -> str:
    """Return what is wrong with the signature of a checkpoint; empty where it holds, or no key is there to tell."""
    if verifier is None:
        return ""
    try:
        verifier.require(checkpoint)
    except BadCheckpoint as bad:
        return str(bad)
    return ""
