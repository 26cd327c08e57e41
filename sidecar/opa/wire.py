"""What may be sent to OPA and what may be believed of its answer, as bytes in and values out.

The strict decoding stands here and not in the client, so that it can be fuzzed without a socket. Nothing in this file
quotes a document: questions carry claims, and OPA's own error messages repeat values of the question.
"""

import hashlib
import math
import re

from sidecar import compact_json, strict_json
from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject, JsonValue
from sidecar.ports import PdpAnswer
from sidecar.printing import escaped

MAX_QUESTION_BYTES = 1_000_000
"""Of a rendered question. OPA's own default is 256 MiB of JSON, about twenty times that in memory."""

LONGEST_ANSWER = 1_000_000
"""Bytes."""

_MAX_LABEL = 1024
"""Characters of a revision or decision id. OPA's ids are UUIDs (36); revisions are digests or version strings."""

_LABEL = re.compile(r"[\x21-\x7e]*")
"""Visible ASCII: both values go into spans, audit records and logs."""

_CODE = re.compile(r"[a-z_]{1,64}")
_FILE = re.compile(r"[\w./\-]{1,256}", re.ASCII)

_DELETE = b"\x7f"


def encode_question(document: JsonObject, beside: JsonObject | None = None) -> bytes:
    """Render ``{"input": document}``, with what stands ``beside`` it, as compact UTF-8 JSON.

    What does not print is escaped, since OPA's decision log and our evidence hold the text.

    Raises:
        DecisionUnavailable: the document has no JSON form (NaN, infinity, a lone surrogate, too deep), or one that is
            too large. Never sent.
    """
    try:
        body = compact_json.encode({**(beside or {}), "input": document})
        if not body.isascii() or _DELETE in body:  # the encoder has escaped the other control characters
            body = escaped(body.decode()).encode()
    except (ValueError, TypeError, RecursionError) as error:
        # Without the cause: its text repeats the offending value.
        raise DecisionUnavailable(
            f"the question has no JSON form ({type(error).__name__})", fault=PdpFault.QUESTION
        ) from None
    if len(body) > MAX_QUESTION_BYTES:
        raise DecisionUnavailable(f"the question is larger than {MAX_QUESTION_BYTES} bytes", fault=PdpFault.QUESTION)
    return body


def about_request(body: bytes, request_id: str) -> bytes:
    """Return a question with our request id beside its input, for OPA's decision log alone.

    OPA takes further members of the body for request metadata (1.21, REST API, "Request/Response Metadata"). It logs
    them as ``custom.request_metadata``. No rule can read them, so a remembered answer holds for every request.

    Args:
        body: as ``encode_question`` returns it.
        request_id: empty where there is none.
    """
    if not request_id:
        return body
    return b'%b,"mcp-sidecar":{"request_id":%b}}' % (body[:-1], compact_json.encode(request_id))


def decode_answer(body: bytes, *, revision: str | None = None) -> PdpAnswer:
    """Read the body of ``POST /v1/data/…`` (OPA REST API, "Get a Document (with Input)").

    Args:
        body: the whole body, complete and within the size limit.
        revision: the policy set that is known to have answered (a managed OPA has exactly one), instead of what the
            answer's provenance says.

    Returns:
        The value of ``result``, with the decision id, if OPA gives one. Envelope members that are not read here are
        ignored: OPA lets distributions add their own (``types.DataResponseV1``, 1.22.2). The value inside ``result``
        is judged by ``sidecar.policy.verdict``, which ignores nothing.

    Raises:
        DecisionUnavailable: not one strict JSON object (UTF-8, no duplicate keys, no NaN or infinity, no lone
            surrogates), no ``result`` (OPA's way to say undefined), or a warning that the question was not understood.
    """
    envelope = _decode(body)
    if not isinstance(envelope, dict):
        raise DecisionUnavailable("the answer is not a JSON object", fault=PdpFault.MALFORMED)
    if "warning" in envelope:
        # OPA says so when it took the body for something else than a question (api_usage_warning).
        raise DecisionUnavailable("the answer carries an API usage warning", fault=PdpFault.MALFORMED)
    if "result" not in envelope:
        raise DecisionUnavailable("the result is undefined", fault=PdpFault.UNDEFINED)
    return PdpAnswer(
        result=envelope["result"],
        revision=provenance_revision(envelope.get("provenance")) if revision is None else revision,
        decision_id=_label(envelope.get("decision_id", ""), "decision id"),
        engine=_engine(envelope.get("provenance")),
    )


def describe_failure(body: bytes) -> str:
    """Say what OPA's error body (``types.ErrorV1``) says, without any text that could repeat the question.

    Builtin errors quote their arguments (``time.parse_rfc3339_ns: parsing time "…"``), so only codes and locations are
    taken, each held to its own form.

    Returns:
        For example ``internal_error: eval_builtin_error at platform/main.rego:12``, or an empty string.
    """
    try:
        envelope = _decode(body)
    except DecisionUnavailable:
        return ""
    if not isinstance(envelope, dict):
        return ""
    errors = envelope.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    parts = (_code(envelope.get("code")), _located(first))
    return ": ".join(part for part in parts if part)


def _located(error: JsonValue) -> str:
    if not isinstance(error, dict):
        return ""
    code, location = _code(error.get("code")), error.get("location")
    if not isinstance(location, dict):
        return code
    file, row = location.get("file"), location.get("row")
    if isinstance(file, str) and _FILE.fullmatch(file) and type(row) is int:
        return f"{code} at {file}:{row}"
    return code


def _code(value: JsonValue) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _engine(provenance: JsonValue) -> str:
    return _label(provenance.get("version", ""), "version") if isinstance(provenance, dict) else ""


def provenance_revision(provenance: JsonValue) -> str:
    """Return the revisions of all bundles, sorted and joined with commas (their digest, if long).

    Empty if OPA does not say.

    Raises:
        DecisionUnavailable: the value is not a provenance.
    """
    if provenance is None:
        return ""
    if not isinstance(provenance, dict):
        raise DecisionUnavailable("the provenance is not an object", fault=PdpFault.MALFORMED)
    bundles = provenance.get("bundles", {})
    if not isinstance(bundles, dict) or not all(isinstance(bundle, dict) for bundle in bundles.values()):
        raise DecisionUnavailable("the provenance does not describe bundles", fault=PdpFault.MALFORMED)
    revisions = {
        _label(bundle.get("revision", ""), "revision") for bundle in bundles.values() if isinstance(bundle, dict)
    }
    joined = ",".join(sorted(revisions - {""}))
    if len(joined) > _MAX_LABEL:
        # Some two dozen teams with a digest each; the name of the combination is then a digest too.
        joined = f"sha256:{hashlib.sha256(joined.encode()).hexdigest()[:32]}"
    return _label(joined, "revision")


def _label(value: JsonValue, name: str) -> str:
    if not isinstance(value, str) or len(value) > _MAX_LABEL or not _LABEL.fullmatch(value):
        raise DecisionUnavailable(f"the {name} is not a short visible ASCII string", fault=PdpFault.MALFORMED)
    return value


def _decode(body: bytes) -> JsonValue:
    try:
        text = body.decode("utf-8", "strict")
        value: JsonValue = _DECODER.decode(text)
        if _SURROGATE.search(text):
            # An escape may be half of a pair (fine) or alone (cannot be written again as UTF-8); only encoding tells.
            compact_json.encode(value)
    except (ValueError, RecursionError) as error:
        # Without the cause: JSONDecodeError holds the whole document.
        raise DecisionUnavailable(
            f"the answer is not strict JSON ({type(error).__name__})", fault=PdpFault.MALFORMED
        ) from None
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = "number out of range"
        raise ValueError(msg)
    return value


_DECODER = strict_json.decoder(parse_float=_finite)
"""RFC 8259 says that names should be unique and leaves the rest to the reader; the first or the last of two ``allow``
members would be an arbitrary choice. ``msgspec`` takes the last one (measured), so it is not used here."""
