"""``mcp-sidecar token explain``: what this deployment makes of one token, claim by claim.

The verdict is the verifier's own. What a refused token says is shown as well, to find out why; no issuer has vouched
for it. Neither the token nor its signature is ever part of an answer, nor are the values of claims that are not used
here.
"""

import base64
import contextlib
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sidecar import strict_json
from sidecar.errors import ConfigurationError, KeysUnavailable, TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity import CLIENT_CLAIMS, spellings
from sidecar.issuer_settings import Issuer
from sidecar.issuers import known
from sidecar.mcp import jsonrpc
from sidecar.model import AuthScheme, Credential, JsonObject, JsonValue, UnverifiedToken
from sidecar.policy import document
from sidecar.ports import Clock
from sidecar.settings import Settings

MAX_BYTES: Final = 131_072
"""Of standard input; the longest header that can be configured is half of it."""

_TIMES: Final = ("exp", "iat", "nbf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of a token, and what it is here."""

    name: str
    value: JsonValue
    """Null where the claim is not used."""
    used: bool
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """What a deployment makes of a token."""

    fault: TokenFault | None
    """Why it is refused, or None where it is accepted."""
    detail: str
    header: JsonObject
    claims: tuple[Claim, ...]
    identity: JsonObject | None

    @property
    def ok(self) -> bool:
        """Whether the token is accepted."""
        return self.fault is None

    def document(self) -> JsonObject:
        """Render it as JSON."""
        claims: list[JsonValue] = [
            {"claim": one.name, "used": one.used, "value": one.value, "meaning": one.meaning} for one in self.claims
        ]
        return {
            "accepted": self.ok,
            "fault": None if self.fault is None else self.fault.value,
            "detail": self.detail,
            "header": self.header,
            "claims": claims,
            "identity": self.identity,
        }

    def lines(self) -> Iterator[str]:
        """Render it for people."""
        yield "accepted" if self.fault is None else f"refused: {self.fault} ({self.detail})"
        for name, value in self.header.items():
            yield f"header {name}: {jsonrpc.encode(value).decode()}"
        for one in self.claims:
            shown = f" = {jsonrpc.encode(one.value).decode()}" if one.used else ""
            yield f"claim {one.name}{shown}: {one.meaning or 'not used'}"
        for part, value in (self.identity or {}).items():
            yield f"{part}: {jsonrpc.encode(value).decode()}"


async def explain_token(text: bytes, config: Settings, clock: Clock) -> TokenReport:
    """Verify one token as a request would present it, and say what each of its claims is here.

    Raises:
        ConfigurationError: there is no token, or the issuer's keys cannot be had.
    """
    token = UnverifiedToken(text.decode("ascii", "replace").strip())
    if not token:
        raise ConfigurationError("standard input holds no token")
    credential = Credential(scheme=AuthScheme.BEARER, token=token, method="POST", uri=config.resource.text)
    fault: TokenFault | None = None
    identity: JsonObject | None = None
    detail = ""
    async with AsyncExitStack() as stack:
        try:
            found = await (await known(config, clock, stack)).verifier.verify(credential)
            identity = {
                "subject": document.subject_document(found.principal),
                "actor": document.actor_document(found.actor),
            }
        except TokenRejected as refusal:
            fault, detail = refusal.fault, refusal.detail
        except KeysUnavailable as error:
            raise ConfigurationError(f"the issuer's keys cannot be had: {error.detail}") from None
    header, claims = _read(token, 0), _read(token, 1)
    entry = next((one for one in config.issuers if one.issuer == claims.get("iss")), None)
    reading = _Reading(claims=claims, entry=entry, config=config, now=clock.time_ns() / 1e9)
    return TokenReport(
        fault=fault,
        detail=detail,
        header={name: header[name] for name in ("alg", "kid", "typ") if name in header},
        claims=tuple(reading.claim(name) for name in claims),
        identity=identity,
    )


def _read(token: str, segment: int) -> JsonObject:
    """Return a segment of a token that may be anything; empty where it is no JSON object."""
    with contextlib.suppress(ValueError, IndexError, RecursionError):
        encoded = token.split(".")[segment]
        value = strict_json.DECODER.decode(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode())
        jsonrpc.encode(value)  # a lone surrogate has no UTF-8 and raises here
        return value if isinstance(value, dict) else {}
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """The claims of one token under the settings of its issuer."""

    claims: JsonObject
    entry: Issuer | None
    """None where the issuer is not configured."""
    config: Settings
    now: float

    def claim(self, name: str) -> Claim:
        meanings = [*self._meanings(name)]
        value = self.claims[name]
        return Claim(name=name, value=value if meanings else None, used=bool(meanings), meaning="; ".join(meanings))

    def _meanings(self, name: str) -> Iterator[str]:
        value = self.claims[name]
        if name == "iss":
            yield "the issuer, which is configured" if self.entry is not None else "an issuer that is not configured"
        if self.entry is None:
            return
        if name in _TIMES:
            yield self._time(name, value)
        if name == "aud":
            yield self._audience(value, self.entry)
        if name == "cnf":
            yield "bound to a key: no bearer token"
        if name == "act" or (name in CLIENT_CLAIMS and name not in self._agents()):
            yield "who acts, from the last to the first" if name == "act" else "names a client"
        yield from self._mapped(name, self.entry)
        yield from self._marks(name, value, self.entry)

    def _agents(self) -> tuple[str, ...]:
        return self.entry.claims.agent if self.entry is not None else ()

    def _mapped(self, name: str, entry: Issuer) -> Iterator[str]:
        mapped = entry.claims
        for path, meaning in (
            (mapped.subject, "the user"),
            (mapped.groups, "the user's groups"),
            (mapped.roles, "the user's roles"),
            (mapped.scope, "the scopes"),
            *((path, "passed on to policies") for path in mapped.extra),
        ):
            if _leads_through(path, name, self.claims):
                yield meaning
        chosen = next((path for path in mapped.agent if _at(self.claims, path)), "")
        for path in mapped.agent:
            if _leads_through(path, name, self.claims):
                yield "the agent" if path == chosen else f"not the agent, because {chosen or 'nothing'} comes first"

    def _marks(self, name: str, value: JsonValue, entry: Issuer) -> Iterator[str]:
        if name in entry.required:
            accepted = not entry.required[name] or value in entry.required[name]
            yield "marks an access token" if accepted else "marks another token than an access token"
        person = entry.person
        if name in {*person.claims, *person.values}:
            yield "asked of a person's token"
        if name in {*person.not_claims, *person.not_values}:
            yield "looked at because of software"

    def _time(self, name: str, value: JsonValue) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "not a number of seconds"
        try:
            moment = datetime.fromtimestamp(value, UTC).isoformat()
        except (ValueError, OverflowError, OSError):
            return "not a date"
        away = round(abs(value - self.now))
        return f"{moment}, {away} s {'ago' if value < self.now else 'from now'} ({name})"

    def _audience(self, value: JsonValue, entry: Issuer) -> str:
        accepted = frozenset().union(*map(spellings, entry.audiences or (self.config.resource.text,)))
        members = value if isinstance(value, list) else [value]
        if any(isinstance(member, str) and member in accepted for member in members):
            return "for this resource"
        return f"for another resource; accepted: {', '.join(sorted(accepted))}"


def _leads_through(path: str, name: str, claims: JsonObject) -> bool:
    """Whether a configured path is this claim, or begins in it."""
    return path == name or (path not in claims and "://" not in path and path.split(".", 1)[0] == name)


def _at(claims: JsonObject, path: str) -> str:
    """Return the text at a path, empty where there is none."""
    value: JsonValue = claims
    for step in [path] if path in claims else path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
