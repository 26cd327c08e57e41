"""Session ids that any replica can read: what a session is, sealed (AES-256-GCM), so that only a sidecar can make one.

A handle grants nothing: the token counts on each request, and a handle of another identity is answered as one that
never existed. What is sealed is who opened the session, by which revision, and until when it lasts.

The layout, before base64url: id of the key (4 bytes), salt (16), then the ciphertext of identity digest (32), seconds
of its making and its end (4 each), revision (10), and the client's name (at most 64 bytes of UTF-8). Each handle has a
key of its own, HMAC-SHA256 of the salt, so that a fixed nonce is used once with each.

Request states of 2026-07-28 are sealed with the same keys, bound to their own purpose: neither is read as the other.
"""

import base64
import binascii
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.mcp.revision import McpRevision
from sidecar.mcp.session import IdentityKey
from sidecar.questions import QuestionKind

KEY_BYTES: Final = 32
LONGEST_HANDLE: Final = 256
"""Characters; the longest that is made has 200."""
MOST_NAME_BYTES: Final = 64
MOST_FIELDS_BYTES: Final = 1024
"""The names of a form's fields, as a JSON array."""
LONGEST_STATE: Final = 2048
"""Characters; the longest request state of a confirmation has 1,560."""
LONGEST_CARRIED: Final = 20_000
"""Characters; the longest of other questions, which a server's own state of 8 KiB is in, has 19,300."""
MOST_ASKED_BYTES: Final = 6 * 1024
"""What was asked: names, kinds, and the fields of forms."""

_KEY_ID_BYTES: Final = 4
_SALT_BYTES: Final = 16
_NONCE: Final = bytes(12)
_HEAD: Final = struct.Struct(">32sII10s")
_STATE: Final = struct.Struct(">32s32s32sI")
_REVISIONS: Final = {revision.value.encode(): revision for revision in McpRevision}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSession:
    """What a handle says."""

    identity: bytes
    """``identity_digest`` of who opened it."""
    revision: McpRevision
    client_name: str
    """Self-reported, cut to ``MOST_NAME_BYTES``; for people who read logs."""
    created: int
    """Seconds since the epoch."""
    expires: int
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedQuestion:
    """What a request state says: which question was asked, of whom, and about which call."""

    identity: bytes
    """``identity_digest`` of who was asked."""
    call: bytes
    """32 bytes that stand for the server, the tool and its arguments."""
    question: bytes
    """32 bytes that stand for the question."""
    fields: tuple[str, ...]
    """The names that the form has."""
    expires: int
    """Seconds since the epoch."""


class CarriedQuestions(msgspec.Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """What a request state says of questions that were taken to a client: of whom, about which call, and what."""

    identity: bytes
    """``identity_digest`` of who was asked."""
    call: bytes
    """32 bytes that stand for the server, what was called, and its arguments."""
    expires: int
    """Seconds since the epoch."""
    asked: dict[str, tuple[QuestionKind, tuple[str, ...]]]
    """By name: the kind, and the fields of a form."""
    state: str | None
    """The server's own state."""
    rounds: int
    """How many results of this call have asked for something."""


class HandleKeys:
    """Seals with the first key, and reads what any of them sealed.

    Args:
        keys: one or two of ``KEY_BYTES`` random bytes; the second one is the one before, or the one to come.
        resource: what the sessions are of; a handle of another resource is not read.

    Raises:
        ValueError: no key, too many, equal ones, or of another length.
    """

    def __init__(self, keys: Sequence[bytes], resource: str) -> None:
        if not 1 <= len(keys) <= 2 or len(set(keys)) < len(keys):  # noqa: PLR2004 - the one in use and one other
            raise ValueError("one or two different keys are needed")
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._keys = {sha256(b"id" + key).digest()[:_KEY_ID_BYTES]: key for key in keys}
        self._first = next(iter(self._keys))
        self._bound = b"mcp-sidecar session 1 " + resource.encode()
        self._state_bound = b"mcp-sidecar request state 1 " + resource.encode()
        self._carried_bound = b"mcp-sidecar carried questions 1 " + resource.encode()

    def seal(self, session: SealedSession, unique: str) -> str:
        """Return the handle of a session.

        Args:
            session: what it says.
            unique: never the same twice, and not to be guessed.
        """
        head = _HEAD.pack(session.identity, session.created, session.expires, session.revision.value.encode())
        return self._seal(head + cut(session.client_name).encode(), unique, self._bound)

    def read(self, handle: str) -> SealedSession | None:
        """Return what a handle says; None for everything that was not sealed with one of the keys, exactly so."""
        text = self._open(handle, LONGEST_HANDLE, self._bound)
        return None if text is None else _parse(text)

    def seal_question(self, asked: SealedQuestion, unique: str) -> str:
        """Return the request state of a question.

        Args:
            asked: what it says.
            unique: never the same twice, and not to be guessed.

        Raises:
            ValueError: the form has more fields than fit.
        """
        fields = msgspec.json.encode(asked.fields)
        if len(fields) > MOST_FIELDS_BYTES:
            raise ValueError("the fields of the form do not fit")
        head = _STATE.pack(asked.identity, asked.call, asked.question, asked.expires)
        return self._seal(head + fields, unique, self._state_bound)

    def read_question(self, state: str) -> SealedQuestion | None:
        """Return what a request state says; None for everything that was not sealed with one of the keys as such."""
        text = self._open(state, LONGEST_STATE, self._state_bound)
        if text is None or len(text) < _STATE.size:
            return None
        identity, call, question, expires = _STATE.unpack_from(text)
        try:
            fields = msgspec.json.decode(text[_STATE.size :], type=tuple[str, ...])
        except msgspec.DecodeError:
            return None
        return SealedQuestion(identity=identity, call=call, question=question, fields=fields, expires=expires)

    def seal_carried(self, carried: CarriedQuestions, unique: str) -> str:
        """Return the request state of questions that were taken to a client; see ``seal_question``.

        Raises:
            ValueError: there is more than fits.
        """
        if len(msgspec.msgpack.encode(carried.asked)) > MOST_ASKED_BYTES:
            raise ValueError("what was asked does not fit")
        sealed = self._seal(msgspec.msgpack.encode(carried), unique, self._carried_bound)
        if len(sealed) > LONGEST_CARRIED:
            raise ValueError("the state of the server does not fit")
        return sealed

    def read_carried(self, state: str) -> CarriedQuestions | None:
        """Return what such a state says; None for everything that was not sealed with one of the keys as such."""
        text = self._open(state, LONGEST_CARRIED, self._carried_bound)
        try:
            return None if text is None else msgspec.msgpack.decode(text, type=CarriedQuestions)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    def _seal(self, text: bytes, unique: str, bound: bytes) -> str:
        salt = sha256(bound + unique.encode()).digest()[:_SALT_BYTES]
        sealed = self._cipher(self._first, salt).encrypt(_NONCE, text, bound)
        return base64.urlsafe_b64encode(self._first + salt + sealed).rstrip(b"=").decode()

    def _open(self, spelled: str, longest: int, bound: bytes) -> bytes | None:
        if not 0 < len(spelled) <= longest:
            return None
        try:
            raw = base64.b64decode(spelled.encode("ascii") + b"=" * (-len(spelled) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error):
            return None
        # One spelling only: suspensions and marks name what was sealed by the digest of its text.
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != spelled:
            return None
        key_id, salt = raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:][:_SALT_BYTES]
        if key_id not in self._keys or len(salt) < _SALT_BYTES:
            return None
        try:
            return self._cipher(key_id, salt).decrypt(_NONCE, raw[_KEY_ID_BYTES + _SALT_BYTES :], bound)
        except InvalidTag:
            return None

    def _cipher(self, key_id: bytes, salt: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._keys[key_id], salt, "sha256"))


def identity_digest(key: IdentityKey) -> bytes:
    """Return 32 bytes that stand for (issuer, subject, agent); no two of them have the same text before hashing."""
    parts = [part.encode("utf-8", "surrogatepass") for part in key]
    return sha256(b"".join(struct.pack(">I", len(part)) + part for part in parts)).digest()


def handle_digest(handle: str) -> bytes:
    """Return 16 bytes that name a handle without being it."""
    return sha256(b"handle " + handle.encode("utf-8", "surrogatepass")).digest()[:16]


def cut(name: str) -> str:
    """Return the part of a client's name that is sealed: whole characters, at most ``MOST_NAME_BYTES``."""
    return name.encode("utf-8", "ignore")[:MOST_NAME_BYTES].decode("utf-8", "ignore")


def _parse(text: bytes) -> SealedSession | None:
    """Read what was sealed; None where a sidecar of another version sealed what this one does not know."""
    if not _HEAD.size <= len(text) <= _HEAD.size + MOST_NAME_BYTES:
        return None
    identity, created, expires, revision = _HEAD.unpack_from(text)
    if revision not in _REVISIONS:
        return None
    return SealedSession(
        identity=identity,
        revision=_REVISIONS[revision],
        client_name=text[_HEAD.size :].decode("utf-8", "ignore"),
        created=created,
        expires=expires,
    )
