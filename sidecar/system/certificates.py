"""Certificates of peers, as TLS verified them: their subjects as text, and their thumbprints."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Final

_SPECIAL: Final = re.compile(r"[,+\\]")
_ESCAPED: Final = r"\\\g<0>"


def subject_of(certificate: Mapping[str, object]) -> str:
    """Return a certificate's subject as text, in its own order: ``organizationName=Example,commonName=ann``.

    A comma, plus sign or backslash of a value is written with a backslash before it (RFC 4514 section 2.4), so that no
    value reads as two.

    Args:
        certificate: as ``ssl.SSLSocket.getpeercert`` describes it.
    """
    names = certificate.get("subject")
    if not isinstance(names, tuple):
        return ""
    return ",".join("+".join(f"{kind}={_SPECIAL.sub(_ESCAPED, value)}" for kind, value in group) for group in names)


def thumbprint_of(der: bytes) -> str:
    """Return ``x5t#S256`` of a certificate (RFC 8705 section 3.1)."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
