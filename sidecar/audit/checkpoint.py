"""A checkpoint: the head of a chain, published outside its file, so that a cut at the end shows.

A chain proves everything before its last record and nothing about what came after (``chain``). A checkpoint says that a
record with this number and hash was stored. Signed (Ed25519, RFC 8032), it also proves that the holder of the key said
so: then a chain can begin at it, with the files before it archived elsewhere.

What is signed is ``_CONTEXT`` and the canonical JSON of the checkpoint without its signature: the context keeps a
signature of this key over anything else from being one of a checkpoint.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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
    """Signs checkpoints with one private key at a time.

    Args:
        pem: an Ed25519 private key, PEM (PKCS #8), not encrypted.

    Raises:
        BadKey: it is something else.
    """

    def __init__(self, pem: bytes) -> None:
        self.take_up(pem)

    def take_up(self, pem: bytes) -> None:
        """Sign with another key from now on.

        Raises:
            BadKey: it is none; nothing changes.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("not an unencrypted private key (PEM); make one: openssl genpkey -algorithm ed25519") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise BadKey("not an Ed25519 key; make one: openssl genpkey -algorithm ed25519")
        self._key = key, key_digest(key.public_key())

    def sign(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return the checkpoint with this key's signature."""
        key, name = self._key
        signature = key.sign(_signed(checkpoint, name))
        return replace(checkpoint, key=name, signature=base64.b64encode(signature).decode())


class CheckpointVerifier:
    """Checks signatures with public keys that replaced each other.

    Args:
        pems: Ed25519 public keys, PEM, in the order in which they were used.

    Raises:
        BadKey: one is something else.
    """

    def __init__(self, *pems: bytes) -> None:
        self._keys = {key_digest(key): key for key in map(_public_key, pems)}

    def require(self, checkpoint: Checkpoint) -> None:
        """Return if the checkpoint has the signature of one of the keys.

        Raises:
            BadCheckpoint: it has none, another key's, or one that does not hold.
        """
        if not checkpoint.signature:
            raise BadCheckpoint("the checkpoint is not signed")
        key = self._keys.get(checkpoint.key)
        if key is None:
            raise BadCheckpoint("the checkpoint is signed with another key")
        try:
            key.verify(base64.b64decode(checkpoint.signature, validate=True), _signed(checkpoint, checkpoint.key))
        except (InvalidSignature, binascii.Error):
            raise BadCheckpoint("the signature of the checkpoint does not hold") from None

    def replaced(self, checkpoints: Iterable[Checkpoint]) -> Mapping[str, int]:
        """Return at which record each key was replaced: the first that a later one signed. The last has none."""
        first: dict[str, int] = {}
        for each in checkpoints if len(self._keys) > 1 else ():
            if not _fault(each, self):
                first[each.key] = min(each.seq, first.get(each.key, each.seq))
        names = [*self._keys]
        return {
            name: min(later)
            for place, name in enumerate(names, start=1)
            if (later := [first[one] for one in names[place:] if one in first])
        }


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("not a public key (PEM); openssl pkey -pubout makes it of the private one") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey("not an Ed25519 key")
    return key


class CheckpointSignatures:
    """The signatures of all checkpoints of one chain, looked at together.

    A key that was replaced signs nothing behind the first checkpoint of the next one. So a thief of an old key in a
    backup cannot publish heads of today with it.

    Args:
        checkpoints: those of the chain.
        verifier: the keys; None: no signature is looked at.
    """

    def __init__(self, checkpoints: Iterable[Checkpoint], verifier: CheckpointVerifier | None) -> None:
        self._verifier = verifier
        self._replaced = {} if verifier is None else verifier.replaced(checkpoints)

    def fault(self, checkpoint: Checkpoint) -> str:
        """Return what is wrong with one; empty where its signature holds, or no key is there to tell."""
        if self._verifier is None:
            return ""
        at = self._replaced.get(checkpoint.key)
        if at is not None and checkpoint.seq > at:
            return f"the checkpoint is signed with a key that was replaced at record {at}"
        return _fault(checkpoint, self._verifier)


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


def _fault(checkpoint: Checkpoint, verifier: CheckpointVerifier) -> str:
    try:
        verifier.require(checkpoint)
    except BadCheckpoint as bad:
        return str(bad)
    return ""
