"""What a token is bound to: the claim ``cnf`` (RFC 7800 section 3.1), with the two methods that are checked here.

A token is bound to a key of the client (``jkt``, RFC 9449 section 6.1) or to its certificate (``x5t#S256``, RFC 8705
section 3.1). Whichever it is, an issuer's settings say whether its tokens may or must be. A token that names anything
else, or both at once, is good for nobody: a check that is not made must not look as if it had been.
"""

import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.model import JsonObject

_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
"""A SHA-256 in base64url without padding: RFC 7638 section 3, RFC 8705 section 3.1."""
_KEY: Final = "jkt"
_CERTIFICATE: Final = "x5t#S256"


class Binding(StrEnum):
    """Whether an issuer's tokens may, or must, be bound in one of the two ways."""

    OFF = "off"
    """A token that is bound so is refused, because its proof would not be checked."""
    ALLOWED = "allowed"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a token is bound to: one of the two, or neither."""

    key: str | None = None
    """Thumbprint of the client's key."""
    certificate: str | None = None
    """Thumbprint of the client's certificate."""

    def check_certificate(self, shown: str | None) -> None:
        """Let a request pass that came over a connection with the token's certificate (RFC 8705 section 3).

        Args:
            shown: thumbprint of the certificate that the client proved to hold, or None where it showed none.

        Raises:
            TokenRejected: it is missing, or another one.
        """
        if self.certificate is None:
            return
        if shown is None:
            raise TokenRejected("bound to a certificate, and none was shown", fault=TokenFault.CERTIFICATE_MISSING)
        if not hmac.compare_digest(self.certificate.encode(), shown.encode()):
            raise TokenRejected("bound to another certificate", fault=TokenFault.CERTIFICATE_OTHER)


NOT_BOUND: Final = Confirmation()


def confirmation(claims: JsonObject) -> Confirmation:
    """Return what a token is bound to.

    Raises:
        TokenRejected: it is bound to something else, or to more than one thing.
    """
    if "cnf" not in claims:
        return NOT_BOUND
    methods = claims["cnf"]
    if not isinstance(methods, dict) or not methods:
        raise TokenRejected("cnf names no method", fault=TokenFault.BOUND)
    if methods.keys() >= {_KEY, _CERTIFICATE}:
        raise TokenRejected("the token is bound to a key and to a certificate", fault=TokenFault.BOUND_TWICE)
    [(method, thumbprint), *more] = methods.items()
    if more or not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise TokenRejected("the token is bound to what is not checked here", fault=TokenFault.BOUND)
    match method:
        case "jkt":
            return Confirmation(key=thumbprint)
        case "x5t#S256":
            return Confirmation(certificate=thumbprint)
        case _:
            raise TokenRejected("the token is bound by a method that is not known here", fault=TokenFault.BOUND)
