"""Takes secrets out of text on its way to a log.

The last line of defence, not the first: nothing should hand a secret to a logger. It works by shape, so it errs on
redacting. Every pattern is bounded or anchored so that text chosen by a caller cannot make it slow (each is linear in
the text, times at most the bound).
"""

import re
from typing import Final

GONE: Final = "[redacted]"

LONGEST: Final = 1 << 16
"""Characters that are looked at; the rest of a longer text is dropped first."""

SHOWN: Final = 1 << 13
"""Characters that are shown. Less than what is looked at, so that a secret is never cut in half before it is seen."""

_RULES: Final = (
    # A JWT or JWE in compact form (RFC 7515 section 7.1): the header is an object, whose Base64url begins with eyJ.
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_.-]*"), GONE),
    # Authorization credentials (RFC 6750 section 2.1, RFC 9449 section 7.1, RFC 7617).
    (re.compile(r"(?i)\b(bearer|dpop|basic)[ \t]{1,4}[A-Za-z0-9._~+/-]{12,}={0,2}"), r"\1 " + GONE),
    (
        re.compile(r"(?i)\b((?:proxy-)?authorization[\"']?[ \t]{0,4}[:=][ \t]{0,4}[\"']?)[^\s\"'][^\r\n\"']*"),
        r"\1" + GONE,
    ),
    # The userinfo of a URI, a MongoDB connection string above all. Up to the last @: passwords may hold unescaped ones.
    (
        re.compile(r"(?i)(?<![a-z0-9+.-])([a-z][a-z0-9+.-]{0,31}://)[^\s\"'<>@/?#]*:[^\s\"'<>]{0,1024}@"),
        r"\1" + GONE + "@",
    ),
    (re.compile(r"(?i)\b(mongodb(?:\+srv)?://)[^\s\"'<>]{1,1024}@"), r"\1" + GONE + "@"),
    # Named secrets, as in query strings, forms, JSON and key=value logs.
    (
        re.compile(
            r"(?i)((?:password|passwd|pwd|secret|api_?key|(?:access|refresh|id|session|subject|actor)_token|"
            r"client_assertion|tlsCertificateKeyFilePassword)[\"']?[ \t]{0,4}[=:][ \t]{0,4}[\"']?)[^\s&\"',;}]+"
        ),
        r"\1" + GONE,
    ),
)


def redact(text: str) -> str:
    """Return the text without what looks like a token, a connection string's credentials or a named secret."""
    text = text[:LONGEST]
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
