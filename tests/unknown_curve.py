"""Keys of a curve that the cryptography library does not have: well-formed PEM that it refuses in a way of its own."""

import base64
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

_P256: Final = bytes.fromhex("06082a8648ce3d030107")
_SM2: Final = bytes.fromhex("06082a811ccf5501822d")
"""The object identifiers (RFC 5480 section 2.1.1.1, GM/T 0006)."""


def private_key() -> bytes:
    """Return a private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _of_that_curve("PRIVATE KEY", key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def public_key() -> bytes:
    """Return a public key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return _of_that_curve("PUBLIC KEY", key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _of_that_curve(label: str, der: bytes) -> bytes:
    text = base64.encodebytes(der.replace(_P256, _SM2)).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()
